"""Messages of the old ZEO protocols (ZODB 3.3 to 3.10), as far as a call of a method needs them.

A message is its length (4 bytes, big-endian; the highest bit is set where a MAC follows, which is not
spoken here) and its content. The server's first message is the name of its protocol, ``Z308`` say; who
echoes it has agreed. All that follow are pickles of ``(number, flags, method, arguments)``; the answer
has the same number, the method ``.reply`` and in the place of the arguments the result, or a pair of
class and instance of an exception. Flag 1 marks a message that wants no answer, such as the server's
invalidations.

What a server sends is not unpickled: its opcodes are walked, plain values are kept, and whatever would import
or call something becomes an ``Opaque`` with that thing's name.

Source: ZEO of ZODB3 3.8.6 and 3.10.7.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from typing import Any

from perdure.errors import StoreError

LENGTH_BYTES = 4
MOST_BYTES = 1 << 20
"""Bytes of the largest message that is read; answers to what is asked here have a few hundred."""
REPLY = ".reply"

_PROTOCOL = re.compile(rb"Z3\d{2,3}")
_MARK = object()
_MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that unpickling would have imported or called: its name, and what it was given."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What a server says: to which call, and the result."""

    number: int
    flags: int
    method: str
    content: Any

    @property
    def failure(self) -> str | None:
        """The exception that the call ended with, as ``Name: text``; None: it went well."""
        match self.content:
            case (Opaque(name=name), Opaque() as error) if self.method == REPLY:
                text = max(
                    _texts(error), key=len, default=""
                )  # beside it stand names of attributes
                return f"{name.rpartition('.')[2]}: {text}" if text else name
            case _:
                return None


def frame(content: bytes) -> bytes:
    """Give a message with its length before it."""
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def frame_size(head: bytes) -> int:
    """Read the length of a message. Raises StoreError."""
    size = int.from_bytes(head, "big")
    if size >> 31:
        raise StoreError("the ZEO server signs its messages, which is not spoken here")
    if size > MOST_BYTES:
        raise StoreError(f"this is no ZEO server of the old kind: a message of {size} bytes")
    return size


def agree(greeting: bytes) -> bytes:
    """Give what answers the server's first message. Raises StoreError for a protocol that is not spoken."""
    if _PROTOCOL.fullmatch(greeting) is None:
        raise StoreError(
            f"the server greets with {greeting[:20]!r}, which is no ZEO protocol of ZODB 3.3 to 3.10"
        )
    return greeting


def encode_call(number: int, method: str, *arguments: str | int) -> bytes:
    """Give the content of a message that calls a method. Texts are short, and of ASCII."""
    parts = b"".join(_encode(value) for value in arguments)
    return b"(%b%b%b(%btt." % (_encode(number), _encode(0), _encode(method), parts)


def decode(content: bytes) -> Message:
    """Read the content of a message. Raises StoreError."""
    match _walk(content):
        case (int(number), int(flags), str(method), answer):
            return Message(number, flags, method, answer)
        case _:
            raise StoreError("the ZEO server sent something that is no message")


def _encode(value: str | int) -> bytes:
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    text = value.encode("ascii")
    return b"U" + len(text).to_bytes(1, "big") + text


def _texts(value: Any) -> list[str]:
    """List the texts inside a value; the first ones, where it has very many parts."""
    texts, to_do = [], [value]
    for _ in range(_MOST_PARTS):
        if not to_do:
            break
        part = to_do.pop()
        if isinstance(part, Opaque):
            to_do.append(part.arguments)
        elif isinstance(part, tuple):
            to_do += part
        elif isinstance(part, str):
            texts.append(part)
    return texts


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FROM_MARK = {"TUPLE", "LIST", "DICT"}
_CALLS = {"REDUCE", "NEWOBJ", "BUILD"}
_INTO = {"APPEND": 1, "SETITEM": 2}
_VALUES = re.compile(r"(SHORT_)?BIN(STRING|UNICODE|INT[12]?|FLOAT)|STRING|UNICODE|INT|LONG1?|FLOAT")


class _Machine:
    """A pickle's stack and memo; lists and dictionaries are tuples here, since all that matters is inside."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says. Raises StoreError, IndexError, KeyError, ValueError."""
        stack = self.stack
        if _VALUES.fullmatch(name):
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            self._take(_TUPLES[name])
        elif name in _FROM_MARK:
            stack.append(self._since_mark())
        elif name == "GLOBAL":
            stack.append(Opaque(argument.replace(" ", ".")))
        else:
            self._combine(name, argument)

    def _combine(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CALLS:
            given, what = stack.pop(), stack.pop()
            known = what if isinstance(what, Opaque) else Opaque("", (what,))
            stack.append(Opaque(known.name, (*known.arguments, given)))
        elif name in {"INST", "OBJ"}:
            given = self._since_mark()
            stack.append(Opaque(str(argument or "").replace(" ", "."), given))
        elif name in _INTO:
            self._take(_INTO[name])
            added = stack.pop()
            stack.append((*stack.pop(), *added))
        elif name in {"APPENDS", "SETITEMS"}:
            added = self._since_mark()
            stack.append((*stack.pop(), *added))
        elif "PUT" in name:
            self._memo[int(argument)] = stack[-1]
        elif "GET" in name:
            stack.append(self._memo[int(argument)])
        elif name == "POP":
            stack.pop()
        elif name not in {"PROTO", "STOP"}:
            raise StoreError(
                f"the ZEO server's message has the opcode {name}, which none should have"
            )

    def _take(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _since_mark(self) -> tuple[Any, ...]:
        start = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        taken = tuple(self.stack[start + 1 :])
        del self.stack[start:]
        return taken


def _walk(content: bytes) -> Any:
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.step(opcode.name, argument)
        (value,) = machine.stack
    except (ValueError, IndexError, KeyError, TypeError):
        raise StoreError("the ZEO server's message cannot be read") from None
    return value
