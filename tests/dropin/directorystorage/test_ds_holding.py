"""Holding a storage still: every state is recognised, what we entered is left, and nothing else."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from directorystorage_homes import READABLE, seen, states_of, unpack

from perdure.dropin.directorystorage import holding
from perdure.dropin.directorystorage.asking import DirectMethod, HttpMethod, Refused, ZeoMethod
from perdure.dropin.directorystorage.holding import Patience, held_outside, hold, leave_foreign
from perdure.dropin.directorystorage.locks import LockTaken, locked
from perdure.dropin.directorystorage.rolling_forward import roll_forward
from perdure.dropin.directorystorage.states import Sight, State, look
from perdure.errors import PerdureError, SourceDamaged, SourceUnusable, UsageError
from perdure.formats import old_zeo
from perdure.formats.directorystorage_names import Kind
from perdure.model import SilentObserver
from perdure.sources.directorystorage.home import LOCK, SUBLOCK, Home, Journal, View

OBSERVER = SilentObserver()
NOW = 1795277000
AT_ONCE = Patience()
STATES = {
    "bushy-clean": State.CLEAN,
    "bushy-killed-temp": State.CRASHED,
    "bushy-minimal": State.CLEAN,
    "bushy-quick-shutdown": State.CRASHED,
    "chunky-empty": State.UNUSED,
    "chunky-killed-pack": State.CRASHED,
    "chunky-killed-recombine": State.CRASHED,
    "chunky-replica-pending": State.CRASHED,
    "chunky-snapshot-live": State.CRASHED,
}
EMPTY, BUSY = Journal(), Journal(committed=(5,))
TABLE = [
    # code, sublock, lock, journal, B
    ("shutdown", False, False, EMPTY, False, State.CLEAN),
    ("shutdown", False, False, BUSY, False, State.STALE),
    ("shutdown", False, False, EMPTY, True, State.STALE),
    ("shutdown", False, True, EMPTY, False, State.STALE),
    ("shutdown", True, False, EMPTY, False, State.COPIED),
    ("user/x", True, True, BUSY, True, State.COPIED),
    ("user/x", False, True, EMPTY, False, State.FOREIGN),
    ("user/x", False, False, BUSY, True, State.CRASHED),
    ("packing", True, True, EMPTY, False, State.PACKING),
    ("packing", False, True, EMPTY, False, State.PACKING),
    ("packing", False, False, EMPTY, False, State.CRASHED),
    (None, True, True, BUSY, False, State.RUNNING),
    (None, False, True, BUSY, False, State.RUNNING),
    (None, False, False, BUSY, False, State.CRASHED),
    (None, False, False, Journal(replica=True), False, State.CRASHED),
    (None, False, False, Journal(begun=("working_1_temp",)), False, State.CRASHED),
    (None, False, False, EMPTY, True, State.CRASHED),
    (None, False, False, EMPTY, False, State.UNUSED),
]


@pytest.mark.parametrize(("code", "sublock", "lock", "journal", "b", "state"), TABLE)
def test_states(
    code: str | None, sublock: bool, lock: bool, journal: Journal, b: bool, state: State
) -> None:
    sight = Sight(code, None, sublock, lock, journal, b)
    assert sight.state is state
    assert str(code or "no misc/snapshot") in sight.describe()
    assert (sight.advice is None) == (state in (State.CLEAN, State.UNUSED))


@pytest.mark.parametrize("name", STATES)
def test_states_of_real_homes(name: str, tmp_path: Path) -> None:
    home = unpack(name, tmp_path)
    before = states_of(home)
    assert look(Home(home)).state is STATES[name]
    assert states_of(home) == before


class Asked:
    """A method that is a storage at once: it writes misc/snapshot as one does."""

    title = "asked"

    def __init__(self, home: Path, *, refuses: int = 0, loses_answer: bool = False) -> None:
        self.home, self.calls = home, list[str]()
        self._refuses, self._loses = refuses, loses_answer
        self.leaving_fails = 0

    def enter(self, code: str) -> None:
        self.calls.append("enter")
        if self._refuses:
            self._refuses -= 1
            raise Refused("not now")
        (self.home / "misc" / "snapshot").write_text(f"user/{code}")
        if self._loses:
            raise Refused("the connection is gone")

    def leave(self, code: str) -> None:
        self.calls.append("leave")
        if self.leaving_fails or Home(self.home).is_locked(SUBLOCK):
            self.leaving_fails -= 1
            raise Refused("locked")
        (self.home / "misc" / "snapshot").unlink()

    def expected(self, code: str) -> str:
        return f"user/{code}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = unpack("chunky-clean", tmp_path)
    (home / "misc" / "snapshot").unlink()
    return Home(home)


@contextmanager
def sublock(home: Home) -> Iterator[None]:
    with locked(home.path, SUBLOCK):
        yield


def held(home: Home, *methods: Asked | DirectMethod, patience: Patience = AT_ONCE) -> None:
    with hold(home, methods, "me-1", lambda: NOW, patience, OBSERVER) as still:
        assert still.timestamp == NOW
        assert home.is_locked(SUBLOCK)


def test_in_and_out(home: Home) -> None:
    method = Asked(home.path)
    held(home, method)
    assert method.calls == ["enter", "leave"]
    assert home.snapshot_code() is None


def test_left_also_when_the_work_fails(home: Home) -> None:
    method = Asked(home.path)
    with (
        pytest.raises(ZeroDivisionError),
        hold(home, [method], "me-1", lambda: NOW, AT_ONCE, OBSERVER),
    ):
        raise ZeroDivisionError
    assert home.snapshot_code() is None


def test_left_when_the_answer_was_lost(home: Home) -> None:
    method = Asked(home.path, loses_answer=True)
    held(home, method)
    assert method.calls == ["enter", "leave"]


def test_left_when_the_sublock_is_somebody_else_s(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it is, the storage cannot be brought out of the mode: that is said."""
    monkeypatch.setattr(holding, "_LEAVE_SECONDS", 0)
    monkeypatch.setattr(holding, "_LEAVE_INTERVAL", 0)
    method = Asked(home.path)
    with sublock(home), pytest.raises(PerdureError, match="stays in snapshot mode"):
        held(home, method)
    assert method.calls[0] == "enter"
    assert "leave" in method.calls


def test_leaving_is_tried_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_LEAVE_INTERVAL", 0)
    method = Asked(home.path)
    method.leaving_fails = 3
    held(home, method)
    assert method.calls == ["enter", "leave", "leave", "leave", "leave"]


def test_entering_is_tried_again_until_the_time_is_over(home: Home) -> None:
    method = Asked(home.path, refuses=2)
    held(home, method, patience=Patience(60, 0))
    assert method.calls == ["enter", "enter", "enter", "leave"]
    with pytest.raises(SourceUnusable, match="not now"):
        held(home, Asked(home.path, refuses=1))


def test_the_sublock_is_waited_for(home: Home) -> None:
    """Until the other one lets go of it."""
    method = Asked(home.path)
    release = threading.Event()
    taken = threading.Event()

    def other() -> None:
        with sublock(home):
            taken.set()
            release.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert taken.wait(60)

    class Watching(SilentObserver):
        def warning(self, message: str) -> None:
            super().warning(message)
            release.set()

    observer = Watching()
    with hold(home, [method], "me-1", lambda: NOW, Patience(60, 0.01), observer):
        pass
    thread.join()
    assert "trying again" in observer.warnings[0]


@pytest.mark.parametrize("code", ["user/other-7", "packing", "shutdown"])
def test_another_mode_than_ours_is_not_ours(home: Home, code: str) -> None:
    """It must not be left either: a wrong code makes the storage keep its sublock for ever."""

    class Elsewhere(Asked):
        def enter(self, code: str) -> None:
            self.calls.append("enter")

    (home.path / "misc" / "snapshot").write_text(code)
    method = Elsewhere(home.path)
    with pytest.raises(SourceUnusable, match="is not in the snapshot mode that was entered"):
        held(home, method)
    assert method.calls == ["enter"]
    assert home.snapshot_code() == code


def test_a_mode_that_somebody_left_behind(home: Home) -> None:
    (home.path / "misc" / "snapshot").write_text("user/dead-7")
    method = Asked(home.path)
    with sublock(home), pytest.raises(LockTaken, match="still at work"):
        leave_foreign(home, [method])
    assert leave_foreign(home, [method]) == "user/dead-7"
    with pytest.raises(SourceUnusable, match="nobody's snapshot mode"):
        leave_foreign(home, [method])


class TestDirect:
    @pytest.mark.parametrize("name", [name for name in READABLE if "empty" not in name])
    def test_rolls_forward_as_the_storage_does(self, name: str, tmp_path: Path) -> None:
        home = Home(unpack(name, tmp_path))
        held(home, DirectMethod(home))
        assert look(home).state is State.CLEAN
        truth = seen(name).get("recovered_iter") or seen(name)["A_only"]
        view = View(home)
        chain = [f"{each.tid:016X}" for each in view.chain(view.serial(), 0)][::-1]
        assert chain == [each["tid"] for each in truth["transactions"]]
        assert f"{view.last_oid():016X}" == truth["x"]["x.oid"]
        records = {
            (each["oid"], each["tid"]) for t in truth["transactions"] for each in t["records"]
        }
        ours = {
            (f"{each.oid:016X}", f"{each.tid:016X}")
            for each in view.names()
            if each.kind is Kind.REVISION
        }
        assert records <= ours

    def test_applies_a_replica(self, tmp_path: Path) -> None:
        home = Home(unpack("chunky-replica-pending", tmp_path))
        held(home, DirectMethod(home))
        truth = seen("chunky-replica-pending")["recovered_iter"]
        assert f"{View(home).serial():016X}" == truth["x"]["x.serial"]
        assert (home.path / "misc" / "replica.previous").exists()

    def test_touches_nothing_of_what_was_closed_well(self, tmp_path: Path) -> None:
        home = Home(unpack("bushy-clean", tmp_path))
        before = states_of(home.path)
        held(home, DirectMethod(home))
        assert states_of(home.path) == before

    def test_only_when_nobody_has_it_open(self, home: Home) -> None:
        before = states_of(home.path)
        with (
            locked(home.path, LOCK),
            pytest.raises(SourceUnusable, match="a process has the storage open"),
        ):
            held(home, DirectMethod(home))
        assert states_of(home.path) == before

    def test_keeps_a_storage_from_starting_meanwhile(self, home: Home) -> None:
        """Else it would go on in a snapshot mode that it cannot leave."""
        with hold(home, [DirectMethod(home)], "me-1", lambda: NOW, AT_ONCE, OBSERVER):
            assert home.is_locked(LOCK)
        assert not home.is_locked(LOCK)

    @pytest.mark.parametrize("stranger", [".keep", "working_0_done", "notes.txt"])
    def test_refuses_what_the_storage_would_refuse(self, home: Home, stranger: str) -> None:
        (home.path / "journal" / stranger).touch()
        with pytest.raises(SourceUnusable, match="something strange"):
            held(home, DirectMethod(home))

    def test_refuses_a_replica_beside_other_things(self, tmp_path: Path) -> None:
        home = Home(unpack("chunky-replica-pending", tmp_path))
        (home.path / "B" / "x").mkdir()
        (home.path / "B" / "x" / "oid").write_bytes(bytes(8))
        with pytest.raises(SourceUnusable, match="not alone"):
            roll_forward(home)

    def test_a_replica_cannot_lead_out_of_home(self, tmp_path: Path) -> None:
        import tarfile

        home = Home(unpack("chunky-replica-pending", tmp_path))
        with tarfile.open(home.path / "journal" / "replica.tar", "a") as archive:
            archive.addfile(tarfile.TarInfo("A/../../evil"))
        with pytest.raises(SourceDamaged, match="no file of A"):
            roll_forward(home)
        assert (home.path / "journal" / "replica.tar").exists()

    @pytest.mark.parametrize(
        "name", ["chunky-snapshot-live", "bushy-killed-temp", "chunky-replica-pending"]
    )
    @pytest.mark.slow
    def test_may_be_stopped_at_any_moment(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever comes next goes on from there, and gets to the same."""
        whole = Home(unpack(name, tmp_path / "whole"))
        roll_forward(whole)
        for n in (0, 1, 3, 9, 30, 80):
            home = Home(unpack(name, tmp_path / str(n)))
            with monkeypatch.context() as patched:
                stopped = die_at(patched, n)
                try:
                    roll_forward(home)
                except InterruptedError:
                    assert stopped()
            roll_forward(home)
            assert files_of(home) == files_of(whole), n


def files_of(home: Home) -> dict[str, bytes]:
    """All files, but for halves that were left behind."""
    return {
        str(path.relative_to(home.path)): path.read_bytes()
        for path in sorted(home.path.rglob("*"))
        if path.is_file() and not path.name.startswith(".tmp-")
    }


def die_at(patched: pytest.MonkeyPatch, n: int) -> Callable[[], bool]:
    """Let the n-th change of a file or folder, and all after it, fail."""
    calls = 0

    def after(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > n:
                raise InterruptedError
            return function(*arguments, **more)

        return call

    for name in ("replace", "unlink", "rmdir", "mkdir", "fsync", "pwrite"):
        patched.setattr(os, name, after(getattr(os, name)))
    return lambda: calls > n


class TestHeldOutside:
    def environment(self, home: Home, **changed: str) -> dict[str, str]:
        usual = {
            "SNAPSHOT_VERSION": "2",
            "SNAPSHOT_DIRECTORY": f"{home.path}/",
            "SNAPSHOT_TIMESTAMP": str(NOW - 60),
        }
        return usual | changed

    def test_is_found(self, home: Home) -> None:
        (home.path / "misc" / "snapshot").write_text("user/outer-1")
        with sublock(home):
            still = held_outside(home, self.environment(home), lambda: NOW)
        assert still
        assert still.timestamp == NOW - 60
        assert held_outside(home, {}, lambda: NOW) is None

    @pytest.mark.parametrize(
        "changed",
        [
            {"SNAPSHOT_VERSION": "3"},
            {"SNAPSHOT_TIMESTAMP": "soon"},
            {"SNAPSHOT_TIMESTAMP": str(NOW + 60)},
            {"SNAPSHOT_TIMESTAMP": str(NOW - 13 * 3600)},
            {"SNAPSHOT_DIRECTORY": "/"},
        ],
    )
    def test_must_be_what_it_says(self, home: Home, changed: dict[str, str]) -> None:
        (home.path / "misc" / "snapshot").write_text("user/outer-1")
        with sublock(home), pytest.raises(UsageError):
            held_outside(home, self.environment(home, **changed), lambda: NOW)

    @pytest.mark.parametrize("code", [None, "packing", "user/outer-1"])
    def test_must_be_held(self, home: Home, code: str | None) -> None:
        if code:
            (home.path / "misc" / "snapshot").write_text(code)
        with pytest.raises(SourceUnusable, match="is not held still"):
            held_outside(home, self.environment(home), lambda: NOW)

    def test_must_not_be_old(self, tmp_path: Path) -> None:
        home = Home(unpack("chunky-snapshot-live", tmp_path))
        (home.path / "misc" / "snapshot").write_text("shutdown")
        with sublock(home), pytest.raises(SourceUnusable, match="A is old"):
            held_outside(home, self.environment(home), lambda: NOW)


class TestLocks:
    def test_a_lock_is_made_where_there_is_none(self, home: Home) -> None:
        (home.path / SUBLOCK).unlink(missing_ok=True)
        assert not home.is_locked(SUBLOCK)
        with locked(home.path, SUBLOCK), pytest.raises(LockTaken), locked(home.path, SUBLOCK):
            pass
        assert (home.path / SUBLOCK).exists()

    def test_misc_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SourceUnusable, match="cannot be made"), locked(tmp_path, SUBLOCK):
            pass

    def test_another_process_holds_it(self, home: Home) -> None:
        with (home.path / SUBLOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert home.is_locked(SUBLOCK)


class TestAsking:
    @pytest.mark.parametrize("url", ["ftp://host/x", "http://user:password@host/x", "host"])
    def test_strange_urls_are_refused_without_their_secrets(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError) as refused:
            HttpMethod(url, tmp_path / "access")
        assert "password" not in str(refused.value)

    @pytest.mark.parametrize("content", [None, "", "no colon\n"])
    def test_access_files(self, content: str | None, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "access").write_text(content)
        with pytest.raises(UsageError, match="no user:password"):
            HttpMethod("http://localhost:1/x", tmp_path / "access").enter("me-1")

    def test_nobody_answers(self, tmp_path: Path) -> None:
        (tmp_path / "access").write_text("a:b")
        with pytest.raises(Refused, match="http://localhost:1/x"):
            HttpMethod("http://localhost:1/x", tmp_path / "access").enter("me-1")
        with pytest.raises(Refused, match="zeo localhost:1"):
            ZeoMethod("localhost:1", "1").enter("me-1")
        with pytest.raises(Refused, match=r"zeo .*/sock"):
            ZeoMethod(str(tmp_path / "sock"), "1").enter("me-1")

    @pytest.mark.parametrize(
        "answer", [b"HTTP/1.1 400\r\n\r\n", b"", b"\0\0\0\4Z5xx", b"\0\0\0\3M50", b"\xff" * 8]
    )
    def test_a_server_of_another_kind(self, answer: bytes, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            port = server.getsockname()[1]
            with pytest.raises(Refused, match="zeo"):
                ZeoMethod(f"127.0.0.1:{port}", "1").enter("me-1")
            thread.join()

    def test_a_zeo_server_that_says_other_things_in_between(self, tmp_path: Path) -> None:
        """Invalidations, and an exception at the end; over a Unix socket."""
        path = str(tmp_path / "sock")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()

            def serve() -> None:
                connection, _ = server.accept()
                with connection, connection.makefile("rb") as stream:

                    def receive() -> bytes:
                        return stream.read(old_zeo.frame_size(stream.read(4)))

                    def send(content: bytes) -> None:
                        connection.sendall(old_zeo.frame(content))

                    send(b"Z309")
                    assert receive() == b"Z309"
                    for number in (1, 2, 3):
                        assert old_zeo.decode(receive()).number == number
                        send(b"(K\x00K\x01U\x15invalidateTransactionU\x01xt.")
                        send(b"(K%cK\x00U\x06.replyK\x01t." % number)

            thread = threading.Thread(target=serve)
            thread.start()
            ZeoMethod(path, "main").enter("me-1")
            thread.join()
