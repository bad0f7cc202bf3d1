"""A realistic Data.fs of a given size, in states as a site goes through them.

``python -m bench.dataset --size 256M --data DIR`` writes DIR/256M-1/:

====================  =====================================================================
base.fs               a site that was packed on its way and has grown again to the size given
grown.tail            what a further 1 % of life appends to it
packed.fs             that, packed
regrown.tail          what a further 1 % of life appends to the packed file
run-*                 for the long run: 50 steps of 0.2 % after the grown state, a pack, 5 steps
*.fs.index            the index that ZODB keeps beside such a file, from now and then
states.json           size, SHA-256, last tid of each state, and statistics of the base
====================  =====================================================================

Everything goes through the ZODB API; the same seed gives the same bytes with the same versions of
ZODB and Python.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import transaction
from backports import zstd
from persistent.TimeStamp import TimeStamp
from ZODB import DB
from ZODB.FileStorage import FileStorage

from bench.prose import Prose
from bench.site import BEGINNING, Life, Memory
from bench.stage import append

VERSION = 1
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
CHUNK = 1 << 22


def parse_size(text: str) -> int:
    """Read 64M, 1G or a number of bytes."""
    unit = text[-1:].upper()
    return int(float(text[:-1]) * UNITS[unit]) if unit in UNITS else int(text)


class DatedStorage(FileStorage):  # type: ignore[misc]
    """A FileStorage whose transactions carry the time of the site's life instead of today's."""

    def __init__(
        self, path: Path, clock: Callable[[], datetime], blobs: Path | None = None
    ) -> None:
        self._clock = clock
        super().__init__(str(path), blob_dir=str(blobs) if blobs else None)

    def tpc_begin(self, transaction: Any, tid: bytes | None = None, status: str = " ") -> None:
        """Begin with a tid made from the site's clock, always later than the last."""
        if tid is None:
            now = self._clock()
            stamp = TimeStamp(
                now.year,
                now.month,
                now.day,
                now.hour,
                now.minute,
                now.second + now.microsecond / 1e6,
            )
            tid = stamp.laterThan(self._ts).raw()
        super().tpc_begin(transaction, tid, status)


@dataclass
class Living:
    """A site that is open, and what it takes to let time pass."""

    storage: DatedStorage
    db: DB
    life: Life
    memory: Memory
    marks: list[tuple[int, datetime]]

    @property
    def size(self) -> int:
        """Bytes of committed Data.fs."""
        return int(self.storage.getSize())

    def live_until(self, size: int, deed: Callable[[], None]) -> None:
        """Repeat a deed until the file has grown to ``size`` bytes."""
        count = 0
        while self.size < size:
            deed()
            count += 1
            if count % 50 == 0:
                self.marks.append((self.size, self.memory.now))

    def pack(self, share: float) -> None:
        """Pack to the moment at which the file had ``share`` of its present size."""
        due = (when for size, when in self.marks if size >= share * self.size)
        moment = next(due, self.memory.now)
        before = self.size
        self.db.pack(t=moment.timestamp())
        self.marks = [(self.size, self.memory.now)]
        print(f"  packed {before / 1e6:.0f} MB to {self.size / 1e6:.0f} MB", flush=True)


@contextmanager
def living(
    path: Path, seed: int, memory: Memory, marks: list[tuple[int, datetime]]
) -> Iterator[Living]:
    """Open a site's Data.fs and close it again."""
    storage = DatedStorage(path, lambda: memory.now)
    db = DB(storage, cache_size=60_000)
    connection = db.open()

    def undo() -> None:
        db.undo(base64.encodebytes(storage.lastTransaction()).rstrip(b"\n"))
        transaction.get().note("undo")
        transaction.commit()

    life = Life(connection.root(), Prose(Random(seed)), memory, undo)
    try:
        yield Living(storage, db, life, memory, marks)
    finally:
        transaction.abort()
        db.close()
        path.with_name(path.name + ".old").unlink(missing_ok=True)


def build(directory: Path, size: int, seed: int) -> None:
    """Write the four states of a site."""
    work = directory / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    path = work / "Data.fs"
    memory, marks = Memory(Random(seed), BEGINNING), []  # type: Memory, list[tuple[int, datetime]]
    states: dict[str, Any] = {}
    with living(path, seed, memory, marks) as site:
        site.life.found(folders=40 + size // (16 << 20))
        site.live_until(size * 3 // 10, site.life.import_batch)
        site.live_until(size * 6 // 10, site.life.do_something)
        site.pack(0.7)
        site.live_until(size, site.life.do_something)
        marks = site.marks
    shutil.copyfile(path, directory / "base.fs")
    states["base"] = describe(path, None)
    with living(path, seed, memory, marks) as site:
        site.live_until(site.size + size // 100, site.life.do_something)
        marks = site.marks
    states["grown"] = describe(
        path, cut_tail(path, states["base"]["size"], directory / "grown.tail")
    )
    (directory / "grown.pickle").write_bytes(pickle.dumps((memory, marks)))
    with living(path, seed, memory, marks) as site:
        site.pack(0.6)
    shutil.copyfile(path, directory / "packed.fs")
    states["packed"] = describe(path, None)
    with living(path, seed, memory, marks) as site:
        site.live_until(site.size + size // 100, site.life.do_something)
    tail = cut_tail(path, states["packed"]["size"], directory / "regrown.tail")
    states["regrown"] = describe(path, tail)
    shutil.rmtree(work)
    statistics = measure(directory / "base.fs")
    write_json(
        directory / "states.json", {"version": VERSION, "states": states, "statistics": statistics}
    )


def build_long_run(directory: Path, size: int, seed: int) -> None:
    """Write the states of the long run: 50 steps of 0.2 %, a pack, 5 steps more."""
    work = directory / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    path = work / "Data.fs"
    memory, marks = pickle.loads((directory / "grown.pickle").read_bytes())
    shutil.copyfile(directory / "base.fs", path)
    append(path, directory / "grown.tail", 0, None)
    steps: dict[str, list[dict[str, Any]]] = {"run": [], "run-regrown": []}
    with living(path, seed, memory, marks) as site:
        start = site.size
        for _ in range(50):
            site.live_until(site.size + size // 500, site.life.do_something)
            steps["run"].append({"size": site.size})
    cut_tail(path, start, directory / "run.tail")
    with living(path, seed, memory, marks) as site:
        site.pack(0.6)
    shutil.copyfile(path, directory / "run-packed.fs")
    with living(path, seed, memory, marks) as site:
        start = site.size
        for _ in range(5):
            site.live_until(site.size + size // 500, site.life.do_something)
            steps["run-regrown"].append({"size": site.size})
    cut_tail(path, start, directory / "run-regrown.tail")
    shutil.rmtree(work)
    write_json(directory / "run.json", {"version": VERSION, **steps})


def describe(path: Path, tail: Path | None) -> dict[str, Any]:
    """Say what a state is: size, digest, last transaction."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
        file.seek(size - 8)
        length = int.from_bytes(file.read(8), "big")
        file.seek(size - 8 - length)
        tid = file.read(8).hex()
    return {
        "size": size,
        "sha256": digest,
        "tid": tid,
        "tail": tail.stat().st_size if tail else None,
    }


def measure(path: Path) -> dict[str, Any]:
    """Count a Data.fs: what a reader needs in order to trust the data."""
    lengths: list[int] = []
    revisions: dict[bytes, int] = {}
    transactions = packed = pointers = nothings = 0
    texts = bytearray()
    storage = FileStorage(str(path), read_only=True)
    for txn in storage.iterator():
        transactions += 1
        packed += txn.status == "p"
        for record in txn:
            revisions[record.oid] = revisions.get(record.oid, 0) + 1
            if record.data is None:
                nothings += 1
            elif record.data_txn:
                pointers += 1
            else:
                lengths.append(len(record.data))
                first = revisions[record.oid] == 1
                if first and b"<p>" in record.data and len(texts) < 16 << 20:
                    start = record.data.index(b"<p>")
                    texts += record.data[start : record.data.rindex(b"</p>")]
    storage.close()
    lengths.sort()
    count = len(lengths)
    return {
        "transactions": transactions,
        "packed_transactions": packed,
        "records": count + pointers + nothings,
        "back_pointers": pointers,
        "un_creations": nothings,
        "objects": len(revisions),
        "revisions_max": max(revisions.values()),
        "record_median": lengths[count // 2],
        "record_mean": sum(lengths) // count,
        "record_p90": lengths[count * 9 // 10],
        "record_p99": lengths[count * 99 // 100],
        "record_max": lengths[-1],
        "text_zstd3_ratio": round(len(texts) / len(zstd.compress(bytes(texts), 3)), 2),
        "file_zstd3_ratio": round(_zstd_ratio(path), 2),
    }


def index(path: Path) -> None:
    """Have ZODB write the index of a file, if there is none."""
    if path.with_name(path.name + ".index").exists():
        return
    FileStorage(str(path)).close()
    for rest in (".lock", ".tmp"):
        path.with_name(path.name + rest).unlink(missing_ok=True)


def ensure(data: Path, size: str, seed: int, *, long_run: bool = False) -> Path:
    """Give the directory of a data set, building what is missing."""
    directory = data / f"{size}-{seed}"
    states = directory / "states.json"
    if not states.exists() or json.loads(states.read_text())["version"] != VERSION:
        started = time.monotonic()
        print(f"building {directory}", flush=True)
        build(directory, parse_size(size), seed)
        print(f"  took {time.monotonic() - started:.0f} s", flush=True)
    if long_run and not (directory / "run.json").exists():
        print(f"building the long run in {directory}", flush=True)
        build_long_run(directory, parse_size(size), seed)
    for path in directory.glob("*.fs"):
        index(path)
    return directory


def cut_tail(path: Path, start: int, target: Path) -> Path:
    """Copy a file from ``start`` to its end; gives the copy."""
    with path.open("rb") as source, target.open("wb") as out:
        source.seek(start)
        shutil.copyfileobj(source, out, CHUNK)
    return target


def _zstd_ratio(path: Path) -> float:
    compressor, size = zstd.ZstdCompressor(level=3), 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            size += len(compressor.compress(piece))
    size += len(compressor.flush())
    return path.stat().st_size / size


def write_json(path: Path, value: object) -> None:
    """Write a document that people may want to read."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def main() -> None:
    """Build a data set and print its statistics."""
    parser = argparse.ArgumentParser(description="Build a realistic Data.fs in four states.")
    parser.add_argument(
        "--size", default="64M", help="of the base state: 64M, 1G (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("BENCH_DATA", "bench/data"))
    )
    parser.add_argument(
        "--long-run", action="store_true", help="also build the states of the long run"
    )
    arguments = parser.parse_args()
    directory = ensure(arguments.data, arguments.size, arguments.seed, long_run=arguments.long_run)
    known = json.loads((directory / "states.json").read_text())
    for name, state in known["states"].items():
        print(f"{name:8} {state['size']:>14,} bytes  last tid {state['tid']}")
    for name, value in known["statistics"].items():
        print(f"{name:20} {value:>14,}")
    print(
        f"built {datetime.fromtimestamp((directory / 'states.json').stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
    )


if __name__ == "__main__":
    main()
