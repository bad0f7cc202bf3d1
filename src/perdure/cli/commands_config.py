"""Commands about the configuration: config, schedule."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.options import Settings, configuration_options
from perdure.cli.password import exposure
from perdure.cli.session import Session, with_session
from perdure.config.values import Duration, Location, TimeOfDay
from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure.config.declaration import Config
    from perdure.config.effective import Configuration
    from perdure.schedule import Job, Times

_PATIENCE = "10m"


@click.group()
def config() -> None:
    """Look at perdure.toml and the environment's variables; write an example."""


@config.command("check")
@configuration_options
@with_session
def config_check(session: Session) -> None:
    """Say all that is wrong with the configuration; exit code 2 if anything is."""
    configuration = session.settings.configuration
    problems = [*map(str, configuration.problems), *_exposed(configuration)]
    warnings = [*configuration.warnings, *_missing(configuration)]
    for warning in warnings:
        session.output.warning(messages.printable(warning))
    values = {"file": _file(configuration), "problems": problems, "warnings": warnings}
    session.output.event("summary", values)
    if not problems:
        where = _file(configuration) or "no file; the environment"
        session.output.line(f"{where}: nothing is wrong")
        return
    if not session.output.json:
        for problem in problems:
            click.echo(messages.printable(problem), err=True)
    count = messages.count(len(problems), "mistake")
    raise UsageError(f"there is {count}" if len(problems) == 1 else f"there are {count}")


@config.command("show")
@configuration_options
@with_session
def config_show(session: Session) -> None:
    """Show the settings that hold, and where each comes from. Secrets are not shown."""
    assert session.config
    rows = list(_rows(session))
    session.output.table(
        ("key", "value", "from"),
        [(path, _spoken(value), messages.printable(origin)) for path, value, origin in rows],
        [{"key": path, "value": value, "from": origin} for path, value, origin in rows],
    )


@config.command("example")
def config_example() -> None:
    """Print a perdure.toml with all keys, explained."""
    from perdure.config.example import example

    sys.stdout.write(example())


@click.group()
def schedule() -> None:
    """Print what makes systemd or cron run backups; nothing is installed."""


_times = (
    click.option("--at", type=TimeOfDay.parse, metavar="HH:MM", help="Every day at this time."),
    click.option("--every", type=Duration.parse, metavar="DURATION", help="Every 15m, 1h, 6h."),
    click.option("--user", help="User that runs the backups."),
)


@schedule.command("systemd")
@_times[0]
@_times[1]
@_times[2]
@click.option("--only", type=click.Choice(["service", "timer"]), help="Print only one of the two.")
@configuration_options
@with_session
def schedule_systemd(
    session: Session,
    at: TimeOfDay | None,
    every: Duration | None,
    user: str | None,
    only: str | None,
) -> None:
    """Print a service and a timer, to be put into /etc/systemd/system.

    Then: systemctl daemon-reload; systemctl enable --now perdure.timer
    """
    from perdure.schedule import systemd_units

    units = systemd_units(_job(session, at, every, user))
    if only:
        units = {name: text for name, text in units.items() if name.endswith(only)}
    session.output.event("units", units)
    if session.output.json:
        return
    for number, (name, text) in enumerate(units.items()):
        heading = "" if only else f"# /etc/systemd/system/{name}\n"
        click.echo(f"{chr(10) if number else ''}{heading}{text}", nl=False)


@schedule.command("cron")
@_times[0]
@_times[1]
@_times[2]
@configuration_options
@with_session
def schedule_cron(
    session: Session, at: TimeOfDay | None, every: Duration | None, user: str | None
) -> None:
    """Print a line for a crontab; with --user, for a file in /etc/cron.d."""
    from perdure.schedule import crontab_line

    job = _job(session, at, every, user)
    line = crontab_line(job, with_user=job.user is not None)
    session.output.event("crontab", {"line": line.rstrip()})
    if not session.output.json:
        click.echo(line, nl=False)


def _job(session: Session, at: TimeOfDay | None, every: Duration | None, user: str | None) -> Job:
    from perdure.schedule import Job

    configured = session.config
    configuration = session.settings.configuration
    if configuration.file is None:
        raise UsageError(
            "there is no perdure.toml that a backup could be run with",
            hint="perdure config example > perdure.toml makes one; name it with --config",
        )
    command = [*program_words(), "backup", "--quiet", "--config", str(configuration.file)]
    if not configured.repository.retry_lock:
        command += ["--retry-lock", _PATIENCE]
    writes, reads = _places(configured)
    return Job(
        command=tuple(command),
        times=_when(configured, at, every),
        user=user or configured.schedule.user,
        writes=tuple(dict.fromkeys(writes)),
        reads=tuple(dict.fromkeys([*reads, str(configuration.file)])),
        own_cache=configured.repository.cache_dir is None,
        starts_others=bool(configured.monitoring.mail.to) or _has_hooks(configured),
    )


def _when(configured: Config, at: TimeOfDay | None, every: Duration | None) -> Times:
    from perdure.schedule import Times

    if at is not None and every is not None:
        raise UsageError("--at and --every exclude each other")
    if at is not None or every is not None:
        return Times(at, every)
    return Times(configured.schedule.at, configured.schedule.every)


def _places(configured: Config) -> tuple[list[str], list[str]]:
    """Give the folders that a backup writes to, and the paths that it reads."""
    repository, textfile = configured.repository, configured.monitoring.prometheus_textfile
    folder = Location(repository.location).folder if repository.location else None
    writes = [Path(folder)] if folder else []
    writes += [repository.cache_dir] if repository.cache_dir else []
    writes += [textfile.parent] if textfile else []
    reads = [repository.password_file]
    for source in configured.source:
        reads += [source.filestorage, source.blobs, source.zope_conf, source.zeo_conf]
        reads += [source.buildout, source.site, source.zconfig_file]
    return [os.path.abspath(path) for path in writes], [
        os.path.abspath(path) for path in reads if path
    ]


def _has_hooks(configured: Config) -> bool:
    hooks = configured.hooks
    return any((hooks.before, hooks.after, hooks.failed, hooks.finally_))


def program_words() -> list[str]:
    """Give the words that start this program, whoever starts it from wherever."""
    started = Path(sys.argv[0])
    if started.name == "perdure" and os.access(started, os.X_OK):
        return [str(started.absolute())]
    beside = Path(sys.executable).with_name("perdure")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "perdure"]


def _file(configuration: Configuration) -> str | None:
    return str(configuration.file) if configuration.file else None


def _exposed(configuration: Configuration) -> Iterator[str]:
    """Say which secrets others may read."""
    path = configuration.config.repository.password_file
    if path and path.exists():
        try:
            with open(path, "rb") as file:
                problem = exposure(path, file.fileno())
        except OSError as error:
            problem = f"password file {path} cannot be read: {error.strerror}"
        if problem:
            yield f"{configuration.given['repository.password-file'].where}: {problem}"


def _missing(configuration: Configuration) -> Iterator[str]:
    """Say what a backup will miss: it may be on a disk that is not mounted now."""
    configured = configuration.config
    if not configured.repository.location:
        yield "no repository is named: [repository] location, PERDURE_REPOSITORY or -r"
    if not configured.source:
        yield "no source is named: [[source]], PERDURE_FILESTORAGE or --filestorage"
    for path in _places(configured)[1]:
        if not Path(path).exists():
            yield f"{path} is not there"


def _rows(session: Session) -> Iterator[tuple[str, Any, str]]:
    """Give path, value and origin of each setting: options over all, and restic's variables, too."""
    from perdure.config.effective import shown

    over = _over(session.settings)
    for setting in session.settings.configuration.settings():
        path, value, origin = setting.path, setting.value, setting.origin
        if path in over:
            value, origin = shown(over[path][0], hidden=path.endswith("command")), over[path][1]
        yield path, value, origin
    if session.settings.environment.get("PERDURE_PASSWORD"):
        yield "repository.password", "(not shown)", "PERDURE_PASSWORD"


def _over(settings: Settings) -> dict[str, tuple[Any, str]]:
    """Give what options and restic's variables say, by the paths of the keys."""
    options = {
        "repository.location": ("REPOSITORY", settings.repository),
        "repository.password-file": ("PASSWORD_FILE", settings.password_file),
        "repository.password-command": ("PASSWORD_COMMAND", settings.password_command),
        "repository.cache-dir": ("CACHE_DIR", settings.cache_dir),
        "repository.retry-lock": (None, settings.retry_lock),
        "repository.limit-upload": (None, settings.limit_upload),
    }
    over: dict[str, tuple[Any, str]] = {}
    for path, (variable, option) in options.items():
        if option is not None:
            over[path] = option, "command line"
        elif variable and not settings.environment.get(f"PERDURE_{variable}"):
            text = settings.environment.get(f"RESTIC_{variable}")
            if text:
                over[path] = text, f"RESTIC_{variable}"
    if "repository.location" in over:
        location, origin = over["repository.location"]
        over["repository.location"] = Location(location), origin
    return over


def _spoken(value: Any) -> str:
    """Give a value for a table: as TOML has it, without the quotes around a text."""
    from perdure.config.reading import as_toml

    if value is None:
        return "-"
    return messages.printable(value if isinstance(value, str) else as_toml(value))
