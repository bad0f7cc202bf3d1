"""Write a data file of a repository: hash, compress and write beside reading, in one pass."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from perdure.dropin.repozo.folder import NewFile
from perdure.dropin.repozo.lane import Lane
from perdure.formats.repozo import DataName, Line
from perdure.pool import Pool

_SYNC_EVERY = 64 << 20


class NewPiece:
    """A data file that is being written, plain or gzip; it gets its name later."""

    def __init__(self, folder: Path, name: DataName, start: int) -> None:
        self.name, self.start, self.end = name, start, start
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashing = Lane()
        self.file = NewFile(folder, str(name))
        self._body = _Gzip(self.file) if name.zipped else _Plain(self.file)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the database. Raises OSError."""
        self._hashing.submit(len(data), self._md5.update, data)
        self._body.write(data)
        self.end += len(data)

    def finish(self) -> Line:
        """Have it whole on the disk; gives its line for the .dat. Raises OSError."""
        self._body.finish()
        self._hashing.settle()
        self.file.finish()
        return Line(str(self.name), self.start, self.end, self._md5.hexdigest())

    def close(self) -> None:
        """End the threads; a file without its name disappears."""
        self._hashing.close()
        self._body.close()
        self.file.close()


class _Plain:
    """Writes bytes as they are, and has them on the disk by and by, so that the end is no long wait."""

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._writing = Lane()
        self._unsynced = 0

    def write(self, data: bytes | memoryview) -> None:
        self._writing.submit(len(data), self._append, data)

    def _append(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_EVERY:
            os.fdatasync(self._file.descriptor)
            self._unsynced = 0

    def finish(self) -> None:
        self._writing.settle()

    def close(self) -> None:
        self._writing.close()


class _Gzip:
    """Compresses blocks side by side and writes them in order, as one gzip member."""

    def __init__(self, file: NewFile) -> None:
        from perdure.formats.gzip_member import Member

        self._member = Member()
        self._out = _Plain(file)
        self._compressing = Pool()
        self._jobs: deque[Future[tuple[bytes, int, int]]] = deque()
        self._most = 2 * (os.cpu_count() or 1) + 2
        self._before = b""
        self._out.write(self._member.header)

    def write(self, data: bytes | memoryview) -> None:
        from perdure.formats.gzip_member import BLOCK, DICTIONARY, compress

        for start in range(0, len(data), BLOCK):
            block = memoryview(data)[start : start + BLOCK]
            if len(self._jobs) >= self._most:
                self._write_next()
            job = (block, self._before)
            self._jobs.append(self._compressing.submit(len(block), lambda job: compress(*job), job))
            self._before = bytes(block[-DICTIONARY:])

    def _write_next(self) -> None:
        packed, crc, size = self._jobs.popleft().result()
        self._member.note(crc, size)
        self._out.write(packed)

    def finish(self) -> None:
        while self._jobs:
            self._write_next()
        self._out.write(self._member.trailer())
        self._out.finish()

    def close(self) -> None:
        self._compressing.close()
        self._out.close()
