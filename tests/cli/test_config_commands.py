"""config and schedule, and where the other commands take their settings from."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from command_line import Program

from perdure.cli import configuration
from perdure.cli.configuration import load
from perdure.cli.options import Settings
from perdure.cli.session import Session
from perdure.config.declaration import keys
from perdure.config.values import Rate
from perdure.errors import UsageError
from perdure.stores.local import LocalStore
from perdure.stores.wrappers import LimitedStore

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration where it is looked for."""
    monkeypatch.delenv("PERDURE_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "perdure.toml"
    path.write_text(
        "[repository]\nlocation = 'repo'\npassword-file = 'key'\ncache-dir = '~/cache'\n"
        "[[source]]\nfilestorage = 'site/Data.fs'\n[retention]\nkeep-daily = 7\n"
    )
    return path


def shown(program: Program, *arguments: str) -> dict[str, tuple[object, str]]:
    found = json.loads(program(*arguments, "config", "show", "--json").out)
    return {each["key"]: (each["value"], each["from"]) for each in found}


# Where it is looked for.


def test_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for_all = tmp_path / "etc" / "perdure.toml"
    monkeypatch.setattr(configuration, "FOR_ALL", for_all)
    assert load(None, {}).file is None
    own = tmp_path / "config" / "perdure" / "perdure.toml"
    here = tmp_path / "perdure.toml"
    named, variable = tmp_path / "named", tmp_path / "variable"
    for path in (for_all, own, here):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        assert load(None, {}).file == path
    variable.write_text("")
    named.write_text("")
    assert load(None, {"PERDURE_CONFIG": str(variable)}).file == variable
    assert load(named, {"PERDURE_CONFIG": str(variable)}).file == named
    assert load(Path(os.devnull), {}).config == load(None, {"PERDURE_CONFIG": os.devnull}).config


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none", {})
    with pytest.raises(UsageError, match="Is a directory"):
        load(tmp_path, {})
    path = tmp_path / "perdure.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(path, {})
    path.write_bytes(b"\xef\xbb\xbf# marked\n")
    assert not load(path, {}).problems
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(UsageError, match="more than"):
        load(path, {})


def test_a_file_of_somebody_else_is_not_found_but_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    if file.stat().st_uid == 0:  # what root has is everybody's to use
        os.chown(file, 65534, -1)
    with pytest.raises(UsageError, match="belongs to somebody else") as caught:
        load(None, os.environ)
    assert caught.value.hint is not None
    assert "--config perdure.toml" in caught.value.hint
    assert load(Path("perdure.toml"), os.environ).file == file


def test_a_file_that_everybody_can_write_to(file: Path) -> None:
    file.chmod(0o666)
    for named in (file, None):
        with pytest.raises(UsageError, match="everybody on this machine can write"):
            load(named, os.environ)


# What the other commands take from it.


def test_a_repository_that_the_file_names(program: Program, file: Path, tmp_path: Path) -> None:
    program("init", "--new-password-file", "key")
    assert (tmp_path / "repo" / "config").exists()
    program("snapshots")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)
    program("snapshots", code=2)
    program("snapshots", "--config", "../perdure.toml")
    program("--config", "../perdure.toml", "snapshots")
    assert (tmp_path / "cache").is_dir()
    program("snapshots", "--config", "../perdure.toml", "-r", "none", code=10)


def test_the_command_line_and_the_environment_come_first(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("repository = {retry-lock = '1m', limit-upload = '5M', location = 'a'}")

    def settings(**given: object) -> Settings:
        read = load(None, os.environ)
        return Settings(os.environ, read_configuration=lambda: read, **given)  # type: ignore[arg-type]

    from_file = settings()
    assert from_file.location == str(tmp_path / "a")
    assert from_file.lock_wait.total_seconds() == 60
    assert from_file.upload_limit == 5 << 20
    monkeypatch.setenv("RESTIC_REPOSITORY", "b")
    assert settings().location == "b"
    monkeypatch.setenv("PERDURE_REPOSITORY", "c")
    monkeypatch.setenv("PERDURE_RETRY_LOCK", "2m")
    monkeypatch.setenv("PERDURE_LIMIT_UPLOAD", "6M")
    assert settings().location == "c"
    assert settings().lock_wait.total_seconds() == 120
    assert settings().upload_limit == 6 << 20
    given = settings(repository="d", limit_upload=Rate.parse("7M"))
    assert (given.location, given.upload_limit) == ("d", 7 << 20)


def test_a_limit_is_around_the_store(tmp_path: Path) -> None:
    environment = {"PERDURE_REPOSITORY": str(tmp_path)}
    assert isinstance(Session(Settings(environment)).store(), LocalStore)
    environment["PERDURE_LIMIT_UPLOAD"] = "5M"
    assert isinstance(Session(Settings(environment)).store(), LimitedStore)


def test_a_limited_backup(program: Program, repository: Path, data_fs: Path) -> None:
    program("backup", "--filestorage", str(data_fs), "--limit-upload", "1G")
    program("backup", "--filestorage", str(data_fs), "--limit-upload", "1", code=2)


def test_the_password_that_the_file_leads_to(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("init", "--new-password-file", "key")
    file.write_text("repository = {location = 'repo', password-command = 'cat key'}")
    program("snapshots")
    monkeypatch.setenv("PERDURE_PASSWORD", "wrong")
    program("snapshots", code=12)


def test_a_wrong_configuration_stops_every_command(program: Program, file: Path) -> None:
    file.write_text("[retention]\nkep-daily = 7\n")
    done = program("snapshots", "-r", "x", code=2)
    assert "perdure.toml, line 2: [retention] has no key 'kep-daily'" in done.err
    assert "perdure config check" in done.err
    program("version")
    program("snapshots", "-r", "x", "--config", os.devnull, code=10)


def test_a_variable_that_means_nothing_is_warned_of(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_REPOSITRY", "x")
    done = program("snapshots", "-r", "x", code=10)
    assert done.err.count("did you mean PERDURE_REPOSITORY?") == 1


# config check, show, example


def test_config_check(program: Program, file: Path, tmp_path: Path) -> None:
    done = program("config", "check")
    assert done.out == f"{file}: nothing is wrong\n"
    assert f"warning: {tmp_path}/key is not there" in done.err
    file.write_text("[retention]\nkep-daily = 7\nprune = 1\n")
    done = program("config", "check", code=2)
    assert f"{file}, line 2: [retention] has no key 'kep-daily'; did you mean" in done.err
    assert f"{file}, line 3: [retention] prune: expected true or false" in done.err
    assert "there are 2 mistakes" in done.err
    summary = program("config", "check", "--json", code=2).summary
    assert (len(summary["problems"]), summary["file"]) == (2, str(file))


def test_config_check_finds_an_exposed_secret(program: Program, file: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("geheim")
    key.chmod(0o644)
    done = program("config", "check", code=2)
    assert f"{file}, line 3: everybody on this machine may read" in done.err
    assert "geheim" not in done.err
    key.chmod(0o600)
    program("config", "check")


def test_config_check_without_a_file(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    done = program("config", "check")
    assert done.out == "no file; the environment: nothing is wrong\n"
    assert "no repository is named" in done.err
    monkeypatch.setenv("PERDURE_KEEP_DAILY", "x")
    assert "PERDURE_KEEP_DAILY: " in program("config", "check", code=2).err


def test_config_show(program: Program, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_TAGS", "a,b")
    monkeypatch.setenv("PERDURE_PASSWORD", "geheim")
    found = shown(program)
    assert found["retention.keep-daily"] == (7, f"{file}, line 8")
    assert found["backup.tags"] == (["a", "b"], "PERDURE_TAGS")
    assert found["retention.prune"] == (False, "default")
    assert found["repository.password"] == ("(not shown)", "PERDURE_PASSWORD")
    without_sources = {path for path in keys() if not path.startswith("source.")}
    assert without_sources < set(found)
    table = program("config", "show").out
    assert "geheim" not in table
    assert re.search(r'backup\.tags +\["a", "b"\] +PERDURE_TAGS\n', table)


def test_config_show_has_what_is_over_the_file(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTIC_REPOSITORY", "s3://geheim:geheim@host/x")
    assert shown(program)["repository.location"] == ("s3://host/x", "RESTIC_REPOSITORY")
    options = ("-r", "r", "--retry-lock", "90s", "--password-command", "pass geheim")
    over = shown(program, *options)
    assert over["repository.location"] == ("r", "command line")
    assert over["repository.retry-lock"] == ("1m30s", "command line")
    assert over["repository.password-command"] == ("pass ...", "command line")


def test_the_example_passes_the_check(program: Program, tmp_path: Path) -> None:
    (tmp_path / "perdure.toml").write_text(program("config", "example").out)
    assert "nothing is wrong" in program("config", "check").out


# schedule


def test_schedule_systemd(program: Program, file: Path, tmp_path: Path) -> None:
    done = program("schedule", "systemd", "--user", "plone", "--every", "15m")
    assert done.out.startswith("# /etc/systemd/system/perdure.service\n[Unit]\n")
    assert "\n# /etc/systemd/system/perdure.timer\n[Unit]\n" in done.out
    assert f" backup --quiet --config {file} --retry-lock 10m\n" in done.out
    assert f"ReadWritePaths=-{tmp_path}/repo\nReadWritePaths=-{tmp_path}/cache\n" in done.out
    assert "OnCalendar=*-*-* *:0/15:00\n" in done.out
    only = program("schedule", "systemd", "--only", "timer").out
    assert only.startswith("[Unit]\n")
    assert "ExecStart" not in only
    units = program("schedule", "systemd", "--json").summary
    assert {"perdure.service", "perdure.timer"} < set(units)


def test_schedule_cron(program: Program, file: Path) -> None:
    line = program("schedule", "cron", "--at", "4:05").out
    words = shlex.split(line)
    assert words[:5] == ["05", "04", "*", "*", "*"]
    assert Path(words[5]).is_absolute()
    assert words[-6:] == ["backup", "--quiet", "--config", str(file), "--retry-lock", "10m"]
    named = program("schedule", "cron", "--user", "plone", "--json").summary
    assert named["line"].startswith("15 03 * * * plone /")


def test_a_schedule_that_the_file_has(program: Program, file: Path) -> None:
    with file.open("a") as more:
        more.write("[schedule]\nevery = '6h'\nuser = 'zope'\n[repository.x]\n")
    program("schedule", "cron", code=2)
    file.write_text("[schedule]\nevery = '6h'\nuser = 'zope'\n[repository]\nretry-lock = '1h'\n")
    line = program("schedule", "cron").out
    assert line.startswith("00 */6 * * * zope ")
    assert "--retry-lock" not in line
    assert program("schedule", "cron", "--at", "1:00").out.startswith("00 01 * * * zope ")


def test_schedules_that_cannot_be(program: Program, file: Path) -> None:
    assert "exclude" in program("schedule", "cron", "--at", "1:00", "--every", "1h", code=2).err
    assert "12h or 24h" in program("schedule", "cron", "--every", "7m", code=2).err
    program("schedule", "cron", "--every", "0s", code=2)
    program("schedule", "systemd", "--user", "a b", code=2)
    file.unlink()
    assert "perdure config example" in program("schedule", "systemd", code=2).err
