"""A site of files and images: its Data.fs and its blob directory, in states as a site goes through them.

``python -m bench.uploads --blobs 20000 --large 8x64M --data DIR`` writes DIR/blobs-20000-8x64M-1/:

====================  =====================================================================
base.fs, base.blobs   a year of uploads: so many blobs, of which some are large
small.tail, .blobs    a further 100 blobs
grown.tail, .blobs    a further 1 %
packed.fs             that, packed: blobs of what was deleted or replaced are dropped
again.tail, .blobs    a further 100 blobs, after the pack
states.json           what each state has, statistics of the base, the paths that the pack dropped
====================  =====================================================================

A ``.blobs`` folder has what is new in a state, arranged as ZODB arranges a blob directory. Most uploads
are images: a file, and scales of it made by whoever looks at it first. People work by day, some of
them in batches; each commit is dated by its time, since blobs are stored by the minute of their tid.
Everything goes through the ZODB API; the same seed gives the same bytes with the same versions of
ZODB and Python.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import transaction
from BTrees.OOBTree import OOBTree
from ZODB import DB
from ZODB.blob import Blob

from bench.dataset import DatedStorage, cut_tail, describe, index, parse_size, write_json
from bench.prose import Prose
from bench.site import BEGINNING, Content
from bench.stage import BASE, blob_files, has_blobs

VERSION = 2
SMALL = 100
"""Blobs of the increment that is the same for all sites."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One transaction: when, what is done to which file, and the sizes of the blobs that it makes."""

    when: datetime
    kind: str  # upload, scale, replace, delete
    number: int = 0
    sizes: tuple[int, ...] = ()


def parse_large(text: str) -> list[int]:
    """Read 8x64M: eight of 64 MiB each."""
    count, _, size = text.partition("x")
    return [parse_size(size)] * int(count)


def plan(
    rng: Random, blobs: int, large: Sequence[int], beginning: datetime, days: int
) -> list[Deed]:
    """Plan deeds that make so many blobs within some days, in order."""
    deeds: list[Deed] = []
    left, number = blobs - len(large), 0
    while left > 0:
        when = _working_time(rng, beginning, days)
        batch = rng.random() < 0.04
        for _ in range(rng.randint(50, 150) if batch else 1 + int(rng.expovariate(1 / 6))):
            when += timedelta(seconds=rng.expovariate(1 if batch else 1 / 150))
            number += 1
            left -= _upload(rng, deeds, when, number, left)
            if left <= 0:
                break
    for more, size in enumerate(large, number + 1):
        deeds.append(Deed(_working_time(rng, beginning, days), "upload", more, (size,)))
    return sorted(deeds, key=lambda deed: deed.when)


def _upload(rng: Random, deeds: list[Deed], when: datetime, number: int, most: int) -> int:
    """Add an upload or the replacement of an earlier one, with scales; gives the count of blobs."""
    scales = min(rng.choice((0, 0, 2, 3, 5, 5)), most - 1)
    kind = "replace" if rng.random() < 0.03 else "upload"
    deeds.append(Deed(when, kind, number, (_size(rng, 16_000, 1.1),)))
    if scales:
        seen = when + timedelta(seconds=1 + rng.expovariate(1 / 90))
        sizes = tuple(_size(rng, 4_000, 0.8) for _ in range(scales))
        deeds.append(Deed(seen, "scale", number, sizes))
    if rng.random() < 0.03:
        deeds.append(Deed(when + timedelta(seconds=rng.expovariate(1 / 3600)), "delete"))
    return 1 + scales


def _size(rng: Random, middle: float, spread: float) -> int:
    return 200 + min(int(middle * rng.lognormvariate(0, spread)), 2 << 20)


def _working_time(rng: Random, beginning: datetime, days: int) -> datetime:
    """Give a time within some days, mostly of a working day."""
    while True:
        when = beginning + timedelta(days=rng.random() * days)
        works = when.weekday() < 5 and 7 <= when.hour < 19
        if works or rng.random() < 0.05 or days == 1:
            return when


class Uploads:
    """Users who upload to one site, delete, and replace."""

    def __init__(self, root: Any, rng: Random, texts: bytes) -> None:
        self._files, self._rng, self._texts = root.setdefault("files", OOBTree()), rng, texts
        self._names: list[str] = []
        self._of: dict[int, str] = {}
        self._latest: deque[bytes] = deque(maxlen=20)

    def do(self, deed: Deed) -> None:
        """Do one deed, and commit it."""
        getattr(self, f"_{deed.kind}")(deed)
        current = transaction.get()
        current.setUser(f"member{self._rng.randint(1, 50)}", "/site/acl_users")
        current.note(f"/site/files/{deed.kind}")
        current.commit()

    def forget_numbers(self) -> None:
        """Let a new plan count its files from 1."""
        self._of.clear()

    def _upload(self, deed: Deed) -> None:
        content = Content()
        name = f"file-{len(self._names):07}-{self._rng.getrandbits(32):08x}.jpeg"
        content.id, content.title, content.scales = name, name.title(), ()
        content.blob = self._blob(deed.sizes[0])
        self._files[name] = content
        self._of[deed.number] = name
        self._names.append(name)

    def _scale(self, deed: Deed) -> None:
        content = self._files.get(self._of[deed.number])
        scales = tuple(self._blob(size) for size in deed.sizes)
        if content is None:  # deleted before anybody looked
            self._files[self._of[deed.number]] = content = Content()
        content.scales = scales

    def _replace(self, deed: Deed) -> None:
        name = self._rng.choice(self._names) if self._names else ""
        content = self._files.get(name)
        if content is None or not hasattr(content, "blob"):
            self._upload(deed)
            return
        content.scales = ()
        self._write(content.blob, deed.sizes[0])
        self._of[deed.number] = name

    def _delete(self, deed: Deed) -> None:
        if self._names:
            self._files.pop(self._rng.choice(self._names), None)

    def _blob(self, size: int) -> Blob:
        blob = Blob()
        self._write(blob, size)
        return blob

    def _write(self, blob: Blob, size: int) -> None:
        with blob.open("w") as file:
            file.write(self._content(size))

    def _content(self, size: int) -> bytes:
        """Give bytes: mostly such as cannot be compressed, some text, some that were there before."""
        chance = self._rng.random()
        if chance < 0.05 and self._latest:
            return self._rng.choice(self._latest)
        if chance < 0.2 and size < len(self._texts):
            start = self._rng.randrange(len(self._texts) - size)
            return self._texts[start : start + size]
        data = self._rng.randbytes(size)
        if size < 1 << 20:
            self._latest.append(data)
        return data


class Maker:
    """Makes the states of a site, one after the other."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        work = directory / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self._path, self._blobs = work / "Data.fs", work / "blobs"
        self._rng, self._now = Random(seed), BEGINNING
        self._storage = DatedStorage(self._path, lambda: self._now, self._blobs)
        self._db = DB(self._storage, cache_size=20_000)
        prose = Prose(Random(seed))
        texts = "".join(paragraph for _ in range(1500) for paragraph in prose.text(self._rng))
        self._uploads = Uploads(self._db.open().root(), self._rng, texts.encode())
        self._seen: set[str] = set()
        self.states: dict[str, Any] = {}

    def base(self, blobs: int, large: Sequence[int]) -> None:
        """A year of uploads."""
        self._live(blobs, large, 365)
        shutil.copyfile(self._path, self._directory / "base.fs")
        self._note("base", None)
        shutil.copyfile(self._blobs / ".layout", self._directory / BASE / ".layout")
        (self._directory / BASE / "tmp").mkdir()

    def grow(self, state: str, blobs: int, days: int) -> None:
        """Some more blobs."""
        start = int(self._storage.getSize())
        self._live(blobs, (), days)
        self._note(state, cut_tail(self._path, start, self._directory / f"{state}.tail"))

    def pack(self) -> list[str]:
        """Pack away all that is garbage; gives the blobs that it dropped."""
        self._db.pack(t=self._now.timestamp())
        shutil.copyfile(self._path, self._directory / "packed.fs")
        dropped = self._seen - set(blob_files(self._blobs))
        self._seen -= dropped
        self._note("packed", None)
        return sorted(dropped)

    def close(self) -> None:
        """Close the database; what is left of the work is removed."""
        transaction.abort()
        self._db.close()
        shutil.rmtree(self._path.parent)

    def _live(self, blobs: int, large: Sequence[int], days: int) -> None:
        self._uploads.forget_numbers()
        for deed in plan(self._rng, blobs, large, self._now, days):
            self._now = deed.when
            self._uploads.do(deed)

    def _note(self, state: str, tail: Path | None) -> None:
        """Keep the blobs that are new, and say what the state is."""
        new = [path for path in blob_files(self._blobs) if path not in self._seen]
        for path in new:
            target = self._directory / f"{state}.blobs" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(self._blobs / path, target)
        self._seen.update(new)
        sizes = [(self._blobs / path).stat().st_size for path in new]
        known = describe(self._path, tail)
        blobs = {"blobs": len(self._seen), "new_blobs": len(new), "new_blob_bytes": sum(sizes)}
        self.states[state] = known | blobs


def build(directory: Path, blobs: int, large: Sequence[int], seed: int) -> None:
    """Write the states of a site."""
    shutil.rmtree(directory, ignore_errors=True)
    maker = Maker(directory, seed)
    maker.base(blobs, large)
    maker.grow("small", SMALL, 1)
    maker.grow("grown", max(blobs // 100, 1), 3)
    dropped = maker.pack()
    maker.grow("again", SMALL, 1)
    maker.close()
    for path in directory.glob("*.fs"):
        index(path)
    everything = {
        "version": VERSION,
        "states": maker.states,
        "statistics": measure(directory / BASE),
        "dropped": dropped,
    }
    write_json(directory / "states.json", everything)


def measure(blobs: Path) -> dict[str, int]:
    """Count blobs: what a reader needs in order to trust the data; sizes in bytes."""
    paths = list(blob_files(blobs))
    sizes = sorted((blobs / path).stat().st_size for path in paths)
    return {
        "blobs": len(sizes),
        "bytes": sum(sizes),
        "minutes": len({Path(path).stem[2:10] for path in paths}),
        "blob_median": sizes[len(sizes) // 2],
        "blob_p90": sizes[len(sizes) * 9 // 10],
        "blob_p99": sizes[len(sizes) * 99 // 100],
        "blob_max": sizes[-1],
    }


def ensure(data: Path, blobs: int, large: str, seed: int) -> Path:
    """Give the directory of a data set, building what is missing."""
    directory = data / f"blobs-{blobs}-{large}-{seed}"
    states = directory / "states.json"
    known = json.loads(states.read_text()) if states.exists() else {}
    if known.get("version") != VERSION or not has_blobs(directory):
        started = time.monotonic()
        print(f"building {directory}", flush=True)
        build(directory, blobs, parse_large(large), seed)
        print(f"  took {time.monotonic() - started:.0f} s", flush=True)
    return directory


def main() -> None:
    """Build a data set and print its statistics."""
    parser = argparse.ArgumentParser(description="Build a site of many blobs in some states.")
    parser.add_argument("--blobs", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--large", default="8x64M", help="among them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("BENCH_DATA", "bench/data"))
    )
    arguments = parser.parse_args()
    directory = ensure(arguments.data, arguments.blobs, arguments.large, arguments.seed)
    known = json.loads((directory / "states.json").read_text())
    for name, state in known["states"].items():
        print(f"{name:8} {state['size']:>14,} bytes  {state['blobs']:>9,} blobs")
    for name, value in known["statistics"].items():
        print(f"{name:20} {value:>14,}")


if __name__ == "__main__":
    main()
