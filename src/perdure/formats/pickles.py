"""Walk through a pickle's opcodes without making what it describes: what is on the stack, and no more.

Opcodes (protocols 0 to 5) are followed as an unpickler would, but nothing is imported, called or made: the
stack holds short texts (as bytes), tuples, lists, names of classes, what became of persistent ids, and None
for everything else. A call of ``_codecs.encode``, by which Python 3 writes bytes in protocols 0 to 2, is
the one that is understood. What an unpickler could not follow - no STOP, an unknown opcode, too few
values on the stack, a memo entry that nobody wrote - is a broken pickle. Time and memory are linear in the
pickle's length.

==============================  ===============================================================
opcodes                         what is done
==============================  ===============================================================
constants, numbers, EXT         None is pushed
strings, bytes                  their bytes are pushed, up to 1 KiB (unicode as UTF-8), else None
tuples, lists, MARK, POP, DUP   as they are meant
PUT, GET, MEMOIZE               as they are meant; the memo goes on from pickle to pickle
GLOBAL, STACK_GLOBAL            module and name are pushed
REDUCE, NEWOBJ, INST, OBJ       what they need is taken off, None is pushed
BUILD, SETITEM, ADDITEMS ...    what they need is taken off
PERSID, BINPERSID               whoever walks says what a persistent id becomes
PROTO, FRAME                    skipped
==============================  ===============================================================

Source: pickletools of Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from perdure.errors import DamageFound

_TEXT_LIMIT = 1024
"""Bytes of the longest text that is kept: oids, names of classes and databases are shorter."""


class Name(NamedTuple):
    """A class or function, as a pickle names it."""

    module: bytes
    name: bytes


Value: TypeAlias = Any
"""bytes, Name, a tuple or list of values, what became of a persistent id, or None."""


class Walk:
    """Walks through pickles that lie one behind the other; each ``_on_`` method is what some opcodes do.

    ``refer`` is given each persistent id, and may raise ValueError.
    """

    __slots__ = ("at", "data", "memo", "outer", "refer", "stack")

    def __init__(self, data: bytes, refer: Callable[[Value], Value]) -> None:
        self.data, self.at, self.refer = data, 0, refer
        self.memo: dict[int, Value] = {}

    def pickle(self, what: str) -> Value:
        """Walk through the next pickle; gives what it makes. Raises DamageFound."""
        self.stack: list[Value] = []
        self.outer: list[list[Value]] = []
        try:
            return self._walk()
        except (IndexError, KeyError, ValueError) as error:
            why = "its pickle is cut short" if self.at >= len(self.data) else _why(error)
            raise DamageFound(
                f"the pickle of its {what} is broken before byte {self.at}: {why}"
            ) from None

    def _walk(self) -> Value:
        """Do opcode after opcode; the frequent ones here, all others in methods."""
        data, memo, at = self.data, self.memo, self.at
        stack = self.stack
        while True:
            self.at = at
            code = data[at]
            kind, width = _KINDS[code], _WIDTHS[code]
            at += 1
            if kind == _OPAQUE:
                at += width
                stack.append(None)
            elif kind == _TEXT:
                begin = at + width
                at = begin + int.from_bytes(data[at:begin], "little")
                stack.append(data[begin:at] if at - begin <= _TEXT_LIMIT else None)
            elif kind == _PUT:
                memo[int.from_bytes(data[at : at + width], "little")] = stack[-1]
                at += width
            elif kind == _GET:
                stack.append(memo[int.from_bytes(data[at : at + width], "little")])
                at += width
            elif kind == _STOP:
                value = stack.pop()
                self.at = at
                return value
            else:
                self.at = at + width
                _METHODS[code](self)
                at, stack = self.at, self.stack

    def _on_nothing(self) -> None:
        """PROTO, FRAME: no value comes or goes."""

    def _on_mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Value]:
        since, self.stack = self.stack, self.outer.pop()
        return since

    def _on_tuple(self) -> None:
        since = self._since_mark()
        self.stack.append(tuple(since))

    def _on_tuple_of(self) -> None:
        """TUPLE1, TUPLE2, TUPLE3; the opcode's lowest bits tell how many."""
        count = self.data[self.at - 1] - 0x84
        parts = tuple(self.stack[-count:])
        if len(parts) < count:
            raise ValueError("a tuple of what is not there")
        self.stack[-count:] = [parts]

    def _on_empty_tuple(self) -> None:
        self.stack.append(())

    def _on_empty_list(self) -> None:
        self.stack.append([])

    def _on_list(self) -> None:
        since = self._since_mark()
        self.stack.append(since)

    def _on_append(self) -> None:
        self._extend([self.stack.pop()])

    def _on_appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Value]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += values

    def _on_collection(self) -> None:
        """DICT, FROZENSET: of all since the mark."""
        self._since_mark()
        self.stack.append(None)

    def _on_fill(self) -> None:
        """SETITEMS, ADDITEMS: into what is below the mark."""
        self._since_mark()
        _ = self.stack[-1]

    def _on_set_item(self) -> None:
        self._drop(2)
        _ = self.stack[-1]

    def _on_build(self) -> None:
        self.stack.pop()
        _ = self.stack[-1]

    def _drop(self, count: int) -> list[Value]:
        dropped = [self.stack.pop() for _ in range(count)]
        dropped.reverse()
        return dropped

    def _on_new_object(self) -> None:
        self._drop(2)
        self.stack.append(None)

    def _on_new_object_ex(self) -> None:
        self._drop(3)
        self.stack.append(None)

    def _on_obj(self) -> None:
        _ = self._since_mark()[0]
        self.stack.append(None)

    def _on_inst(self) -> None:
        self._line()
        self._line()
        self._on_collection()

    def _on_reduce(self) -> None:
        function, arguments = self._drop(2)
        made: Value = None
        if function == (b"_codecs", b"encode") and isinstance(arguments, tuple):
            match arguments:
                case (bytes() as text, bytes()):
                    made = text.decode("utf-8", "surrogatepass").encode("latin-1")
        self.stack.append(made)

    def _on_global(self) -> None:
        self.stack.append(Name(self._line(), self._line()))

    def _on_stack_global(self) -> None:
        module, name = self._drop(2)
        if {type(module), type(name)} != {bytes}:
            raise ValueError("a class without a name")
        self.stack.append(Name(module, name))

    def _on_pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def _on_pop_mark(self) -> None:
        self._since_mark()

    def _on_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _on_memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _on_put_line(self) -> None:
        self.memo[int(self._line())] = self.stack[-1]

    def _on_get_line(self) -> None:
        self.stack.append(self.memo[int(self._line())])

    def _on_persistent_id(self) -> None:
        self.stack.append(self.refer(self.stack.pop()))

    def _on_persistent_id_line(self) -> None:
        self.stack.append(self.refer(self._line()))

    def _on_number_line(self) -> None:
        self._line()
        self.stack.append(None)

    def _on_string_line(self) -> None:
        self.stack.append(_escaped(self._line()))

    def _on_unicode_line(self) -> None:
        self.stack.append(self._line().decode("raw-unicode-escape").encode("utf-8", "replace"))

    def _on_long(self) -> None:
        """LONG1, LONG4: a count, and so many bytes."""
        width = 1 if self.data[self.at - 1] == 0x8A else 4
        count = self.data[self.at : self.at + width]
        self.at += width + int.from_bytes(count, "little")
        self.stack.append(None)

    def _on_read_only(self) -> None:
        _ = self.stack[-1]

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            self.at = len(self.data)
            raise IndexError
        line, self.at = self.data[self.at : end], end + 1
        return line


def _escaped(line: bytes) -> bytes:
    """Read a string of protocol 0, which stands in quotes. Raises ValueError."""
    line = line.rstrip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    text = line[1:-1]
    if b"\\" not in text:
        return text
    return (
        text.decode("latin-1")
        .encode("latin-1", "backslashreplace")
        .decode("unicode-escape")
        .encode("latin-1")
    )


def _why(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return "an opcode that is none, or asks for what is not there"


_OTHER, _OPAQUE, _TEXT, _PUT, _GET, _STOP = range(6)
_METHODS: dict[int, Callable[[Walk], None]] = {
    ord("("): Walk._on_mark,
    ord("t"): Walk._on_tuple,
    ord(")"): Walk._on_empty_tuple,
    0x85: Walk._on_tuple_of,
    0x86: Walk._on_tuple_of,
    0x87: Walk._on_tuple_of,
    ord("]"): Walk._on_empty_list,
    ord("l"): Walk._on_list,
    ord("a"): Walk._on_append,
    ord("e"): Walk._on_appends,
    ord("d"): Walk._on_collection,
    0x91: Walk._on_collection,
    ord("u"): Walk._on_fill,
    0x90: Walk._on_fill,
    ord("s"): Walk._on_set_item,
    ord("b"): Walk._on_build,
    0x81: Walk._on_new_object,
    0x92: Walk._on_new_object_ex,
    ord("o"): Walk._on_obj,
    ord("i"): Walk._on_inst,
    ord("R"): Walk._on_reduce,
    ord("c"): Walk._on_global,
    0x93: Walk._on_stack_global,
    ord("0"): Walk._on_pop,
    ord("1"): Walk._on_pop_mark,
    ord("2"): Walk._on_dup,
    0x94: Walk._on_memoize,
    ord("p"): Walk._on_put_line,
    ord("g"): Walk._on_get_line,
    ord("Q"): Walk._on_persistent_id,
    ord("P"): Walk._on_persistent_id_line,
    ord("F"): Walk._on_number_line,
    ord("I"): Walk._on_number_line,
    ord("L"): Walk._on_number_line,
    ord("S"): Walk._on_string_line,
    ord("V"): Walk._on_unicode_line,
    0x8A: Walk._on_long,
    0x8B: Walk._on_long,
    0x80: Walk._on_nothing,
    0x95: Walk._on_nothing,
    0x98: Walk._on_read_only,
}
_SIMPLE: dict[int, tuple[bytes, ...]] = {
    # kind: opcodes with an argument of 0, 1, 2, 4 and 8 bytes
    _OPAQUE: (b"N}\x88\x89\x8f\x97", b"K\x82", b"M\x83", b"J\x84", b"G"),
    _TEXT: (b"", b"UC\x8c", b"", b"TBX", b"\x8d\x8e\x96"),
    _PUT: (b"", b"q", b"", b"r", b""),
    _GET: (b"", b"h", b"", b"j", b""),
    _STOP: (b".", b"", b"", b"", b""),
    _OTHER: (b"", b"\x80", b"", b"", b"\x95"),
}
_BY_CODE = {
    code: (kind, width)
    for kind, columns in _SIMPLE.items()
    for width, codes in zip((0, 1, 2, 4, 8), columns, strict=True)
    for code in codes
}
_KINDS = [_BY_CODE.get(code, (_OTHER, 0))[0] for code in range(256)]
_WIDTHS = [_BY_CODE.get(code, (_OTHER, 0))[1] for code in range(256)]
