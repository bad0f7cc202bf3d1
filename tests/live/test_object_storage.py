"""Whole runs on real S3 servers: counted, interrupted, in front of faults; and what restic says of it."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from blob_storage import BlobStorage
from command_line import Program, commit
from datafs import DataFs, Record, Transaction
from doubles import Restic
from faulty_proxy import Asked, Fault, Proxy, once_each, proxy
from object_server import ACCESS_KEY, ObjectServer, seaweedfs

from perdure.repository import packer as packer_module
from perdure.stores import retrying

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_environment")]


ByRestic = Callable[..., str]


@pytest.fixture
def front(object_server: ObjectServer) -> Iterator[Proxy]:
    with proxy(object_server.endpoint) as running:
        yield running


@pytest.fixture
def far(
    program: Program,
    object_server: ObjectServer,
    front: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A new repository behind the proxy; the environment leads to it. Gives its bucket."""
    bucket = object_server.bucket()
    monkeypatch.setenv("PERDURE_REPOSITORY", front.url(bucket))
    # A key file opens at once: scrypt's strength is for passwords that people choose.
    program("init", "--new-password-file", str(tmp_path / "key"))
    monkeypatch.setenv("PERDURE_PASSWORD_FILE", str(tmp_path / "key"))
    front.reset()
    return bucket


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    short = functools.partial(retrying.Patience, first_pause=0.02, longest_pause=1.0)
    monkeypatch.setattr(retrying, "Patience", short)


@pytest.fixture
def by_restic(restic: Restic, tmp_path: Path) -> ByRestic:
    """The stock restic, with the key file of these repositories."""

    def call(place: str, *arguments: str) -> str:
        return restic(cast(Path, place), "--password-file", str(tmp_path / "key"), *arguments)

    return call


def restored(program: Program, folder: Path, *arguments: str) -> bytes:
    program("restore", "--to", str(folder), *arguments)
    return (folder / "Data.fs").read_bytes()


def big(path: Path, megabytes: int) -> None:
    """Write a Data.fs that does not compress."""
    made = DataFs()
    for number in range(megabytes):
        made.add(Transaction([Record(number, os.urandom(1 << 20))]))
    path.write_bytes(made.data)


def test_an_increment_costs_less_than_twenty_requests(
    program: Program, far: str, front: Proxy, tmp_path: Path
) -> None:
    storage = BlobStorage(tmp_path / "site")
    for number in range(5):
        storage.commit(*(f"blob{number}-{n}" for n in range(4)))
    site = ("--filestorage", str(storage.path), "--blobs", str(storage.blobs))
    program("backup", *site)
    for number in range(3):
        storage.commit(f"new{number}")
        front.reset()
        told = program("backup", "--json", *site).summary["traffic"]
        assert told["requests"] == len(front.asked) < 20
        assert {verb: count for verb, count in told["by_verb"].items() if count} == front.by_verb
        assert told["bytes_sent"] == front.bytes_sent
    front.reset()
    told = program("backup", "--json", *site).summary["traffic"]
    assert told["requests"] == len(front.asked) < 15
    spoken = program("snapshots", "--verbose").out.splitlines()[-1]
    assert "requests (" in spoken
    storage.close()
    program("check", "--read-data")


def test_a_life_in_a_bucket(
    program: Program, far: str, object_server: ObjectServer, data_fs: Path, tmp_path: Path,
    by_restic: ByRestic,
) -> None:  # fmt: skip
    program("backup", "--filestorage", str(data_fs))
    before = data_fs.read_bytes()
    commit(data_fs, 5)
    program("backup", "--filestorage", str(data_fs))
    url = object_server.restic_url(far)

    assert restored(program, tmp_path / "now", "-r", url) == data_fs.read_bytes()
    assert len(json.loads(program("snapshots", "--json").out)) == 2
    by_restic(url, "check", "--read-data")
    program("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    by_restic(url, "check", "--read-data")
    by_restic(url, "restore", "latest", "--target", str(tmp_path / "by-restic"))
    program(
        "assemble", str(tmp_path / "by-restic" / "Data.fs.history"), str(tmp_path / "assembled")
    )
    assert (tmp_path / "assembled").read_bytes() == data_fs.read_bytes() != before
    program("check", "--read-data")


def test_a_poor_server_will_do(
    program: Program, poor_server: ObjectServer, data_fs: Path, tmp_path: Path,
    by_restic: ByRestic, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bucket = poor_server.bucket()
    monkeypatch.setenv("PERDURE_REPOSITORY", poor_server.url(bucket))
    program("init", "--new-password-file", str(tmp_path / "key"))
    monkeypatch.setenv("PERDURE_PASSWORD_FILE", str(tmp_path / "key"))
    program("backup", "--filestorage", str(data_fs))
    commit(data_fs, 5)
    program("backup", "--filestorage", str(data_fs))
    program("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    program("mirror", poor_server.url(bucket, "mirror"))
    for place in (poor_server.url(bucket), poor_server.url(bucket, "mirror")):
        program("check", "--read-data", "-r", place, "--no-cache")
    assert restored(program, tmp_path / "out", "--no-cache") == data_fs.read_bytes()
    by_restic(poor_server.restic_url(bucket, "mirror"), "check", "--read-data")


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.BUSY_503, Fault.TORN])
def test_faults_on_the_way(
    program: Program, far: str, front: Proxy, data_fs: Path, tmp_path: Path, fault: Fault
) -> None:
    front.harm = once_each(fault)
    told = program("backup", "--json", "--filestorage", str(data_fs)).summary["traffic"]
    assert front.struck[fault] >= 10
    assert told["retries"] >= 5
    commit(data_fs, 2)
    program("backup", "--filestorage", str(data_fs))
    program("forget", "--keep-last", "1", "--prune")
    assert restored(program, tmp_path / "out", "--no-cache") == data_fs.read_bytes()
    front.reset()
    program("check", "--read-data")


def test_wrong_places_and_secrets(
    program: Program, far: str, front: Proxy, data_fs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = program("snapshots", "-r", front.url("no-such-bucket"), code=1)
    assert "NoSuchBucket" in result.err
    assert "make the bucket first" in result.err
    assert "no repository" in program("snapshots", "-r", front.url(far, "other"), code=10).err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    front.reset()
    result = program("backup", "--filestorage", str(data_fs), code=1)
    assert "SignatureDoesNotMatch" in result.err
    assert "geheim" not in result.err
    assert len(front.asked) == 1


def test_a_server_that_is_killed_and_comes_back(
    program: Program, data_fs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 1 << 20)
    big(data_fs, 12)
    with seaweedfs() as server, proxy(server.endpoint) as front:
        monkeypatch.setenv("PERDURE_REPOSITORY", front.url(server.bucket()))
        program("init", "--new-password-file", str(tmp_path / "key"))
        monkeypatch.setenv("PERDURE_PASSWORD_FILE", str(tmp_path / "key"))
        down = threading.Event()

        def harm(asked: Asked) -> Fault | None:
            puts = sum(each.verb == "put" and "/data/" in each.path for each in front.asked)
            if puts == 4 and not down.is_set():
                down.set()
                server.kill()
                front.harm = wait_a_little(asked.number + 6)
                return Fault.REFUSED
            return None

        def wait_a_little(until: int):  # type: ignore[no-untyped-def]
            def harm(asked: Asked) -> Fault | None:
                if asked.number >= until:
                    server.start()
                    front.harm = lambda asked: None
                return Fault.REFUSED

            return harm

        front.harm = harm
        told = program("backup", "--json", "--filestorage", str(data_fs)).summary
        assert down.is_set()
        assert told["traffic"]["retries"] >= 6
        program("check", "--read-data")
        assert restored(program, tmp_path / "out") == data_fs.read_bytes()


def test_a_backup_that_is_killed_goes_on_where_it_was(
    program: Program, far: str, front: Proxy, data_fs: Path, tmp_path: Path
) -> None:
    big(data_fs, 112)
    packfiles, packfile_size = 6, 16 << 20
    command = [sys.executable, "-m", "perdure", "backup", "--filestorage", str(data_fs)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    reached = threading.Event()

    def harm(asked: Asked) -> Fault | None:
        puts = sum(each.verb == "put" and "/data/" in each.path for each in front.asked)
        if puts >= packfiles:
            reached.set()
            return Fault.SILENT
        return None

    front.harm = harm
    child = subprocess.Popen(command, env=environment)
    try:
        assert reached.wait(120)
        noted = _wait_for_notes(tmp_path / "cache", packfiles - 1)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        front.over.set()
    assert noted == packfiles - 1

    front.reset()
    told = program("backup", "--json", "--retry-lock", "1m", "--filestorage", str(data_fs)).summary
    assert told["bytes_added"] < data_fs.stat().st_size - (packfiles - 1.5) * packfile_size
    assert front.bytes_sent < data_fs.stat().st_size - (packfiles - 1.5) * packfile_size
    assert not list((tmp_path / "cache").rglob("*.notes"))
    program("check", "--read-data")
    assert restored(program, tmp_path / "out") == data_fs.read_bytes()
    pruned = program("prune", "--dry-run", "--json").summary
    assert pruned["bytes_freed"] < 1 << 20, pruned  # nothing was sent for nothing


def test_who_waits_for_a_server_can_be_interrupted(
    program: Program, far: str, front: Proxy, data_fs: Path
) -> None:
    command = [sys.executable, "-m", "perdure", "backup", "--filestorage", str(data_fs)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    refused = threading.Event()

    def harm(asked: Asked) -> Fault | None:
        if any(each.verb == "put" and "/data/" in each.path for each in front.asked):
            if len(front.asked) > 15:
                refused.set()
            return Fault.BUSY_503
        return None

    front.harm = harm
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert refused.wait(120)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130, said
    assert "interrupted" in said
    front.reset()
    program("backup", "--filestorage", str(data_fs))
    program("check", "--read-data")


def _wait_for_notes(cache: Path, count: int) -> int:
    """Wait until a backup has noted so many packfiles; gives how many it has."""
    deadline = time.monotonic() + 120
    noted = 0
    while noted < count and time.monotonic() < deadline:
        time.sleep(0.05)
        noted = sum(path.read_bytes().count(b"\n") for path in cache.rglob("*.notes"))
    return noted


def test_mirror_and_copy_between_places(
    program: Program, far: str, object_server: ObjectServer, data_fs: Path, tmp_path: Path,
    by_restic: ByRestic, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    program("backup", "--filestorage", str(data_fs))
    local = tmp_path / "mirror"
    program("mirror", str(local))
    by_restic(str(local), "check", "--read-data")
    commit(data_fs, 3)
    program("backup", "--filestorage", str(data_fs))
    away = object_server.url(object_server.bucket(), "mirror")
    for place in (str(local), away):
        report = program("mirror", "--json", place).summary
        assert report["copied"]["snapshots"] == (1 if place == str(local) else 2)
        again = program("mirror", "--json", "--delete", place).summary
        assert not again["bytes_copied"]
        program("check", "--read-data", "-r", place)
    assert restored(program, tmp_path / "out", "-r", away) == data_fs.read_bytes()
    by_restic(away_for_restic(object_server, away), "check", "--read-data")

    monkeypatch.setenv("PERDURE_FROM_PASSWORD_FILE", str(tmp_path / "key"))
    other = str(tmp_path / "other")
    monkeypatch.delenv("PERDURE_PASSWORD_FILE")
    program("init", "-r", other, "--new-password-file", str(tmp_path / "another"))
    monkeypatch.setenv("PERDURE_PASSWORD_FILE", str(tmp_path / "another"))
    rehearsed = program("copy", "-n", "--json", "-r", other, "--from", away).summary
    report = program("copy", "--json", "-r", other, "--from", away).summary
    assert len(report["copied"]) == len(rehearsed["copied"]) == 2
    assert rehearsed["chunks"] == report["chunks"] > 0
    assert program("copy", "--json", "-r", other, "--from", away).summary["already_there"] == 2
    assert restored(program, tmp_path / "again", "-r", other) == data_fs.read_bytes()
    program("check", "--read-data", "-r", other)
    monkeypatch.setenv("PERDURE_PASSWORD_FILE", str(tmp_path / "key"))
    assert "mirror of the other" in program("copy", "-r", away, "--from", str(local), code=2).err


def away_for_restic(server: ObjectServer, url: str) -> str:
    bucket = url.removeprefix("s3://").partition("/")[0]
    return server.restic_url(bucket, "mirror")


def test_what_the_document_says_works(
    bare_environment: None, object_server: ObjectServer, data_fs: Path, tmp_path: Path
) -> None:
    for bucket in ("plone", "elsewhere"):
        object_server.make_bucket(bucket)
    text = (Path(__file__).parents[2] / "docs" / "object-storage.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    script = script.replace("https://s3.example.org", object_server.endpoint)
    script = script.replace("=backup AWS_SECRET_ACCESS_KEY=...", f"={ACCESS_KEY}")
    script = script.replace("/srv/plone/var/filestorage/Data.fs", str(data_fs))
    script = re.sub(r"(?<=[ =])/(root|mnt/disk)/", f"{tmp_path}/", script)
    program = tmp_path / "bin" / "perdure"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        ["sh", "-ex", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "requests (" in done.stdout
    assert "1 snapshot copied" in done.stdout
