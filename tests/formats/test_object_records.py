"""What a record tells of its object, beside what ZODB and Python's own unpickler make of it."""

from __future__ import annotations

import io
import pickle
import random
import zlib
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from persistent import Persistent
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from ZODB.blob import Blob
from ZODB.DB import DB
from ZODB.MappingStorage import MappingStorage
from ZODB.serialize import ObjectWriter, get_refs, referencesf
from ZODB.utils import p64, u64

from perdure.errors import DamageFound
from perdure.formats.object_records import (
    UNKNOWN,
    Reference,
    read_class,
    read_record,
    unwrapped,
)
from perdure.formats.pickles import Name, Walk


class Plain(Persistent):
    """An object."""


class WithArguments(Persistent):
    """Of such an object a reference has the oid alone."""

    def __getnewargs__(self) -> tuple[int]:
        return (7,)

    def __new__(cls, number: int = 7) -> Self:
        return super().__new__(cls)


OID = p64(0x1234)
CLASS = b"cmodule\nName\n"
NOTHING = b"}."

# What comes first describes the class, then the state; both as some Python wrote them.
RECORDS: dict[str, tuple[bytes, str, list[Reference]]] = {
    "a class": (b"(cmodule\nName\nq\1Nt." + NOTHING, "module.Name", []),
    "the class alone": (CLASS + b"." + NOTHING, "module.Name", []),
    "with arguments": (b"\x80\x03" + CLASS + b"q\0K\7\x85q\1\x86q\2." + NOTHING, "module.Name", []),
    "two strings": (b"((U\6moduleU\4NametNt." + NOTHING, "module.Name", []),
    "protocol 4": (b"\x80\x04\x8c\6module\x94\x8c\4Name\x94\x93\x94." + NOTHING, "module.Name", []),
    "a persistent class": (
        b"(U\x08" + OID + b"QNt." + NOTHING,
        UNKNOWN,
        [Reference(0x1234)],
    ),
    "an oid": (CLASS + b".U\x08" + OID + b"Q.", "module.Name", [Reference(0x1234)]),
    "an oid of Python 3": (CLASS + b".C\x08" + OID + b"Q.", "module.Name", [Reference(0x1234)]),
    "an oid of ASCII": (
        CLASS + b".X\x08\0\0\0\0\0\0\0\0\0\0\x01Q.",
        "module.Name",
        [Reference(1)],
    ),
    "an oid on a line": (CLASS + b".PABCDEFGH\n.", "module.Name", [Reference(0x4142434445464748)]),
    "an escaped oid": (
        CLASS + b".S'\\x00\\x00\\x00\\x00\\x00\\x00\\x124'\nQ.",
        "module.Name",
        [Reference(0x1234)],
    ),
    "with its class": (
        CLASS + b".(U\x08" + OID + b"cother\nThing\ntQ.",
        "module.Name",
        [Reference(0x1234, class_name="other.Thing")],
    ),
    "with a class of the first pickle": (
        b"cmodule\nName\nq\1." + b"(U\x08" + OID + b"h\1tQ.",
        "module.Name",
        [Reference(0x1234, class_name="module.Name")],
    ),
    "weak": (
        CLASS + b".](U\1w(U\x08" + OID + b"teQ.",
        "module.Name",
        [Reference(0x1234, weak=True)],
    ),
    "weak as it was": (
        CLASS + b".]U\x08" + OID + b"aQ.",
        "module.Name",
        [Reference(0x1234, weak=True)],
    ),
    "weak, elsewhere": (
        CLASS + b".](U\1w(U\x08" + OID + b"U\5otherteQ.",
        "module.Name",
        [Reference(0x1234, weak=True, database="other")],
    ),
    "elsewhere": (
        CLASS + b".](U\1n(U\5otherU\x08" + OID + b"teQ.",
        "module.Name",
        [Reference(0x1234, database="other")],
    ),
    "elsewhere with its class": (
        CLASS + b".](U\1m(U\5otherU\x08" + OID + b"ca\nB\nteQ.",
        "module.Name",
        [Reference(0x1234, database="other", class_name="a.B")],
    ),
}


@pytest.mark.parametrize("case", RECORDS)
def test_records(case: str) -> None:
    data, class_name, references = RECORDS[case]
    assert read_record(data) == (class_name, references)
    assert read_class(data) == class_name
    assert read_record(b".z" + zlib.compress(data)) == (class_name, references)
    assert read_record(data + b"what follows is not looked at").references == references


@pytest.mark.parametrize("case", RECORDS)
def test_records_that_are_cut_short(case: str) -> None:
    data = RECORDS[case][0]
    for end in range(len(data)):
        with pytest.raises(DamageFound):
            read_record(data[:end])


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (b"\xff.", "an opcode that is none"),
        (b"h\5.", "asks for what is not there"),
        (b".", "not there"),
        (b"t.", "not there"),
        (b"(U\1a\x86.", "a tuple of what is not there"),
        (b"NR.", "not there"),
        (b"(U\1aUNQ.", "cut short"),
        (b"U\7toshortQ.", "without an oid"),
        (b"NQ.", "a persistent id that is none"),
        (b"](U\1z(U\x08" + OID + b"teQ.", "unknown kind"),
        (b"](U\1n(NU\x08" + OID + b"teQ.", "without a name"),
        (b"T\xff\xff\xff\xff", "cut short"),
        (b"\x8d" + b"\xff" * 8, "cut short"),
        (b"NN\x93.", "a class without a name"),
        (b"Sno quotes\n.", "without quotes"),
        (b"gx\n.", "invalid literal"),
    ],
)
def test_broken_states(state: bytes, why: str) -> None:
    with pytest.raises(DamageFound, match=why):
        read_record(CLASS + b"." + state)


def test_what_is_nested_deep_is_no_danger() -> None:
    depth = 200_000
    assert read_record(b"N" + b"\x85" * depth + b".N.").class_name == UNKNOWN
    assert (
        read_record(CLASS + b"." + b"]" + b"]a" * 5 + b"N" + b"\x85" * depth + b".").references
        == []
    )


@pytest.mark.parametrize("data", [b".zno zlib", b".z" + zlib.compress(b"NN" * 100)[:-9]])
def test_compressed_data_that_is_damaged(data: bytes) -> None:
    with pytest.raises(DamageFound, match="compressed data"):
        unwrapped(data)
    assert read_class(data) == UNKNOWN


def test_encrypted_records_tell_nothing() -> None:
    assert read_class(b".e????") == UNKNOWN


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.just(Persistent)
    | st.complex_numbers(allow_nan=False)
    | st.integers(1, 1 << 62).map(lambda oid: ("oid", oid)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=3)
        | st.sets(st.binary(max_size=3), max_size=3)
    ),
    max_leaves=12,
)


class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Python's own, which writes any protocol."""

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, tuple) and len(obj) == 2 and obj[0] == "oid":
            return (p64(obj[1]), Persistent) if obj[1] % 2 else p64(obj[1])
        return None


@given(values, st.integers(1, 5))
def test_whatever_python_pickles(value: object, protocol: int) -> None:
    file = io.BytesIO()
    pickler = Pickler(file, protocol)
    pickler.dump(Persistent)
    pickler.dump(value)
    wanted: list[int] = []

    class Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
        def persistent_load(self, pid: Any) -> None:
            wanted.append(int.from_bytes(pid[0] if isinstance(pid, tuple) else pid, "big"))

    unpickler = Unpickler(io.BytesIO(file.getvalue()))
    unpickler.load()
    unpickler.load()
    found = read_record(file.getvalue())
    assert found.class_name.rpartition(".")[2] == "Persistent"
    assert [reference.oid for reference in found.references] == wanted


@given(
    st.recursive(st.text(max_size=5) | st.binary(min_size=1, max_size=9), st.lists),
    st.integers(0, 5),
)
def test_texts_and_lists_are_as_python_has_them(value: object, protocol: int) -> None:
    def shaped(each: object) -> object:
        if isinstance(each, list):
            return [shaped(inner) for inner in each]
        return each.encode() if isinstance(each, str) else each

    data = pickle.dumps(value, protocol)
    assert Walk(data, lambda pid: pid).pickle("value") == shaped(value)


def test_a_name_is_no_tuple_of_strings() -> None:
    assert Walk(CLASS + b".", lambda pid: pid).pickle("class") == Name(b"module", b"Name")


def object_graph(seed: int) -> tuple[list[bytes], dict[int, type]]:
    """The records of some random objects, written by ZODB, and the class of each oid."""
    random_ = random.Random(seed)
    database = DB(MappingStorage())
    connection = database.open()
    kinds = (PersistentMapping, Plain, WithArguments, Blob)
    objects: list[Any] = [random_.choice(kinds)() for _ in range(20)]
    for each in objects:
        connection.add(each)
    records = []
    for each in objects:
        if not isinstance(each, Blob):
            for number in range(random_.randint(0, 6)):
                other = random_.choice(objects)
                value = random_.choice(
                    [other, [other, "text", 1.5], WeakRef(other), {"key": (other,)}]
                )
                if isinstance(each, PersistentMapping):
                    each[f"key {number}"] = value
                else:
                    setattr(each, f"name{number}", value)
        records.append(ObjectWriter(each).serialize(each))
    kinds_of = {u64(each._p_oid): type(each) for each in objects}
    database.close()
    return records, kinds_of


@pytest.mark.parametrize("seed", range(20))
def test_random_objects_refer_to_what_zodb_says(seed: int) -> None:
    weak = 0
    records, kinds = object_graph(seed)
    for data in records:
        found = read_record(data)
        strong = [reference for reference in found.references if not reference.weak]
        weak += len(found.references) - len(strong)
        oids = [reference.oid for reference in strong]
        assert [p64(oid) for oid in oids] == referencesf(data)
        assert oids == [u64(oid) for oid, _ in get_refs(data)]
        for each in strong:
            kind = kinds[each.oid]
            name = f"{kind.__module__}.{kind.__name__}"
            assert each.class_name == (UNKNOWN if hasattr(kind, "__getnewargs__") else name)
    assert weak


@given(st.binary(max_size=60))
def test_anything_else_is_broken_or_not_but_never_more(data: bytes) -> None:
    try:
        read_record(data)
    except DamageFound:
        return


@pytest.mark.parametrize("seed", range(5))
def test_a_byte_that_changed_does_no_harm(seed: int) -> None:
    random_ = random.Random(seed)
    for data in object_graph(seed)[0]:
        for _ in range(40):
            changed = bytearray(data)
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
            try:
                read_record(bytes(changed))
            except DamageFound:
                continue
