"""The command line of btw-backup: its arguments, output and exit codes.

0 done; 1 failed; 2 wrong usage; 3 the backup was made, but its copy is not complete, or files changed
while they were read (btw-backup exits with 0 there); 130 interrupted.
"""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.dropin.btw.arguments import KEEP_COUNTS, PROGRAM, parse
from perdure.errors import INTERRUPTED, BackupIncomplete, DamageFound, PerdureError, UsageError

if TYPE_CHECKING:
    from perdure.dropin.btw.backing_up import Workshop
    from perdure.dropin.btw.children import Children
    from perdure.dropin.btw.configuration import Configuration
    from perdure.dropin.btw.destination import Destination
    from perdure.dropin.btw.journal import Journal
    from perdure.dropin.btw.locking import Wait
    from perdure.dropin.btw.syncing import Copying
    from perdure.sources.durable import Owner

_FAILED = 1
_SERVER = "BTW_BACKUP_S3_SERVER"


def main(argv: Sequence[str]) -> int:
    """Run one command; gives its exit code."""
    try:
        given = parse(argv)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    before = os.umask(0o077)
    try:
        run = _Run(given)
        try:
            _COMMANDS[given.command](run)
        finally:
            run.end_progress()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "interrupted", None)
    except BackupIncomplete as error:
        return _fail(error.exit_code, str(error), error.hint)
    except PerdureError as error:
        code = error.exit_code if given.command in _OURS else _FAILED
        return _fail(code, str(error), error.hint)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(_FAILED, f"{where}{error.strerror or error}", None)
    finally:
        os.umask(before)
    return 0


def _fail(code: int, message: str, hint: str | None) -> int:
    sys.stderr.write(f"{PROGRAM}: {message}\n")
    if hint:
        sys.stderr.write(f"  hint: {hint}\n")
    return code


class _Run:
    """What the commands share: arguments, configuration, output."""

    def __init__(self, given: argparse.Namespace) -> None:
        from perdure.dropin.btw.configuration import Configuration
        from perdure.dropin.btw.locking import Wait
        from perdure.dropin.btw.settings import parse_span

        self.given = given
        self.quiet: bool = given.quiet
        self._showing = False
        self.wait: Wait = Wait(parse_span(given.lock_wait).total_seconds())
        self.configuration: Configuration = Configuration(_folder(given.config_dir))

    def say(self, line: str) -> None:
        """Print a line, unless quiet is wanted."""
        if not self.quiet:
            sys.stdout.write(f"{line}\n")

    def warning(self, message: str) -> None:
        """Print a line on standard error."""
        self.end_progress()
        sys.stderr.write(f"{PROGRAM}: {message}\n")

    def progress(self, phase: str, done: int, total: int) -> None:
        """Show on a terminal how it goes on."""
        if not self.quiet and sys.stderr.isatty():
            self._showing = True
            sys.stderr.write(f"\r{phase}: {done} of {total}\x1b[K")
            sys.stderr.flush()

    def end_progress(self) -> None:
        """Clear the line that shows how it goes on."""
        if self._showing:
            sys.stderr.write("\r\x1b[K")
        self._showing = False

    def destination(self) -> Destination:
        """The destination that is named."""
        from perdure.dropin.btw.destination import Destination
        from perdure.dropin.btw.names import destination_name

        return Destination(self.configuration.root, destination_name(self.given.dst))

    def children(self, *kept: int) -> Children:
        """How programs are run."""
        from perdure.dropin.btw.children import Children, our_environment

        return Children(our_environment(os.environ, Path(sys.executable).parent), kept)

    def journal(self) -> Journal:
        """The state file."""
        from perdure.dropin.btw.journal import Journal

        return Journal(self.configuration.folder, self.wait, _now)

    def copying(self) -> Copying:
        """What copies to S3."""
        from perdure.dropin.btw.bucket import open_bucket
        from perdure.dropin.btw.configuration import read_trusted
        from perdure.dropin.btw.s3cmd import SIZE_LIMIT, connection, parse_s3cmd
        from perdure.dropin.btw.syncing import Copying

        offsite = self.configuration.offsite
        settings = parse_s3cmd(read_trusted(offsite.s3cmd_config, SIZE_LIMIT))
        place = connection(settings, offsite.uri_prefix, os.environ.get(_SERVER))
        return Copying(
            root=self.configuration.root,
            remote=open_bucket(place, encrypted=offsite.encrypted),
            journal=self.journal(),
            observer=self,
            folder=self.configuration.folder,
            wait=self.wait,
        )

    def backup(self, make: Callable[[Workshop, Destination], None], owner: Owner | None) -> None:
        """Make a backup under the destination's lock; then copy, also when it failed."""
        from perdure.dropin.btw.backing_up import Workshop
        from perdure.dropin.btw.locking import destination_locked

        destination = self.destination()
        _ = self.configuration.offsite  # what is missing there is said before the work
        failure: PerdureError | OSError | None = None
        with destination_locked(self.configuration.folder, destination.name, self.wait) as lock:
            shop = Workshop(self.children(lock), self.journal(), self, _now, owner)
            try:
                make(shop, destination)
            except (PerdureError, OSError) as error:
                failure = error
        try:
            self.copying().after_backup(destination)
        except (PerdureError, OSError) as error:
            if failure is None:
                hint = error.hint if isinstance(error, PerdureError) else None
                message = f"the backup is made, its copy is not complete: {error}"
                raise BackupIncomplete(message, hint=hint) from error
            self.warning(str(error))
        if failure:
            raise failure


def _fs_init(run: _Run) -> None:
    from perdure.dropin.btw.configuration import JobType

    _ = run.configuration.root
    made = run.configuration.initialize(run.given.src, run.given.name, JobType(run.given.type))
    run.say(f"{PROGRAM}: created {made}")


def _fs(run: _Run) -> None:
    from perdure.dropin.btw.backing_up import back_up_files

    source = run.given.src
    job = run.configuration.job(source)
    run.backup(lambda shop, dst: back_up_files(shop, job, source, dst), parse_owner(run.given.uid))


def _db(run: _Run) -> None:
    from perdure.dropin.btw.backing_up import back_up_database, back_up_globals
    from perdure.dropin.btw.names import database_name

    owner = parse_owner(run.given.uid)
    if run.given.globals and run.given.db:
        raise UsageError("-g (--global) cannot be used with a database name")
    if run.given.globals:
        rotation = run.configuration.database("global")
        run.backup(lambda shop, dst: back_up_globals(shop, rotation, dst), owner)
    elif run.given.db:
        name = database_name(run.given.db)
        rotation = run.configuration.database(name)
        run.backup(lambda shop, dst: back_up_database(shop, name, rotation, dst), owner)
    else:
        raise UsageError("either -g (--global) or a database name must be specified")


def _list(run: _Run) -> None:
    for line in run.destination().listing():
        sys.stdout.write(f"{line}\n")


def _sync(run: _Run) -> None:
    from perdure.dropin.btw.syncing import EVERYTHING

    copying = run.copying()
    if run.given.full:
        copying.journal.begin([EVERYTHING])
    copying.all()


def _sync_state(run: _Run) -> None:
    from perdure.dropin.btw.state import Kind

    if run.given.list and run.given.reset:
        raise UsageError("--list and --reset are not allowed together")
    if run.given.reset:
        run.journal().reset()
        run.say("The state was reset")
    elif run.given.list:
        state = run.journal().state()
        for kind in (Kind.SYNC, Kind.PUSH):
            for item in state.of_kind(kind):
                sys.stdout.write(f"Must {kind.value}: {item.path}\n")
    else:
        raise UsageError("must specify --list or --reset")


def _restore(run: _Run) -> None:
    from perdure.dropin.btw import restoring
    from perdure.dropin.btw.locking import destination_locked
    from perdure.dropin.btw.names import SCRATCH, destination_name
    from perdure.model import parse_time
    from perdure.sources.scratch import scratch_folder

    given = run.given
    if bool(given.target) == bool(given.into_database):
        raise UsageError("name a target, or --into-database, and not both")
    at = parse_time(given.at) if given.at else None
    target = Path(given.target).absolute() if given.target else None
    form = restoring.Form(archive=given.archive, database=given.into_database)
    if given.offsite:
        remote = run.copying().remote
        there = restoring.contents_there(remote, destination_name(given.dst))
        chosen = restoring.choose(there, at)
        with scratch_folder(target.parent if target else None, SCRATCH) as scratch:
            fetched = restoring.fetch(remote, chosen, scratch)
            made = restoring.restore(run.children(), fetched, target, form)
    else:
        destination = run.destination()
        with destination_locked(run.configuration.folder, destination.name, run.wait) as lock:
            chosen = restoring.choose(destination.contents(), at)
            made = restoring.restore(run.children(lock), chosen, target, form)
    run.say(f"{PROGRAM}: restored {chosen.time:%Y-%m-%dT%H:%M:%S} to {made}")


def _verify(run: _Run) -> None:
    from perdure.dropin.btw.destination import Destination
    from perdure.dropin.btw.locking import destination_locked
    from perdure.dropin.btw.names import destination_name
    from perdure.dropin.btw.syncing import destinations_below
    from perdure.dropin.btw.verifying import verify, verify_copy

    root = run.configuration.root
    names = [destination_name(name) for name in run.given.dst] or list(destinations_below(root))
    remote = run.copying().remote if run.given.offsite else None
    bad = 0
    for name in names:
        destination = Destination(root, name)
        with destination_locked(run.configuration.folder, name, run.wait) as lock:
            findings = [*verify(run.children(lock), destination)]
            findings += verify_copy(remote, destination) if remote else []
        for finding in findings:
            if finding.problem:
                bad += 1
                run.warning(f"{finding.name}: {finding.problem}")
            else:
                run.say(f"{finding.name}: good")
    if bad:
        raise DamageFound(f"{bad} of the backups or their copies cannot be relied on")


def _forget(run: _Run) -> None:
    from perdure.dropin.btw.keeping import decide, delete
    from perdure.dropin.btw.locking import destination_locked
    from perdure.retention import Policy, parse_count, parse_duration

    given = vars(run.given)
    rules: dict[str, Any] = {
        name: parse_count(given[f"keep_{name}"]) for name in KEEP_COUNTS if given[f"keep_{name}"]
    }
    if run.given.keep_within:
        rules["within"] = parse_duration(run.given.keep_within)
    policy = Policy(**rules)
    destination = run.destination()
    remote = run.copying().remote if run.given.offsite else None
    with destination_locked(run.configuration.folder, destination.name, run.wait):
        for decision in decide(destination, policy, _now()):
            name = decision.backup.path.name
            if decision.kept:
                run.say(f"keep {name}: {'; '.join(decision.reasons)}")
            else:
                run.say(
                    f"{'would delete' if run.given.dry_run else 'delete'} {name}: no rule keeps it"
                )
                if not run.given.dry_run:
                    delete(destination, decision, remote)


_COMMANDS: dict[str, Callable[[_Run], None]] = {
    "fs-init": _fs_init,
    "fs": _fs,
    "list": _list,
    "db": _db,
    "sync": _sync,
    "sync-state": _sync_state,
    "restore": _restore,
    "verify": _verify,
    "forget": _forget,
}
_OURS = {"restore", "verify", "forget"}
"""Commands that btw-backup has not; they end with the codes that Perdure's have."""


def _folder(given: str | None) -> Path:
    if given is not None:
        return Path(given)
    home = os.environ.get("HOME")
    if not home:
        raise UsageError(
            "HOME is not set", hint="name the configuration directory with --config-dir"
        )
    return Path(home) / ".btw-backup"


def parse_owner(given: str | None) -> Owner | None:
    """Read UID[:GID], names or numbers, as chown does: with ``:`` alone, the user's own group."""
    if given is None:
        return None
    user, colon, group = given.partition(":")
    try:
        entry = None if user.isdecimal() else pwd.getpwnam(user)
        uid = entry.pw_uid if entry else int(user)
        if group:
            return uid, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        return uid, pwd.getpwuid(uid).pw_gid if colon else -1
    except (KeyError, ValueError, OverflowError):
        raise UsageError(
            f"{given!r} names no user and group", hint="write -u www-data:www-data"
        ) from None


def _now() -> datetime:
    return datetime.now(UTC)
