"""What deviates from prediction comes back as it was, and nothing else is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import DamageFound
from perdure.formats.directorystorage import NO_MD5, RevisionFile, TransactionFile
from perdure.formats.directorystorage_particulars import (
    NO_POINTER,
    OLD_POINTER,
    USUAL_POINTER,
    HomeFacts,
    Particulars,
    RecordParticulars,
    Revision,
    decode,
    encode,
    file_name,
    particulars_of,
    revision_file,
    transaction_file,
)

NUMBERS = st.integers(0, (1 << 64) - 1)
TEXTS = st.binary(max_size=5)


@st.composite
def revisions(draw: st.DrawFn, oid: int, tid: int) -> Revision:
    before = draw(NUMBERS)
    made = RevisionFile(
        oid,
        tid,
        draw(st.sampled_from((before, 0, 7))),
        draw(st.binary(max_size=9)),
        draw(st.sampled_from((0, 0, 5))),
        NO_MD5,
        draw(st.sampled_from((bytes(16), bytes(range(16))))),
    )
    if draw(st.booleans()):
        made = replace(made, md5=made.computed_md5())
    return Revision(made, draw(st.sampled_from((USUAL_POINTER, OLD_POINTER, NO_POINTER))), before)


@given(st.data(), NUMBERS, st.lists(NUMBERS, unique=True, max_size=4), NUMBERS)
def test_every_file_comes_back(
    data: st.DataObject, tid: int, oids: list[int], previous: int
) -> None:
    found = [data.draw(revisions(oid, tid)) for oid in oids]
    texts = data.draw(st.tuples(TEXTS, TEXTS, TEXTS))
    said = TransactionFile(
        tid,
        data.draw(st.sampled_from((previous, 3))),
        *texts,
        oids=tuple(data.draw(st.sampled_from((oids, [*oids, 9], oids[:1])))),
    )
    if data.draw(st.booleans()):
        said = replace(said, md5=said.computed_md5())
    kept = said if data.draw(st.booleans()) else None
    known = particulars_of(tid, kept, previous, found)
    if known is not None:
        [known] = decode(encode([known]), "here")
    assert transaction_file(tid, texts, oids, previous, known) == kept
    own = {each.number: each for each in known.records} if known else {}
    for number, each in enumerate(found):
        file = each.file
        told = own.get(number)
        assert revision_file(file.oid, tid, file.data, each.before, told) == file
        assert (told.pointer if told else USUAL_POINTER) == each.pointer


def test_what_is_as_predicted_is_not_kept() -> None:
    file = RevisionFile(1, 2, 0, b"data")
    file = replace(file, md5=file.computed_md5())
    said = TransactionFile(2, 1, b"", b"", b"", (1,))
    said = replace(said, md5=said.computed_md5())
    assert particulars_of(2, said, 1, [Revision(file, USUAL_POINTER, 0)]) is None


MANY = [
    Particulars(3, previous=1, records=(RecordParticulars(0, prev=2), RecordParticulars(2))),
    Particulars(9, missing=True),
    Particulars(12, oids=(4, 5), records=(RecordParticulars(1, undo_from=3),)),
]


def test_names_tell_the_tids() -> None:
    assert decode(encode(MANY), "here") == MANY
    assert file_name(MANY) == "0000000000000003-000000000000000c.columns"


def test_damage_is_refused() -> None:
    whole = encode(MANY)
    for size in (0, 11, 30, len(whole) - 1):
        with pytest.raises(DamageFound):
            decode(whole[:size], "here")
    with pytest.raises(DamageFound):
        decode(whole + b"x", "here")


def test_facts() -> None:
    facts = HomeFacts(format="chunky", last_oid=5, packed=None)
    assert HomeFacts.decode(facts.encode(), "here") == facts
    for wrong in (b"", b"[]", facts.encode().replace(b":1,", b":2,")):
        with pytest.raises(DamageFound):
            HomeFacts.decode(wrong, "here")
