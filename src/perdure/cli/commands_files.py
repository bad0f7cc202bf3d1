"""Commands for backups as files, in the layout of collective.recipe.backup: perdure site."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.around import Run as Monitored
from perdure.cli.around import around
from perdure.cli.options import configuration_options, use_configuration
from perdure.cli.session import Session, now, with_session
from perdure.cli.site_hooks import Told, around_run
from perdure.cli.site_part import load_part
from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure.dropin.recipe.part import Kind, Part, Place
    from perdure.dropin.recipe.restoring import StorageRestored
    from perdure.dropin.recipe.running import RunReport

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_PART, _SITE = "perdure.part", "perdure.site"
RESTORES = {"backup": "restore", "snapshotbackup": "snapshotrestore", "zipbackup": "ziprestore"}
"""By which command what each makes is restored."""


class _Ordered(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Ordered, short_help="Back up into files, as collective.recipe.backup does.")
@click.option("--part", "part_file", type=_FILE, help="A part.json, which buildout wrote.")
@click.option("--folder", type=_FOLDER, help="The folder of the site; by default the current one.")
@click.pass_context
def site(context: click.Context, part_file: Path | None, folder: Path | None) -> None:
    """Back up a site into files, and restore it from them, as collective.recipe.backup does.

    There are a repozo repository for each database, and directories or tars for the blobs. What to back up is
    found, or said in perdure.toml, in the table [site]; the variables of collective.backup are known, too.
    """
    context.meta[_PART], context.meta[_SITE] = part_file, folder
    if folder is not None and part_file is None:
        from perdure.cli.configuration import NAME, PROJECT, is_configuration

        for path in (folder / NAME, folder / PROJECT):
            if is_configuration(path):
                use_configuration(context, path)


def part_of(session: Session) -> Part:
    """Give the part that the command is about. Raises UsageError, SourceUnusable."""
    meta = click.get_current_context().meta
    part = load_part(session, meta.get(_PART), meta.get(_SITE))
    session.output.verbose |= part.debug
    return part


def folder_of() -> Path | None:
    """Give the folder that --folder names."""
    folder: Path | None = click.get_current_context().meta.get(_SITE)
    return folder


def which_part(session: Session) -> tuple[str, str]:
    """Give the option that leads to the same part from wherever it is used, and its value."""
    from perdure.cli.site_part import site_folder

    file: Path | None = click.get_current_context().meta.get(_PART)
    if file is not None:
        return "--part", str(file.absolute())
    return "--folder", str(site_folder(session, folder_of()))


_DRY_RUN = click.option("--dry-run", is_flag=True, help="Write nothing; say what would be done.")
_NO_PROMPT = click.option("--no-prompt", "-n", is_flag=True, help="Ask nothing.")


def _backup_command(kind_name: str, short_help: str, text: str) -> None:
    @_NO_PROMPT
    @_DRY_RUN
    @click.argument("words", nargs=-1, metavar="")
    @configuration_options
    @with_session
    def command(session: Session, no_prompt: bool, dry_run: bool, words: tuple[str, ...]) -> None:
        if words:
            session.output.warning(f"{' '.join(words)}: {kind_name} takes no arguments")
        if dry_run:
            _show_plan(session, part_of(session), kind_name)
        else:
            back_up(session, part_of(session), kind_name)

    command.__doc__ = text
    site.command(kind_name, short_help=short_help)(command)


_backup_command(
    "backup",
    "Back up databases and blobs; increments where that is possible.",
    "Back up the databases and their blobs, while servers write to them.",
)
_backup_command(
    "fullbackup",
    "The same, but a full backup of the databases.",
    "Back up the databases in full, and their blobs, among what `backup` makes.",
)
_backup_command(
    "snapshotbackup",
    "A full backup in a place of its own.",
    "Back up everything in full, to a place of its own: before an update, or for a developer.",
)
_backup_command(
    "zipbackup",
    "A full backup with the blobs in a tar; only the last one is kept.",
    "Back up everything in full, the blobs as one tar; of these only the last one is kept.",
)


def back_up(session: Session, part: Part, command: str) -> None:
    """Make a backup of a kind, and remove what is not to be kept. Raises PerdureError."""
    from perdure.dropin.recipe.part import Kind

    kind = Kind(command)
    told = _told(part, command, kind)
    with (
        _monitored(session, part, told) as outer,
        around_run(session, part, told, status=part.files),
    ):
        if part.repository:
            from perdure.cli.site_snapshots import back_up_to_repository

            back_up_to_repository(session, part, kind, told, outer)
        if part.files:
            _back_up_files(session, part, kind, told)


def _monitored(session: Session, part: Part, told: Told) -> AbstractContextManager[Monitored]:
    """Do what perdure.toml wants done around a backup; what a buildout wants is in its part alone."""
    if click.get_current_context().meta.get(_PART) is not None:
        return nullcontext(Monitored())
    location = part.repository or told.locations[0]
    return around(Session(replace(session.settings, repository=location)), now)


def _show_plan(session: Session, part: Part, command: str) -> None:
    """Say what a backup would read, and where it would go."""
    from dataclasses import asdict

    from perdure.dropin.recipe.part import Kind
    from perdure.dropin.recipe.running import Run

    with session.output.observer() as observer:
        plans = Run(part, Kind(command), now, time.sleep, observer).survey()
    for plan in plans:
        files = f"{plan.place.files} and {plan.place.blobs}" if part.files else ""
        places = " and ".join(filter(None, (files, part.repository)))
        state = ", unchanged" if plan.unchanged and part.files else ""
        session.output.line(
            messages.printable(
                f"{plan.database} ({messages.size(plan.size)},"
                f" {messages.count(plan.blobs, 'blob')}{state}) would go to {places}"
            )
        )
    storages = [
        {**asdict(plan), "place": {"files": plan.place.files, "blobs": plan.place.blobs}}
        for plan in plans
    ]
    session.output.event("summary", {"dry_run": True, "storages": storages})


def _back_up_files(session: Session, part: Part, kind: Kind, told: Told) -> None:
    from perdure.dropin.recipe.keeping import keep
    from perdure.dropin.recipe.running import Run, missing_error

    with session.output.observer() as observer:
        run = Run(part, kind, now, time.sleep, observer)
        with run.locked():
            report = run.perform()
            told.stamp = report.stamp
            told.storages = [_values(each) for each in report.storages]
            problem = missing_error(report)
            removed = [] if problem else keep(part, kind, now())
    _show_run(session, report, removed)
    if problem:
        raise problem


def _told(part: Part, command: str, kind: Kind) -> Told:
    places = [part.place(kind, each) for each in reversed(part.storages)]
    folders = [each.files for each in places] if part.databases and part.files else []
    if part.files and part.blobs:
        folders += [each.blobs for each in places]
    if part.repository:
        folders.append(part.repository)
    return Told(command, tuple(folders))


def _show_run(session: Session, report: RunReport, removed: list[str]) -> None:
    output = session.output
    for each in report.storages:
        name = each.name or "main"
        blobs = ""
        if each.blobs is not None:
            kept = each.blob_backup or "there already"
            blobs = f"; {messages.count(each.blobs, 'blob')}, {kept}"
        database = f" {messages.size(each.size)}, {each.reason}" if each.reason else ""
        output.line(messages.printable(f"{name} {each.stamp}:{database}{blobs}"))
    if removed:
        output.line(
            f"{messages.count(len(removed), 'file or folder', 'files and folders')} removed"
        )
    for path in removed:
        output.detail(messages.printable(f"  {path}"))
    output.event(
        "summary",
        {
            "kind": report.kind.value,
            "stamp": report.stamp,
            "storages": [_values(each) for each in report.storages],
            "removed": removed,
            "seconds": round(report.seconds, 3),
        },
    )


def _values(report: Any) -> dict[str, object]:
    from dataclasses import asdict

    values = asdict(report)
    values["missing"] = [str(blob) for blob in report.missing]
    return values


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the command line of a restore says."""

    command: str
    date: str | None
    through: bool
    no_prompt: bool
    allow_missing: bool
    dry_run: bool


def _restore_command(name: str, short_help: str, text: str) -> None:
    @click.argument("date", required=False)
    @_NO_PROMPT
    @click.option(
        "--through", is_flag=True, help="A date that ends early means its end: the whole day."
    )
    @click.option(
        "--allow-missing-blobs", is_flag=True, help="Restore even where blobs are in no backup."
    )
    @_DRY_RUN
    @configuration_options
    @with_session
    def command(
        session: Session,
        date: str | None,
        no_prompt: bool,
        through: bool,
        allow_missing_blobs: bool,
        dry_run: bool,
    ) -> None:
        wish = _Wish(name, date, through, no_prompt, allow_missing_blobs, dry_run)
        bring_back(session, part_of(session), wish)

    command.__doc__ = (
        f"{text}\n\nDATE is the last moment that counts, in UTC: 2026-11-21-04-06-06 or the beginning"
        " of it, or 2026-11-21T04:06:06+01:00. The newest backup that is not after it is restored,"
        " with exactly the blobs that it refers to; where one of them is in no backup, nothing is touched."
    )
    site.command(name, short_help=short_help)(command)


_restore_command("restore", "Restore what `backup` made.", "Restore databases and blobs.")
_restore_command(
    "snapshotrestore",
    "Restore what `snapshotbackup` made.",
    "Restore databases and blobs from what `snapshotbackup` made.",
)
_restore_command(
    "ziprestore",
    "Restore what `zipbackup` made.",
    "Restore databases and blobs from what `zipbackup` made.",
)
_restore_command(
    "altrestore",
    "Restore from another place.",
    "Restore databases and blobs from the place that alternative_restore_source names.",
)


def bring_back(session: Session, part: Part, wish: _Wish) -> None:
    """Restore, after a question. Raises PerdureError."""
    from perdure.dropin.recipe.dates import parse_date

    limit = parse_date(wish.date, through=wish.through) if wish.date else None
    places = part.places_of(wish.command)
    if not (wish.no_prompt or wish.dry_run) and not _agreed(part):
        session.output.line("Not restoring.")
        return
    told = Told(wish.command, tuple(p for each in places for p in (each.files, each.blobs) if p))
    with around_run(session, part, told, status=False):
        if part.repository and wish.command != "altrestore":
            from perdure.cli.site_snapshots import restore_from_repository

            if restore_from_repository(session, part, wish.command, limit, dry_run=wish.dry_run):
                return
        _restore_files(session, part, wish, places, limit)


def _agreed(part: Part) -> bool:
    """Ask whether what stands may be replaced; only a whole yes is one."""
    for storage in part.storages:
        if part.databases:
            database = messages.printable(storage.datafs)
            click.echo(f"This will replace the filestorage: {database}", err=True)
        if part.blobs and storage.blobs:
            blobs = messages.printable(storage.blobs)
            click.echo(f"This will replace the blobstorage: {blobs}", err=True)
    while True:
        try:
            answer: str = click.prompt(
                "Are you sure? (yes/No)", default="no", show_default=False, err=True
            )
        except click.Abort:
            raise UsageError(
                "there is nobody to ask; nothing was touched", hint="--no-prompt asks nothing"
            ) from None
        if answer.strip().lower() in {"yes", "no"}:
            return answer.strip().lower() == "yes"


def _restore_files(
    session: Session, part: Part, wish: _Wish, places: list[Place], limit: str | None
) -> None:
    from perdure.dropin.recipe.restoring import RestoreRequest, restore

    request = RestoreRequest(
        part=part,
        places=places,
        limit=limit,
        missing_allowed=wish.allow_missing,
        dry_run=wish.dry_run,
        sleep=time.sleep,
    )
    with session.output.observer() as observer:
        restored = restore(request, observer)
    _show_restored(session, restored, dry_run=wish.dry_run)


def _show_restored(session: Session, restored: list[StorageRestored], *, dry_run: bool) -> None:
    output = session.output
    done = "would be restored" if dry_run else "restored"
    for each in restored:
        if each.database:
            output.line(
                messages.printable(
                    f"{each.database} {done} as of {each.stamp}, {messages.size(each.size)}"
                )
            )
        if each.blob_storage:
            taken = ", ".join(each.blob_backups[:3]) or "none needed"
            output.line(
                messages.printable(
                    f"{each.blob_storage} {done}: {messages.count(each.blobs, 'blob')},"
                    f" {messages.size(each.blob_bytes)}, from {taken}"
                )
            )
    output.event("summary", {"dry_run": dry_run, "storages": [_values(each) for each in restored]})
