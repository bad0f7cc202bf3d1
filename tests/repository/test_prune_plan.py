from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import UsageError
from perdure.model import ChunkKind
from perdure.repository.prune_plan import (
    ENOUGH,
    SMALL_INDEX_FILE,
    SMALL_PACKFILE,
    Action,
    Allowance,
    Decision,
    IndexFileUse,
    Limits,
    PackfileUse,
    decide,
    index_files_to_replace,
    parse_size,
)

NUMBERS = count()
DATA, TREE = ChunkKind.DATA, ChunkKind.TREE
MIB = 1 << 20
NOTHING_MAY_STAY = Limits(Allowance(size=0))


def pack(
    used: int, garbage: int, kind: ChunkKind | None = DATA, *, plain_trees: bool = False
) -> PackfileUse:
    """A packfile of so many MiB."""
    name = next(NUMBERS).to_bytes(32, "big")
    size = (used + garbage) * MIB + 36
    return PackfileUse(name, kind, size, used * MIB, garbage * MIB, plain_trees)


def outcome(packfiles: list[PackfileUse], limits: Limits) -> list[tuple[str, str]]:
    """What becomes of them and why, in the order in which they were given."""
    found = {
        each.packfile.id: (each.action.value, each.reason) for each in decide(packfiles, limits)
    }
    return [found[packfile.id] for packfile in packfiles]


@pytest.mark.parametrize(
    ("packfile", "limits", "expected"),
    [
        (pack(0, 16), Limits(), ("delete", "not needed")),
        (pack(16, 0), NOTHING_MAY_STAY, ("keep", "entirely needed")),
        (pack(1, 0), NOTHING_MAY_STAY, ("keep", "entirely needed")),
        (pack(16, 0, TREE), NOTHING_MAY_STAY, ("keep", "entirely needed")),
        (pack(20, 1), Limits(), ("keep", "garbage within --max-unused")),
        (pack(18, 1), Limits(), ("rewrite", "more garbage than --max-unused allows")),
        (pack(1, 15), Limits(Allowance()), ("keep", "garbage within --max-unused")),
        (pack(1, 15), Limits(Allowance(size=15 * MIB)), ("keep", "garbage within --max-unused")),
        (
            pack(1, 16),
            Limits(Allowance(size=15 * MIB)),
            ("rewrite", "more garbage than --max-unused allows"),
        ),
        (pack(99, 1, TREE), Limits(Allowance()), ("rewrite", "garbage among trees")),
        (
            pack(9, 0, TREE, plain_trees=True),
            Limits(),
            ("rewrite", "trees that are not compressed"),
        ),
        (pack(9, 0, None), Limits(), ("rewrite", "data and trees in one")),
        (pack(9, 9), Limits(Allowance(size=0), 17 * MIB), ("keep", "--max-repack-size is used up")),
        (pack(9, 9, TREE), Limits(Allowance(), 0), ("keep", "--max-repack-size is used up")),
    ],
)
def test_one_packfile(packfile: PackfileUse, limits: Limits, expected: tuple[str, str]) -> None:
    assert outcome([packfile], limits) == [expected]


def test_those_with_most_garbage_come_first() -> None:
    packfiles = [pack(90, 6), pack(5, 10), pack(80, 20), pack(100, 0)]
    assert [action for action, _ in outcome(packfiles, Limits())] == [
        "keep",
        "rewrite",
        "rewrite",
        "keep",
    ]
    few = Limits(rewrite=20 * MIB)
    assert [action for action, _ in outcome(packfiles, few)] == ["keep", "rewrite", "keep", "keep"]


def test_small_ones_go_together_where_there_are_enough() -> None:
    small = [pack(1, 0) for _ in range(ENOUGH)]
    others = [pack(1, 0, TREE) for _ in range(ENOUGH - 1)]
    found = outcome([*small, *others, pack(16, 0)], Limits())
    together = ("rewrite", "small, goes together with others")
    assert found == [*[together] * ENOUGH, *[("keep", "entirely needed")] * ENOUGH]
    half = outcome(small, Limits(rewrite=5 * (MIB + 36)))
    assert half.count(together) == 5


@pytest.mark.parametrize(
    ("text", "allowance"),
    [
        ("unlimited", Allowance()),
        ("0", Allowance(size=0)),
        ("5%", Allowance(percent=5)),
        ("2.5%", Allowance(percent=2.5)),
        ("100M", Allowance(size=100 << 20)),
        ("3t", Allowance(size=3 << 40)),
    ],
)
def test_allowances(text: str, allowance: Allowance) -> None:
    assert Allowance.parse(text) == allowance


def test_what_is_no_allowance_and_no_size() -> None:
    for text in ("", "100%", "-1", "5 %", "x", "1P", "-5%"):
        with pytest.raises(UsageError, match="how much garbage"):
            Allowance.parse(text)
    for text in ("", "5%", "-1", "1.5M", "unlimited"):
        with pytest.raises(UsageError, match="no size"):
            parse_size(text)
    assert [parse_size(text) for text in ("0", "7b", "2k", "2G")] == [0, 7, 2048, 2 << 30]


SIZES = st.integers(0, 20)
PACKFILES = st.lists(
    st.builds(pack, SIZES, SIZES, st.sampled_from([DATA, DATA, TREE, None])), max_size=30
)
ALLOWANCES = st.sampled_from(
    [Allowance(), Allowance(size=0), Allowance(size=30 * MIB)]
) | st.builds(Allowance, percent=st.integers(0, 99).map(float))
LIMITS = st.builds(Limits, ALLOWANCES, st.none() | st.integers(0, 200 * MIB))


@given(PACKFILES, LIMITS)
def test_whatever_there_is(packfiles: list[PackfileUse], limits: Limits) -> None:
    found = decide(packfiles, limits)
    assert sorted(each.packfile.id for each in found) == sorted(p.id for p in packfiles)
    rewritten = [each.packfile for each in found if each.action is Action.REWRITE]
    kept = [each.packfile for each in found if each.action is Action.KEEP]
    for each in found:
        assert (each.action is Action.DELETE) is (not each.packfile.used)
    if limits.rewrite is not None:
        assert sum(each.size for each in rewritten) <= limits.rewrite
    else:
        used, garbage = sum(p.used for p in packfiles), sum(p.garbage for p in kept)
        assert limits.unused.allows(garbage, used)
        assert all(p.kind is DATA or not (p.garbage or p.kind is None) for p in kept)
        again = decide(_stored_again(found), limits)
        assert sum(each.action is not Action.KEEP for each in again) in (0, *range(ENOUGH, 99))


def _stored_again(decisions: list[Decision]) -> list[PackfileUse]:
    """What a prune leaves, if rewritten packfiles are stored one by one."""
    kept = [each.packfile for each in decisions if each.action is Action.KEEP]
    return [
        *kept,
        *(
            PackfileUse(
                each.packfile.id,
                each.packfile.kind or DATA,
                each.packfile.used + 36,
                each.packfile.used,
                0,
            )
            for each in decisions
            if each.action is Action.REWRITE
        ),
    ]


IDS = [bytes([number]) * 32 for number in range(12)]


@given(
    st.dictionaries(
        st.integers().map(str),
        st.builds(
            IndexFileUse, st.lists(st.sampled_from(IDS), unique=True), st.sampled_from([1, 50_000])
        ),
        max_size=15,
    ),
    st.sets(st.sampled_from(IDS)),
)
def test_index_files(files: dict[str, IndexFileUse], gone: set[bytes]) -> None:
    replaced = index_files_to_replace(files, gone)
    staying = [file for name, file in files.items() if name not in replaced]
    named = [packfile for file in staying for packfile in file.packfiles]
    assert not gone & set(named)
    assert len(named) == len(set(named))
    assert all(file.packfiles for file in staying)
    assert sum(file.chunks < SMALL_INDEX_FILE for file in staying) < ENOUGH


def test_a_sound_index_file_stays() -> None:
    files = {"a": IndexFileUse(IDS[:2], 5), "b": IndexFileUse(IDS[2:4], 50_000)}
    assert index_files_to_replace(files, set()) == set()
    assert index_files_to_replace(files, {IDS[0]}) == {"a"}
    assert SMALL_PACKFILE < 16 * MIB
