"""repozo's command line, by its own name and by perdure's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Program
from repozo_pair import Site, moment, ours, problems, zodbs

from perdure.dropin.repozo import BackupKind, BackupRequest, backup, comparing
from perdure.dropin.repozo.arguments import HelpWanted, WrongUsage, parse
from perdure.model import SilentObserver


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.commit(3)
    return made


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("-BQvzr R -f F", {"quick", "verbose", "gzip"}),
        ("-BFkrR -fF", {"full", "kill_old_on_full"}),
        ("--backup --repository=R --file F --full", {"full"}),
        ("--back --repo R --fi F --qui --gz --verb", {"quick", "gzip", "verbose"}),
        ("--back --repo R --fi F --kill", {"kill_old_on_full"}),
        ("-R -r R -o O -w", {"output", "with_verify"}),
        ("-R -r R -o O --with", {"output", "with_verify"}),
        ("-R -r R -o O --with-verification", {"output", "with_verify"}),
        ("-R -r R -o O --with-verifi", {"output", "with_verify"}),
        ("-R -r R --da 2026 --out O --incremental", {"date", "output", "incremental"}),
        ("-VQ -r R", {"quick"}),
        ("-R -r R -F -Q -z", {"full", "quick", "gzip"}),
        ("-V -r R --json --", {"json"}),
    ],
)
def test_options_are_read_as_repozo_reads_them(line: str, fields: set[str]) -> None:
    found = parse(line.split())
    assert found.repository == "R"
    assert {name for name in fields if getattr(found, name)} == fields
    names = ["verbose", "full", "quick", "gzip", "kill_old_on_full", "date", "output", "json"]
    assert not {name for name in names if getattr(found, name)} - fields
    assert not found.ignored


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "Either --backup, --recover or --verify is required"),
        ("-B -r R", "--file is required in backup mode"),
        ("-B -f F", "--repository is required"),
        ("-B -f F --repository=", "--repository is required"),
        ("-R -r R --output=", "--output is empty"),
        ("-BR -r R", "-B, -R, and -V are mutually exclusive"),
        ("-B -r R -f F extra", "Invalid arguments: extra"),
        ("--ver -r R", "option --ver not a unique prefix"),
        ("-X", "option -X not recognized"),
        ("-R -r R --incremental", "--output is required"),
        ("-B -r R -f F --lock-wait=soon", "takes seconds"),
    ],
)
def test_wrong_usage_says_why_below_the_help(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WrongUsage):
        parse(line.split())
    from perdure.dropin.repozo.command import main

    assert main(line.split()) == 1
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("repozo -- ")
    assert message in said.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "ignored"),
    [
        ("-B -r R -f F -D 2026 -o O -w", ("date", "output", "with-verify")),
        ("-R -r R -f F -k", ("file", "kill-old-on-full")),
        (
            "-V -r R -D 2026 -o O -F -z -f F -k -w",
            ("date", "output", "full", "gzip", "file", "kill-old-on-full", "with-verify"),
        ),
    ],
)
def test_what_means_nothing_in_a_mode_is_dropped(line: str, ignored: tuple[str, ...]) -> None:
    assert set(parse(line.split()).ignored) == set(ignored)


def test_help(program: Program) -> None:
    for flag in ("-h", "--help"):
        assert program("repozo", flag).out.startswith("repozo -- ")
    with pytest.raises(HelpWanted):
        parse(["-h", "nonsense"])
    assert "repozo" in program("--help").out


def test_a_success_prints_nothing(site: Site, program: Program, tmp_path: Path) -> None:
    where = ("-r", str(site.repository))
    data = str(site.path)
    for line in (
        ("-B", "-f", data),
        ("-BQ", "-f", data),
        ("-V",),
        ("-R", "-o", str(tmp_path / "o.fs")),
    ):
        done = program("repozo", *line, *where)
        assert (done.out, done.err) == ("", "")
    assert (tmp_path / "o.fs").read_bytes() == site.data


def test_verbose_says_what_is_done(site: Site, program: Program) -> None:
    done = program("repozo", "-Bv", "-r", str(site.repository), "-f", str(site.path), "-w")
    assert "--with-verify option is ignored in backup mode" in done.err
    assert "doing a full backup" in done.err
    done = program("repozo", "-Bv", "-r", str(site.repository), "-f", str(site.path))
    assert "No changes, nothing to do" in done.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-R -r {repo}", "No files in repository"),
        ("-V -r {repo}", "No files in repository"),
        ("-R -r {repo} -D 2026", "No files in repository before 2026"),
        ("-B -r {repo}/none -f {data}", "{repo}/none is no folder"),
        ("-B -r {repo} -f {data}.gone", "{data}.gone does not exist"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(line: str, message: str, site: Site) -> None:
    places = {"repo": site.repository, "data": site.path}
    done = ours(*line.format(**places).split())
    assert done.code == 1
    assert done.message.startswith(message.format(**places))


@pytest.mark.parametrize("content", [b"", b"FS", b"PK\3\4 something else"])
def test_what_is_no_filestorage_is_not_backed_up(content: bytes, site: Site) -> None:
    site.path.write_bytes(content)
    done = ours("-B", "-r", site.repository, "-f", site.path)
    assert done.code == 1
    assert "is empty" in done.message or "is not a FileStorage" in done.message
    assert not list(site.repository.iterdir())


def test_json_tells_programs(site: Site, program: Program, tmp_path: Path) -> None:
    where = ("-r", str(site.repository), "--json")
    made = json.loads(program("repozo", "-Bz", "-f", str(site.path), *where).out)
    assert (made["kind"], made["end"]) == ("full", len(site.data))
    got = json.loads(program("repozo", "-R", "-o", str(tmp_path / "o.fs"), *where).out)
    assert (got["size"], got["backup"]) == (len(site.data), made["stamp"])
    Path(made["path"]).write_bytes(b"no")
    found = json.loads(program("repozo", "-V", *where, code=1).out)
    assert "is damaged" in found["problems"][0]


def test_recovery_to_standard_output(site: Site) -> None:
    backup(BackupRequest(site.repository, site.path, moment(0), gzip=True), SilentObserver())
    run = [sys.executable, "-m", "perdure", "repozo", "-R", "-r", str(site.repository)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(run, capture_output=True, env=environment, check=True, timeout=60)
    assert done.stdout == site.data
    data = site.repository / f"{moment(0)}.fsz"
    data.write_bytes(data.read_bytes()[:-100])
    done = subprocess.run(run, capture_output=True, env=environment, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")  # not a byte of what is not proved


def test_a_closed_standard_output_is_no_place_to_recover_to(site: Site) -> None:
    backup(BackupRequest(site.repository, site.path, moment(0)), SilentObserver())
    run = [sys.executable, "-m", "perdure", "repozo", "-R", "-r", str(site.repository)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *run],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        timeout=60,
    )
    assert (done.returncode, b"standard output is closed" in done.stderr) == (1, True)


def test_what_is_no_ordinary_file_is_not_recovered_to(site: Site, tmp_path: Path) -> None:
    backup(BackupRequest(site.repository, site.path, moment(0)), SilentObserver())
    os.mkfifo(tmp_path / "pipe")
    for place, what in ((tmp_path, "a folder"), (tmp_path / "pipe", "no ordinary file")):
        for more in ([], ["--incremental"]):
            done = ours("-R", "-r", site.repository, "-o", place, *more)
            assert (done.code, f"{place} is {what}" in done.message) == (1, True)


@pytest.mark.parametrize(
    "line",
    [
        ["-BQ", "-f", "SOURCE"],
        ["-BF", "-f", "SOURCE"],
        ["-V"],
        ["-R", "-o", "RECOVERED"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(site: Site, tmp_path: Path, line: list[str]) -> None:
    backup(BackupRequest(site.repository, site.path, moment(0)), SilentObserver())
    site.commit()
    code = (
        "import sys; from perdure.cli.edge import run;"
        "code = run(sys.argv[1:]);"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    places = {"SOURCE": str(site.path), "RECOVERED": str(tmp_path / "recovered.fs")}
    line = [places.get(each, each) for each in line]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, "repozo", *line, "-r", str(site.repository)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("0 ")
    heavy = {"numpy", "ZODB", "cryptography", "rich", "click", "msgspec", "zlib_ng"}
    assert not heavy & set(done.stdout.split())


class TestDropIns:
    def test_the_name_runs_the_program(self, site: Site, program: Program, tmp_path: Path) -> None:
        folder = tmp_path / "some bin"
        program("dropins", str(folder))
        assert "is there" in program("dropins", str(folder)).out
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        line = [str(folder / "repozo"), "-BQzr", str(site.repository), "-f", str(site.path)]
        subprocess.run(line, env=environment, check=True, timeout=60)
        assert not problems(site.repository)
        assert zodbs("-V", "-r", site.repository, now="2999-01-01-00-00-00").code == 0

    def test_it_is_never_put_over_what_is_not_ours(self, program: Program, tmp_path: Path) -> None:
        foreign = tmp_path / "repozo"
        foreign.write_text("#!/usr/bin/python\nfrom ZODB.scripts.repozo import main\n")
        done = program("dropins", str(tmp_path), code=2)
        assert "was not written by perdure" in done.err
        assert "ZODB" in foreign.read_text()
        foreign.unlink()
        foreign.symlink_to(tmp_path / "elsewhere")
        program("dropins", str(tmp_path), code=2)
        assert foreign.is_symlink()

    def test_a_dry_run_writes_nothing(self, program: Program, tmp_path: Path) -> None:
        listed = json.loads(program("dropins", "-n", "--json", str(tmp_path / "bin"), "repozo").out)
        assert [Path(each["path"]).name for each in listed] == ["repozo"]
        assert not (tmp_path / "bin").exists()
        program("dropins", str(tmp_path / "bin"), "nonesuch", code=2)


def test_a_comparison_that_ends_early_waits_for_its_reader(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(BackupRequest(site.repository, site.path, moment(0)), SilentObserver())

    def slow(piece: object, faults: list[str]) -> Iterator[bytes]:
        yield b"not what the source has"
        time.sleep(0.2)  # while the other thread is done with the comparison
        yield b"more"

    monkeypatch.setattr(comparing, "read_piece", slow)
    report = backup(BackupRequest(site.repository, site.path, moment(1)), SilentObserver())
    assert (report.kind, "has changed" in report.reason) == (BackupKind.FULL, True)


def test_the_default_backup_notices_a_damaged_repository(site: Site) -> None:
    """As ZODB's does: an increment is not put upon what cannot be recovered."""
    request = BackupRequest(site.repository, site.path, moment(0))
    backup(request, SilentObserver())
    data = site.repository / f"{moment(0)}.fs"
    data.write_bytes(data.read_bytes()[:-70] + bytes(70))
    site.commit()
    report = backup(BackupRequest(site.repository, site.path, moment(1)), SilentObserver())
    assert report.kind is BackupKind.FULL
