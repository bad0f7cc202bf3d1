"""Where passwords come from, and that they go nowhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import Program

from perdure.cli import password
from perdure.cli.options import Settings
from perdure.cli.password import given_password, make_password_file, read_password_file
from perdure.errors import PerdureError, UsageError

pytestmark = pytest.mark.usefixtures("bare_environment")


def given(settings: Settings) -> str | None:
    return given_password(settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return secret_file(tmp_path / "password", b"from file\n")


def secret_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_order_of_places(file: Path, tmp_path: Path) -> None:
    other = secret_file(tmp_path / "other", b"from other file")
    environment = {"RESTIC_PASSWORD": "restic"}
    assert given(Settings({})) is None
    assert given(Settings(environment)) == "restic"
    environment["RESTIC_PASSWORD_COMMAND"] = "echo restic command"
    assert given(Settings(environment)) == "restic command"
    environment["PERDURE_PASSWORD"] = " ours "
    assert given(Settings(environment)) == " ours "
    environment["PERDURE_PASSWORD_FILE"] = str(other)
    assert given(Settings(environment)) == "from other file"
    assert given(Settings(environment, password_command="echo ' a' 'b '")) == "a b"
    assert given(Settings(environment, password_file=file)) == "from file"


def test_two_places_at_once_are_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="exclude"):
        given(Settings({}, password_file=file, password_command="echo x"))
    both = {"PERDURE_PASSWORD_FILE": str(file), "PERDURE_PASSWORD_COMMAND": "echo x"}
    with pytest.raises(UsageError, match="exclude"):
        given(Settings(both))


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b" white space\t\r\n\n", "white space"),
        (b"\xef\xbb\xbfmarked", "marked"),
        ("\ufeffümlaut\n".encode("utf-16-le"), "ümlaut"),
        (b"caf\xe9", "caf\udce9"),
        (b"two\nlines", "two\nlines"),
    ],
)
def test_what_a_file_says(tmp_path: Path, content: bytes, password: str) -> None:
    path = secret_file(tmp_path / "f", content)
    assert read_password_file(path) == password


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfea"])
def test_a_file_without_a_password(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError):
        read_password_file(secret_file(tmp_path / "f", content))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_password_file(tmp_path / "none")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_file_for_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path / "f", b"geheim", mode)
    with pytest.raises(UsageError, match=f"mode {mode:03o}") as caught:
        read_password_file(path)
    assert "geheim" not in str(caught.value)
    assert caught.value.hint is not None
    assert f"chmod 600 {path}" in caught.value.hint
    path.chmod(0o400)
    assert read_password_file(path) == "geheim"


def test_the_secrets_of_a_container_have_modes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secrets").mkdir()
    path = secret_file(tmp_path / "secrets" / "key", b"geheim", 0o444)
    with pytest.raises(UsageError):
        read_password_file(path)
    monkeypatch.setattr(password, "SECRETS", (tmp_path / "secrets",))
    assert read_password_file(path) == "geheim"
    outside = secret_file(tmp_path / "key", b"geheim", 0o444)
    with pytest.raises(UsageError):
        read_password_file(outside)
    (tmp_path / "secrets" / "link").symlink_to(outside)
    with pytest.raises(UsageError):
        read_password_file(tmp_path / "secrets" / "link")


def test_a_pipe_has_no_mode_that_means_anything() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"geheim\n")
    os.close(writing)
    try:
        assert read_password_file(Path(f"/dev/fd/{reading}")) == "geheim"
    finally:
        os.close(reading)


def test_a_file_that_is_too_large_for_a_password(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too large"):
        read_password_file(secret_file(tmp_path / "f", b"x" * (1 << 17)))


@pytest.mark.parametrize("command", ["", "'", "false", "no-such-program-here", "true"])
def test_commands_that_give_no_password(command: str) -> None:
    if not command:
        assert given(Settings({}, password_command=command)) is None
        return
    with pytest.raises(PerdureError) as caught:
        given(Settings({}, password_command=command))
    assert caught.value.exit_code in (1, 2)


def test_a_command_goes_through_no_shell_and_is_not_repeated() -> None:
    assert given(Settings({}, password_command="echo $HOME; x")) == "$HOME; x"
    with pytest.raises(PerdureError) as caught:
        given(Settings({}, password_command="sh -c 'exit 3' token-in-arguments"))
    assert "token" not in str(caught.value)


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = make_password_file(path)
    assert len(made) == 44
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_password_file(path) == made
    with pytest.raises(UsageError, match="not overwritten"):
        make_password_file(path)
    assert read_password_file(path) == made


def test_init_with_a_key_file(program: Program, tmp_path: Path) -> None:
    done = program("init", "-r", "repo", "--new-password-file", "key")
    assert "key add" in done.out
    assert Path("key").read_text().strip() not in done.out + done.err
    program("snapshots", "-r", "repo", "--password-file", "key")


def test_a_failed_init_leaves_no_key_file(program: Program, tmp_path: Path) -> None:
    program("init", "-r", "repo", "--new-password-file", "key")
    again = program("init", "-r", "repo", "--new-password-file", "key2", code=1)
    assert "already" in again.err
    assert not Path("key2").exists()
    Path("file").write_text("")
    program("init", "-r", "file/below", "--new-password-file", "key2", code=1)
    assert not Path("key2").exists()
    refused = program("init", "-r", "repo2", "--new-password-file", "key", code=2)
    assert "not overwritten" in refused.err
    assert not Path("repo2").exists()


def test_init_with_two_passwords(program: Program) -> None:
    arguments = ("init", "-r", "repo", "--new-password-file", "k", "--password-command", "echo x")
    program(*arguments, code=2)
    assert not Path("repo").exists()


def test_init_in_json(program: Program) -> None:
    done = program("init", "-r", "repo", "--new-password-file", "key", "--json")
    assert done.summary["message_type"] == "initialized"
    assert len(done.summary["id"]) == 64


def test_no_password_and_no_terminal(program: Program, repository: Path) -> None:
    del os.environ["PERDURE_PASSWORD_FILE"]
    done = program("snapshots", code=2)
    assert "PERDURE_PASSWORD_COMMAND" in done.err


def test_a_wrong_password(program: Program, repository: Path) -> None:
    done = program("snapshots", "--password-command", "echo wr0ng", code=12)
    assert "wr0ng" not in done.err


def test_the_life_of_keys(program: Program, repository: Path) -> None:
    Path("typed").write_text("typed by a person")
    Path("typed").chmod(0o600)
    program("key", "add", "--new-password-from", "typed")
    program("key", "add", "--new-password-file", "third")
    listed = json.loads(program("key", "list", "--json").out)
    assert len(listed) == 3
    assert [key["current"] for key in listed].count(True) == 1
    assert program("key", "list").out.count("*") == 1
    in_use = next(key["id"] for key in listed if key["current"])
    program("key", "remove", in_use, code=2)
    program("key", "remove", "", code=2)
    program("key", "remove", in_use, "--password-file", "typed")
    program("snapshots", code=12)
    program("snapshots", "--password-file", "third")
    program("key", "passwd", "--password-file", "third", "--new-password-file", "fourth")
    program("snapshots", "--password-file", "third", code=12)
    program("snapshots", "--password-file", "fourth")
    program("key", "passwd", "--password-file", "fourth", code=2)


def test_restics_variables_are_understood(
    program: Program, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("REPOSITORY", "PASSWORD_FILE"):
        monkeypatch.setenv(f"RESTIC_{name}", os.environ[f"PERDURE_{name}"])
        monkeypatch.delenv(f"PERDURE_{name}")
    program("snapshots")
    monkeypatch.delenv("PERDURE_CACHE_DIR")
    monkeypatch.setenv("RESTIC_CACHE_DIR", str(tmp_path / "restic"))
    assert Settings(os.environ).cache == tmp_path / "restic" / "perdure"
    assert Settings(os.environ, no_cache=True).cache is None
    assert Settings(os.environ, cache_dir=tmp_path).cache == tmp_path
    monkeypatch.delenv("RESTIC_CACHE_DIR")
    cache = Settings(os.environ).cache
    assert cache is not None
    assert cache.name == "perdure"


def test_a_wrong_password_of_the_other_repository(
    program: Program, repository: Path, tmp_path: Path
) -> None:
    wrong = secret_file(tmp_path / "wrong", b"wrong")
    told = program(
        "copy", "--from", str(repository), "--from-password-file", str(wrong), "--json", code=12
    )
    assert "--from-password-file" in told.err
