"""Commands that thin a repository out: forget, prune, tag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.options import repository_options, split_tags, tags
from perdure.cli.output import Output
from perdure.cli.session import Session, with_session
from perdure.errors import UsageError
from perdure.retention import Policy, parse_count, parse_dimensions, parse_duration

if TYPE_CHECKING:
    from perdure.forget import ForgetReport
    from perdure.prune import PruneReport, PruneRequest
    from perdure.retention import Candidate, GroupVerdict, Verdict
    from perdure.selection import Selection

_HEADS = ("", "id", "time (UTC)", "host", "tags", "source", "reason")
_PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
_NOUNS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}


def _policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that make a policy; the command gets it as ``policy``."""

    def keep(name: str, kind: Callable[[str], Any], metavar: str, help_text: str) -> Any:
        return click.option(f"--keep-{name}", type=kind, metavar=metavar, help=help_text)

    count, within = (parse_count, "N"), (parse_duration, "DURATION")
    options = [keep("last", *count, "Keep the N newest snapshots.")]
    for name in _PERIODS:
        of_each = f"Keep the newest snapshot of each of the last N {_NOUNS[name]}s that have one."
        options.append(keep(name, *count, of_each))
    options.append(
        keep("within", *within, "Keep all made within this time of the newest: 2y5m7d3h.")
    )
    for name in _PERIODS:
        of_each = f"Keep the newest of each {_NOUNS[name]} within this time of the newest."
        options.append(keep(f"within-{name}", *within, of_each))
    options.append(
        click.option(
            "--keep-tag",
            "keep_tags",
            multiple=True,
            metavar="TAG[,TAG]",
            help="Keep all snapshots that have this tag (all of these tags).",
        )
    )
    for option in reversed(options):
        command = option(command)
    return command


def _policy(given: dict[str, Any]) -> Policy:
    """Make a policy of what was given to the options; takes it out of there."""
    rules = {
        name.removeprefix("keep_"): given.pop(name)
        for name in list(given)
        if name.startswith("keep_")
    }
    lists = [split_tags([text]) for text in rules.pop("tags")]
    set_rules = {name: value for name, value in rules.items() if value is not None}
    return Policy(**set_rules, tags=tuple(each for each in lists if each))


def configured_policy(session: Session) -> Policy:
    """Give the policy that perdure.toml, or the environment, says; it may be empty."""
    section = session.config.retention
    rules: dict[str, Any] = {}
    for name in ("last", *_PERIODS):
        rules[name] = getattr(section, f"keep_{name}") or 0
    for name in ("within", *(f"within_{period}" for period in _PERIODS)):
        span = getattr(section, f"keep_{name}")
        if span:
            rules[name] = parse_duration(span)
    return Policy(**rules, tags=tuple(split_tags([each]) for each in section.keep_tags))


def apply_retention(session: Session, source: str) -> None:
    """Forget what the configured policy does not keep, of the snapshots that have a source; then prune.

    Raises UsageError, RepositoryLocked, RepositoryDamaged, StoreError.
    """
    policy = configured_policy(session)
    if policy.empty:
        return
    from perdure.forget import ForgetRequest
    from perdure.forget import forget as drop
    from perdure.prune import prune as clear

    request = ForgetRequest(_selected((), None, (), source), policy)
    with (
        session.writing(exclusive=True) as (repository, lock),
        session.output.observer() as observer,
    ):
        report = drop(repository, lock, request, observer)
        kept = len(report.verdicts) - len(report.dropped)
        session.output.line(
            f"{messages.count(len(report.dropped), 'snapshot')} forgotten, {kept} kept"
        )
        values: dict[str, object] = {"kept": kept, "dropped": list(report.dropped)}
        if session.config.retention.prune:
            pruned = clear(repository, lock, _prune_request("5%", None, dry_run=False), observer)
            _show_pruned(session.output, pruned, dry_run=False)
            values["prune"] = _prune_values(pruned)
    session.output.event("forgotten", values)


def _selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--source", help="Only snapshots that have this source.")(command)
    command = tags("Only snapshots with all these tags.")(command)
    command = click.option("--host", help="Only snapshots of this host.")(command)
    return click.argument("snapshots", metavar="[SNAPSHOT]...", nargs=-1)(command)


def _prune_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--max-repack-size",
        metavar="SIZE",
        help="Write at most so much anew, such as 2G; the rest is for another time.",
    )(command)
    return click.option(
        "--max-unused",
        metavar="LIMIT",
        default="5%",
        show_default=True,
        help="Garbage that may stay among data: 5%, 100M, 0 or unlimited.",
    )(command)


_dry_run = click.option(
    "--dry-run", "-n", is_flag=True, help="Change nothing; say what would be done."
)


@click.command(short_help="Drop snapshots: those named, or those a policy does not keep.")
@_selection_options
@_policy_options
@click.option(
    "--group-by",
    type=parse_dimensions,
    default="source",
    show_default=True,
    metavar="LIST",
    help="Apply the policy to the snapshots with the same: some of source,host,paths,tags.",
)
@click.option("--prune", "and_prune", is_flag=True, help="Then prune, under the same lock.")
@_prune_options
@_dry_run
@repository_options
@with_session
def forget(
    session: Session,
    /,
    snapshots: tuple[str, ...],
    host: str | None,
    tags: tuple[str, ...],
    source: str | None,
    group_by: tuple[str, ...],
    and_prune: bool,
    max_unused: str,
    max_repack_size: str | None,
    dry_run: bool,
    **keep: Any,
) -> None:
    """Drop snapshots from the list: those that are named, or those that a policy does not keep.

    A snapshot is kept if one of the --keep options keeps it; N is a number or "unlimited". Snapshots of
    the same sources are judged together. Incomplete ones do not count, and the newest complete snapshot
    of a source is dropped only by its id. What snapshots hold takes up room until a prune.
    """
    from perdure.forget import ForgetRequest
    from perdure.forget import forget as drop
    from perdure.prune import prune as clear

    selection = _selected(snapshots, host, tags, source)
    policy = _policy(keep)
    if policy.empty and not snapshots:
        policy = configured_policy(session)
    request = ForgetRequest(selection, policy, group_by, dry_run=dry_run)
    wanted = _prune_request(max_unused, max_repack_size, dry_run)
    with session.writing(exclusive=not dry_run, dry_run=dry_run) as (repository, lock):
        with session.output.observer() as observer:
            report = drop(repository, lock, request, observer)
        _show_verdicts(session.output, report, dry_run=dry_run)
        if and_prune:
            with session.output.observer() as observer:
                gone = replace(wanted, forgotten=report.dropped)
                pruned = clear(repository, lock, gone, observer)
            _show_pruned(session.output, pruned, dry_run=dry_run)
    values = {
        "dry_run": dry_run,
        "kept": len(report.verdicts) - len(report.dropped),
        "dropped": list(report.dropped),
    }
    if and_prune:
        values["prune"] = _prune_values(pruned)
    session.output.event("summary", values)


@click.command(short_help="Delete what no snapshot needs.")
@_prune_options
@_dry_run
@repository_options
@with_session
def prune(session: Session, max_unused: str, max_repack_size: str | None, dry_run: bool) -> None:
    """Delete what no snapshot needs.

    Nobody else can work on the repository meanwhile. Packfiles that hold something needed among garbage
    are written anew, unless --max-unused lets the garbage stay. Where something that a snapshot needs is
    missing or damaged, nothing is deleted (exit code 13).
    """
    from perdure.prune import prune as clear

    request = _prune_request(max_unused, max_repack_size, dry_run)
    with (
        session.writing(exclusive=not dry_run, dry_run=dry_run) as (repository, lock),
        session.output.observer() as observer,
    ):
        report = clear(repository, lock, request, observer)
    _show_pruned(session.output, report, dry_run=dry_run)
    session.output.event("summary", {"dry_run": dry_run, **_prune_values(report)})


@click.command(short_help="Change the tags of snapshots.")
@_selection_options
@click.option("--all", "everything", is_flag=True, help="All snapshots.")
@click.option("--add", multiple=True, metavar="TAG[,TAG]", help="Add a tag.")
@click.option("--remove", multiple=True, metavar="TAG[,TAG]", help="Remove a tag.")
@click.option(
    "--set", "exactly", multiple=True, metavar="TAG[,TAG]", help='Replace all tags; "" leaves none.'
)
@_dry_run
@repository_options
@with_session
def tag(
    session: Session,
    snapshots: tuple[str, ...],
    host: str | None,
    tags: tuple[str, ...],
    source: str | None,
    everything: bool,
    add: tuple[str, ...],
    remove: tuple[str, ...],
    exactly: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Change the tags of snapshots: of those named, of those of a host, tag or source, or of all.

    A snapshot gets a new id by it, since the id is that of its content.
    """
    from perdure.tag import TagChange
    from perdure.tag import tag as change_tags

    selection = _selected(snapshots, host, tags, source)
    if everything and snapshots:
        raise UsageError("snapshots are named, and --all is given, too", hint="do only one")
    if not (everything or snapshots or selection.filters):
        raise UsageError(
            "nothing says which snapshots to tag",
            hint="name them, select them with --host, --tag or --source, or give --all",
        )
    change = TagChange(
        split_tags(add), split_tags(remove), split_tags(exactly) if exactly else None
    )
    with session.writing(exclusive=not dry_run, dry_run=dry_run) as (repository, lock):
        tagged = change_tags(repository, lock, selection, change, dry_run=dry_run)
    for each in tagged:
        names = messages.printable(", ".join(each.tags)) or "no tags"
        now_called = f" is now {each.snapshot[:8]}" if each.snapshot else ""
        session.output.line(f"snapshot {each.before[:8]}{now_called}: {names}")
    if not tagged:
        session.output.line("all tags are so already")
    changed = [
        {"before": each.before, "snapshot_id": each.snapshot, "tags": list(each.tags)}
        for each in tagged
    ]
    session.output.event("summary", {"dry_run": dry_run, "tagged": changed})


def _selected(
    snapshots: tuple[str, ...], host: str | None, tags: tuple[str, ...], source: str | None
) -> Selection:
    from perdure.selection import Selection

    return Selection(snapshots, host, tags, source)


def _prune_request(max_unused: str, max_repack_size: str | None, dry_run: bool) -> PruneRequest:
    from perdure.prune import PruneRequest
    from perdure.repository.prune_plan import Allowance, Limits, parse_size

    most = None if max_repack_size is None else parse_size(max_repack_size)
    limits = Limits(Allowance.parse(max_unused), most)
    return PruneRequest(limits, dry_run=dry_run)


def _show_verdicts(output: Output, report: ForgetReport, *, dry_run: bool) -> None:
    if output.json:
        for group in report.groups:
            output.event("group", _group_values(group))
        return
    if output.quiet:
        return
    rows = [_row(verdict, dry_run) for verdict in report.verdicts]
    if rows:
        output.table(_HEADS, rows, ())
    dropped = messages.count(len(report.dropped), "snapshot")
    kept = len(rows) - len(report.dropped)
    output.line(f"{'would drop' if dry_run else 'dropped'} {dropped}, kept {kept}")


def _row(verdict: Verdict, dry_run: bool) -> tuple[str, ...]:
    candidate = verdict.candidate
    return (
        "keep" if verdict.kept else "drop",
        candidate.id[:8],
        messages.time(candidate.time),
        messages.printable(candidate.hostname),
        messages.printable(",".join(candidate.tags)),
        messages.printable(", ".join(candidate.sources or candidate.paths)),
        messages.printable("; ".join(verdict.reasons)),
    )


def _group_values(group: GroupVerdict) -> dict[str, Any]:
    common = group.group
    return {
        "sources": common.sources,
        "host": common.hostname,
        "paths": common.paths,
        "tags": common.tags,
        "keep": [_verdict_values(verdict) for verdict in group.verdicts if verdict.kept],
        "drop": [_verdict_values(verdict) for verdict in group.verdicts if not verdict.kept],
    }


def _verdict_values(verdict: Verdict) -> dict[str, Any]:
    candidate: Candidate = verdict.candidate
    return {
        "id": candidate.id,
        "short_id": candidate.id[:8],
        "time": messages.iso(candidate.time),
        "hostname": candidate.hostname,
        "paths": list(candidate.paths),
        "tags": list(candidate.tags),
        "sources": list(candidate.sources),
        "incomplete": sorted(candidate.incomplete),
        "reasons": list(verdict.reasons),
    }


def _show_pruned(output: Output, report: PruneReport, *, dry_run: bool) -> None:
    if report.idle:
        output.line("everything is needed; nothing to prune")
        return
    for share in report.shares:
        line = (
            f"{share.action.value} {messages.count(share.packfiles, 'packfile')}"
            f" ({messages.size(share.bytes)}): {share.reason}"
        )
        output.line(line)
    if report.leftovers:
        output.line(
            f"delete {messages.count(report.leftovers, 'temporary file')} of killed processes"
        )
    would = "would be " if dry_run else ""
    output.line(
        f"{messages.size(report.bytes_freed)} {would}freed, {messages.size(report.bytes_rewritten)}"
        f" {would}written anew; {messages.size(report.bytes_needed)} are needed,"
        f" {messages.size(report.bytes_unused)} are garbage that stays"
    )


def _prune_values(report: PruneReport) -> dict[str, Any]:
    return {
        "packfiles": [
            {
                "action": share.action.value,
                "reason": share.reason,
                "count": share.packfiles,
                "bytes": share.bytes,
            }
            for share in report.shares
        ],
        "bytes_needed": report.bytes_needed,
        "bytes_rewritten": report.bytes_rewritten,
        "bytes_freed": report.bytes_freed,
        "bytes_unused": report.bytes_unused,
        "index_files_written": report.index_files_written,
        "index_files_deleted": report.index_files_deleted,
        "leftovers": report.leftovers,
    }
