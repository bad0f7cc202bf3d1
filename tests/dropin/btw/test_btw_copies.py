"""The copy on a real S3 server, and getting backups back from here and from there."""

from __future__ import annotations

import http.server
import random
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import pytest
from btw_site import BtwSite, names_below, tree, write
from object_server import seaweedfs

from perdure.dropin.btw import offsite
from perdure.dropin.btw.bucket import open_bucket
from perdure.dropin.btw.children import Children
from perdure.dropin.btw.command import main
from perdure.dropin.btw.rdiff import verify
from perdure.dropin.btw.repository import DATA, sessions_in
from perdure.dropin.btw.s3cmd import connection, parse_s3cmd
from perdure.errors import NameNotFound, StoreError, StoreUnavailable
from perdure.pool import Pool

pytestmark = pytest.mark.slow
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


@pytest.fixture(autouse=True)
def _needs_rdiff() -> None:
    if shutil.which("rdiff-backup", path=PATH) is None:
        pytest.skip("rdiff-backup is not installed (Debian: apt-get install rdiff-backup)")


def run(site: BtwSite, *arguments: str | Path, code: int = 0) -> None:
    assert main(["--config-dir", str(site.config), *map(str, arguments)]) == code


def copies(site: BtwSite, folder: Path) -> dict[str, bytes | str]:
    """Bring all objects here, as any other program would."""
    remote = site.remote()
    shutil.rmtree(folder, ignore_errors=True)
    for found in remote.objects(""):
        path = folder / found.name
        path.parent.mkdir(parents=True, exist_ok=True)
        remote.fetch(found.name, path)
    return tree(folder)


def versions_at(remote: object, path: str, target: Path) -> int:
    """Fetch a repository's copy, have rdiff-backup verify all of it, and give how many versions it has."""
    offsite.fetch_repository(remote, path, target)  # type: ignore[arg-type]
    sessions = sessions_in(entry.name for entry in (target / DATA).iterdir())
    for time in sessions.times:
        verify(Children({"PATH": PATH, "TZ": "UTC"}), target, time)
    return len(sessions.times)


def test_backups_go_there_and_come_back(
    copied_site: BtwSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site = copied_site
    job = site.init("rdiff", MAX_INCREMENTAL_COUNT=1)
    site.destination("rd")
    site.destination("tars/files")
    states = []
    for number in range(3):
        (site.source / "index.txt").write_text(f"state {number}")
        states.append(tree(site.source))
        run(site, "fs", site.source, "rd")
        assert copies(site, site.folder / "copy") == tree(site.root)
    run(site, "fs", site.source, "rd")  # unchanged: a line in the log
    write(job / "config.py", 'TYPE="tar"\n')
    run(site, "fs", site.source, "tars/files")
    assert copies(site, site.folder / "copy") == tree(site.root)
    run(site, "sync-state", "--list")
    assert capsys.readouterr().out == ""
    run(site, "verify", "--offsite")
    assert capsys.readouterr().out.count(": good\n") == 3 + 2 + 1 + 1
    names = [name.strip() for name in names_below(site.root / "rd") if name != "log.txt"]
    assert len(names) == 2
    shutil.move(site.root, site.folder / "lost")
    site.root.mkdir()
    for number, (at, state) in enumerate(zip([names[0], None, names[1]], [0, 2, 2], strict=True)):
        target = site.folder / f"back-{number}"
        run(site, "restore", "--offsite", *(("--at", at) if at else ()), "rd", target)
        assert tree(target) == states[state]
    run(site, "restore", "--offsite", "tars/files", site.folder / "back")
    assert tree(site.folder / "back") == states[2]


def test_a_server_that_is_down_ends_with_3_and_the_next_run_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """btw-backup ended with 0 there."""
    with seaweedfs() as server:
        site = BtwSite(tmp_path, server.bucket(), server.endpoint)
        site.init("tar")
        site.destination("dst")
        run(site, "fs", site.source, "dst")
        server.kill()
        (site.source / "index.txt").write_text("changed")
        run(site, "fs", site.source, "dst", code=3)
        said = capsys.readouterr().err
        newest = names_below(site.root / "dst")[-1]
        assert f"Error while processing: dst/{newest}: " in said
        run(site, "sync", code=3)
        capsys.readouterr()
        run(site, "sync-state", "--list")
        assert capsys.readouterr().out == f"Must push: dst/{newest}\n"
        run(site, "sync-state", "--reset", code=1)
        server.start()
        run(site, "sync")
        run(site, "sync-state", "--reset")
        assert copies(site, tmp_path / "copy") == tree(site.root)


def test_a_wrong_secret_is_said_and_leaves_all_pending(
    copied_site: BtwSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site = copied_site
    site.init("tar")
    site.destination("dst")
    write(site.s3cfg, site.s3cmd_settings(secret_key="wrong-secret"))
    run(site, "fs", site.source, "dst", code=3)
    said = capsys.readouterr().err
    assert "SignatureDoesNotMatch" in said
    assert "wrong-secret" not in said
    assert len(names_below(site.root / "dst")) == 1
    write(site.s3cfg, site.s3cmd_settings())
    run(site, "sync")
    assert copies(site, site.folder / "copy") == tree(site.root)


def test_broken_s3_settings_do_not_stop_a_backup(
    copied_site: BtwSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site = copied_site
    site.init("tar")
    site.destination("dst")
    write(site.s3cfg, "[default]\nencrypt = True\n")
    run(site, "fs", site.source, "dst", code=3)
    assert "the backup is made, its copy is not complete: " in capsys.readouterr().err
    site.s3cfg.unlink()
    run(site, "sync", code=1)
    assert len(names_below(site.root / "dst")) == 1


def test_large_files_and_odd_names(copied_site: BtwSite, tmp_path: Path) -> None:
    remote = copied_site.remote()
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(random.Random(1).randbytes((33 << 20) + 5))
    small.write_bytes(b"x")
    remote.put_file("a b/ü+é%20 #?/2026-01-01T00:00:00.tbz", small)
    remote.put_file("large", large)
    remote.copy("large", "again/large")
    remote.fetch("again/large", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == large.read_bytes()
    found = {each.name: each for each in remote.objects("")}
    assert sorted(found) == ["a b/ü+é%20 #?/2026-01-01T00:00:00.tbz", "again/large", "large"]
    from perdure.dropin.btw.bucket import has_content

    assert has_content(large, found["large"].tag)
    assert [each.name for each in remote.objects("again")] == ["again/large"]
    remote.delete("again/large")
    remote.delete("again/large")
    with pytest.raises(NameNotFound):
        remote.fetch("again/large", tmp_path / "none")


def test_real_repositories_can_be_restored_wherever_a_copy_stops(copied_site: BtwSite) -> None:
    """What the fake bucket shows for each call, a real server and rdiff-backup show for some."""
    site = copied_site
    site.init("rdiff")
    site.destination("rd")
    (site.source / "data").write_bytes(random.Random(2).randbytes(200_000))
    run(site, "fs", site.source, "rd")
    (name,) = names_below(site.root / "rd")
    path = f"rd/{name}"
    for number in range(1, 4):
        (site.source / "data").write_bytes(random.Random(number).randbytes(200_000))
        write(site.s3cfg, site.s3cmd_settings(host_base="127.0.0.1:1", host_bucket="127.0.0.1:1"))
        run(site, "fs", site.source, "rd", code=3)
        write(site.s3cfg, site.s3cmd_settings())
        stopping = _Stopping(site, after=5 * number)
        with pytest.raises(StoreError):
            stopping.copy_repository(path)
        found = versions_at(site.remote(), path, site.folder / f"stopped-{number}")
        assert found in (number, number + 1)
        run(site, "sync")
        assert versions_at(site.remote(), path, site.folder / f"whole-{number}") == number + 1
        assert copies(site, site.folder / "copy") == tree(site.root)


class _Stopping:
    """The real bucket, whose writing calls fail from some number on."""

    def __init__(self, site: BtwSite, after: int) -> None:
        self._site = site
        self._inner = site.remote()
        self._left = after

    def __getattr__(self, name: str) -> object:
        call = getattr(self._inner, name)
        if name not in {"put", "put_file", "copy", "delete"}:
            return call

        def counted(*arguments: object) -> object:
            self._left -= 1
            if self._left < 0:
                raise StoreError("stopped")
            return call(*arguments)

        return counted

    def copy_repository(self, path: str) -> None:
        from perdure.dropin.btw.bucket import has_content
        from perdure.dropin.btw.syncing import files_of, objects_of

        local = self._site.root / path
        there = objects_of(self._inner.objects(path), path)
        change = offsite.plan_change(
            files_of(local), there, lambda name, tag: has_content(local / name, tag), thorough=False
        )
        assert change.staged
        offsite.apply_change(self, path, local, change)  # type: ignore[arg-type]


def test_forget_deletes_here_and_there(
    copied_site: BtwSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site = copied_site
    site.init("rdiff", MAX_INCREMENTAL_COUNT=1)
    site.destination("rd")
    for number in range(5):
        (site.source / "index.txt").write_text(f"state {number}")
        run(site, "fs", site.source, "rd")
    full = names_below(site.root / "rd")
    assert len(full) == 3
    capsys.readouterr()
    run(site, "forget", "rd", code=2)
    run(site, "forget", "-n", "--keep-last", "2", "rd")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"would delete {full[0]}: no rule keeps it"
    assert said[1] == f"keep {full[1]}: last snapshot"
    assert names_below(site.root / "rd") == full
    run(site, "forget", "--keep-last", "2", "rd")
    assert names_below(site.root / "rd") == full[1:]
    assert any(found.name.startswith(f"rd/{full[0]}/") for found in site.remote().objects(""))
    run(site, "forget", "--offsite", "--keep-last", "1", "rd")
    assert names_below(site.root / "rd") == full[2:]
    assert not any(found.name.startswith(f"rd/{full[1]}/") for found in site.remote().objects(""))
    run(site, "sync")
    run(site, "verify", "--offsite", "rd")


class _Recording(http.server.BaseHTTPRequestHandler):
    headers_seen: ClassVar[list[dict[str, str]]] = []

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("ETag", '"x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Failing(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[list[int]] = []

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.answers.pop(0))
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "left"),
    [([500, 503, 200], None), ([500] * 9, StoreUnavailable), ([403], StoreError)],
)
def test_server_errors(answers: list[int], left: type[Exception] | None) -> None:
    """What passes is tried again; what does not is an error."""
    _Failing.answers[:] = answers
    with http.server.HTTPServer(("127.0.0.1", 0), _Failing) as server:
        pool = Pool(1)
        done = pool.submit(0, lambda _: server.serve_forever(0.05), None)
        text = (
            f"access_key=a\nsecret_key=b\nhost_base=127.0.0.1:{server.server_port}\nhost_bucket=x\n"
        )
        settings = parse_s3cmd(f"{text}use_https = False\n")
        bucket = open_bucket(connection(settings, "s3://foo/x", None), encrypted=True)
        try:
            with pytest.raises(left) if left else nullcontext():
                bucket.put("name", b"data")
        finally:
            server.shutdown()
            done.result(60)
            pool.close()


@pytest.mark.parametrize(
    ("more", "encrypted", "expected"),
    [
        ("", True, "AES256"),
        ("server_side_encryption = False\n", True, "AES256"),
        ("kms_key = k1\n", True, "aws:kms"),
        ("", False, None),
    ],
)
def test_the_server_is_asked_to_encrypt(more: str, encrypted: bool, expected: str | None) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Recording) as server:
        pool = Pool(1)
        done = pool.submit(0, lambda _: server.handle_request(), None)
        text = (
            f"access_key=a\nsecret_key=b\nhost_base=127.0.0.1:{server.server_port}\nhost_bucket=x\n"
        )
        settings = parse_s3cmd(f"{text}use_https = False\n{more}")
        open_bucket(connection(settings, "s3://foo/x", None), encrypted=encrypted).put(
            "name", b"data"
        )
        done.result(60)
        pool.close()
    seen = _Recording.headers_seen.pop()
    assert seen.get("x-amz-server-side-encryption") == expected
