"""The text forms of Go's standard library that a repository has: JSON, quoted strings, times.

restic compares a tree by the hash of its JSON, so what it would write has to be written to the
byte.

JSON (``encoding/json``): no white space, fields in the order of the declaration, UTF-8, and in
strings

=====================  ================================================================
character              written as
=====================  ================================================================
``"`` ``\\``             a backslash before it
\\b \\f \\n \\r \\t         these two characters (Go before 1.22 wrote \\b, \\f as \\u0008, \\u000c)
others below U+0020    ``\\u00`` and two lower-case hexadecimal digits
``<`` ``>`` ``&``        ``\\u003c`` ``\\u003e`` ``\\u0026``
U+2028, U+2029         ``\\u2028`` ``\\u2029``
a byte not UTF-8       ``\\ufffd``
=====================  ================================================================

Quoted strings (``strconv.Quote``, without its quotes): printable characters stand for themselves,
``"`` and the backslash get a backslash, ``\\a \\b \\f \\n \\r \\t \\v`` have their letters, other
control characters and each byte that is not UTF-8 are ``\\x`` and two digits, what else is not
printable is ``\\u`` and four or ``\\U`` and eight digits, all lower-case. Printable are letters,
marks, numbers, punctuation, symbols and the ASCII space; the set follows the version of Unicode.

Times (``time.RFC3339Nano``): ``2006-01-02T15:04:05.999999999Z07:00``, the fraction without trailing
zeros and left out when it is zero, the years 0000 to 9999.

In Python a string that may hold bytes which are not UTF-8 has them as U+DC80 to U+DCFF, as
``surrogateescape`` makes them.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from perdure.errors import RepositoryDamaged

T = TypeVar("T")

_HTML = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))
_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))

_LETTERS = {7: "a", 8: "b", 12: "f", 10: "n", 13: "r", 9: "t", 11: "v", 34: '"', 92: "\\"}
_CODES = {letter: bytes([code]) for code, letter in _LETTERS.items()}
_ESCAPE = re.compile(
    r'\\(?:([abfnrtv"\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))'
)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = -62167219200  # 0000-01-01T00:00:00Z
_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z
_DAYS_OF_400_YEARS = 146097


def encode_json(value: object) -> bytes:
    """Write a value (msgspec structs, lists) as Go's encoder does, without a newline."""
    text = msgspec.json.encode(value)
    for raw, escaped in _HTML:
        if raw in text:
            text = text.replace(raw, escaped)
    if b"\xe2\x80" in text:
        for raw, escaped in _LINE_ENDS:
            text = text.replace(raw, escaped)
    return text


def decode_json(text: bytes | memoryview, form: type[T], where: str) -> T:
    """Read JSON into ``form``. Raises RepositoryDamaged, naming ``where``."""
    try:
        return msgspec.json.decode(text, type=form)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RepositoryDamaged(f"{where} cannot be read: {error}") from None


def quote(text: str) -> str:
    """Give the quoted form of a string, without the quotes around it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(_quoted, text))


def _quoted(char: str) -> str:
    code = ord(char)
    if code in _LETTERS:
        return "\\" + _LETTERS[code]
    if char.isprintable():
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(text: str) -> str:
    """Undo `quote`. Raises ValueError if the text is not the inside of a Go string."""
    if "\\" not in text:
        return text
    raw = bytearray()
    position = 0
    while (slash := text.find("\\", position)) >= 0:
        raw += text[position:slash].encode("utf-8", "surrogateescape")
        match = _ESCAPE.match(text, slash)
        if not match:
            raise ValueError(f"{text!r} is not a quoted string")
        raw += _unescaped(*match.groups())
        position = match.end()
    raw += text[position:].encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "surrogateescape")


def _unescaped(
    letter: str | None, byte: str | None, short: str | None, long: str | None, octal: str | None
) -> bytes:
    if letter:
        return _CODES[letter]
    if byte:
        return bytes([int(byte, 16)])
    if octal:
        return bytes([int(octal, 8)])
    try:
        return chr(int(short or long or "", 16)).encode()
    except (OverflowError, ValueError):
        raise ValueError(f"U+{short or long} is no character") from None


def format_time(nanoseconds: int) -> str:
    """Give the text form, in UTC, of nanoseconds since 1970, kept within the years 0 to 9999."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = _format_second(min(max(seconds, _FIRST_SECOND), _LAST_SECOND))
    if fraction:
        text += f".{fraction:09d}".rstrip("0")
    return text + "Z"


@functools.lru_cache(maxsize=1 << 14)  # the files of a tree have few seconds among them
def _format_second(seconds: int) -> str:
    year_offset = 0
    if seconds < _FIRST_SECOND + 366 * 86400:  # Python's calendar lacks the year 0
        seconds += _DAYS_OF_400_YEARS * 86400
        year_offset = 400
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.year - year_offset:04d}{moment.isoformat()[4:19]}"


def parse_time(text: str) -> int:
    """Give the nanoseconds since 1970 of a time in text form. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a time")
    body, fraction, offset = match.groups()
    year_offset = 0
    if body.startswith("0000"):
        body, year_offset = f"0400{body[4:]}", _DAYS_OF_400_YEARS * 86400
    moment = datetime.fromisoformat(body + ("+00:00" if offset == "Z" else offset))
    whole = (moment - _EPOCH) // timedelta(seconds=1) - year_offset
    return whole * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def format_moment(time: datetime) -> str:
    """Give the text form, in UTC, of an aware datetime."""
    micros = (time - _EPOCH) // timedelta(microseconds=1)
    return format_time(micros * 1000)


def parse_moment(text: str) -> datetime:
    """Give the UTC datetime (to the microsecond) of a time in text form. Raises ValueError."""
    micros = max(parse_time(text) // 1000, -62135596800_000_000)
    return _EPOCH + timedelta(microseconds=micros)
