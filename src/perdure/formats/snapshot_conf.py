"""``config/snapshot.conf`` of a DirectoryStorage: how a running storage is asked to keep still.

One method on each line, in words between blanks; the first that works is used::

    http URL ACCESSFILE     XML-RPC with a DirectoryStorageToolkit in Zope, with user:password from the first
                            line of ACCESSFILE (relative to the folder of this file)
    direct                  open the storage itself: only when no process has it open
    nodirect                do not end with "direct", as is done otherwise
    zeo ADDRESS [STORAGE]   ask a ZEO server; ADDRESS is HOST:PORT or the path of a socket, STORAGE is 1
    live                    ask nobody: read what is committed while the storage goes on

``zeo`` and ``live`` are ours; DirectoryStorage's own tool passes over lines that it does not know, and
says so, and so do we. Blank lines and comments (``#``) are passed over without a word.

Source: DirectoryStorage 1.1.21.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Http:
    """Ask Zope over XML-RPC."""

    url: str
    access_file: str


@dataclass(frozen=True, slots=True)
class Zeo:
    """Ask a ZEO server; ``address`` is a socket's path, or HOST:PORT."""

    address: str
    storage: str = "1"


@dataclass(frozen=True, slots=True)
class Direct:
    """Open the storage ourselves."""


@dataclass(frozen=True, slots=True)
class Live:
    """Read beside the storage, without its help."""


Method = Http | Zeo | Direct | Live


@dataclass(frozen=True, slots=True)
class SnapshotConf:
    """The methods in their order, and the lines that were not understood."""

    methods: tuple[Method, ...] = (Direct(),)
    complaints: tuple[str, ...] = ()


def parse(text: str, where: str) -> SnapshotConf:
    """Read the file. "direct" is added at the end, unless a line has it or forbids it."""
    methods: list[Method] = []
    complaints = []
    may_add = True
    for number, line in enumerate(text.splitlines(), 1):
        match line.split():
            case [] | ["#", *_]:
                pass
            case ["http", url, access_file]:
                methods.append(Http(url, access_file))
            case ["zeo", address]:
                methods.append(Zeo(address))
            case ["zeo", address, storage]:
                methods.append(Zeo(address, storage))
            case ["direct"]:
                methods.append(Direct())
            case ["live"]:
                methods.append(Live())
            case ["nodirect"]:
                may_add = False
            case [first, *_] if first.startswith("#"):
                pass
            case _:
                complaints.append(
                    f"malformed line {number} of {where} is passed over: {line.strip()}"
                )
    if may_add and Direct() not in methods:
        methods.append(Direct())
    return SnapshotConf(tuple(methods), tuple(complaints))
