from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import RepositoryDamaged
from perdure.formats.tree import ExtendedAttribute, Node, Tree, go_mode, unix_mode

TIME = "2026-11-21T08:13:25.509460881Z"
TIMES = f'"mtime":"{TIME}","atime":"{TIME}","ctime":"{TIME}"'
ID = "ab" * 32


def node(name: str, kind: str = "file", **fields: object) -> Node:
    base: dict[str, object] = {"content": () if kind == "file" else None, "uid": 0, "gid": 0}
    return Node(name=name, type=kind, mtime=TIME, atime=TIME, ctime=TIME, **base | fields)  # type: ignore[arg-type]


# (node, JSON), as restic writes them
TABLE = [
    (
        node("empty.txt", mode=0o644, inode=7, device_id=65024, links=1),
        (
            f'{{"name":"empty.txt","type":"file","mode":420,{TIMES},"uid":0,"gid":0,"inode":7,'
            '"device_id":65024,"links":1,"content":[]}'
        ),
    ),
    (
        node(
            "a.txt",
            mode=go_mode(stat.S_IFREG | 0o4755),
            user="root",
            group="g<",
            size=3,
            content=(ID,),
        ),
        (
            f'{{"name":"a.txt","type":"file","mode":8389101,{TIMES},"uid":0,"gid":0,"user":"root",'
            f'"group":"g\\u003c","size":3,"content":["{ID}"]}}'
        ),
    ),
    (
        node("sub", "dir", mode=go_mode(stat.S_IFDIR | 0o1777), subtree=ID),
        (
            f'{{"name":"sub","type":"dir","mode":2148532735,{TIMES},"uid":0,"gid":0,"content":null,'
            f'"subtree":"{ID}"}}'
        ),
    ),
    (
        node("bad\udcff\n", "symlink", mode=go_mode(stat.S_IFLNK | 0o777), linktarget="to\udcfe"),
        (
            f'{{"name":"bad\\\\xff\\\\n","type":"symlink","mode":134218239,{TIMES},"uid":0,"gid":0,'
            '"linktarget":"to\\ufffd","linktarget_raw":"dG/+","content":null}'
        ),
    ),
    (
        node("x", extended_attributes=(ExtendedAttribute("user.a", b"b"),), device=5, error="no"),
        (
            f'{{"name":"x","type":"file",{TIMES},"uid":0,"gid":0,"extended_attributes":'
            '[{"name":"user.a","value":"Yg=="}],"device":5,"content":[],"error":"no"}'
        ),
    ),
]


@pytest.mark.parametrize(("value", "text"), TABLE)
def test_nodes(value: Node, text: str) -> None:
    tree = f'{{"nodes":[{text}]}}\n'.encode()

    assert Tree((value,)).encode() == tree
    assert Tree.decode(tree, "it") == Tree((value,))


def test_an_empty_tree() -> None:
    assert Tree(()).encode() == b'{"nodes":[]}\n'
    assert Tree.decode(b'{"nodes":[]}\n', "it") == Tree(())
    assert Tree.decode(b'{"nodes":null}\n', "it") == Tree(())


def test_generic_attributes_survive() -> None:
    text = (
        f'{{"nodes":[{{"name":"w","type":"file",{TIMES},"uid":0,"gid":0,"generic_attributes":'
        '{"windows.x": [1,{"a":null}]},"content":[]}]}\n'
    ).replace(": [", ":[")

    assert Tree.decode(text.encode(), "it").encode() == text.encode()


def test_unknown_fields_are_refused() -> None:
    text = (
        f'{{"nodes":[{{"name":"w","type":"file",{TIMES},"uid":0,"gid":0,"content":[],"new":1}}]}}'
    )

    with pytest.raises(RepositoryDamaged, match=r"tree x cannot be read: .*new"):
        Tree.decode(text.encode(), "tree x")


@given(
    st.lists(
        st.binary(min_size=1).filter(
            lambda raw: raw not in (b".", b"..") and not set(raw) & set(b"/\0")
        ),
        unique=True,
    )
)
def test_nodes_ascend_by_their_bytes(names: list[bytes]) -> None:
    tree = Tree.of(node(raw.decode("utf-8", "surrogateescape")) for raw in names)

    assert [entry.raw_name for entry in tree.nodes] == sorted(names)
    assert Tree.decode(tree.encode(), "it") == tree


@pytest.mark.parametrize(
    "names", [("b", "a"), ("a", "a"), ("",), (".",), ("..",), ("a/b",), ("a\0",)]
)
def test_order_and_names_are_checked(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"node"):
        Tree(tuple(map(node, names))).encode()


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"nodes":[{}]}', b'{"nodes":[{"name":"a\\\\q"}]}', b'{"nodes":{"a":1}}']
)
def test_damaged_trees(text: bytes) -> None:
    with pytest.raises(RepositoryDamaged, match="tree x"):
        Tree.decode(text, "tree x")


def test_lookup() -> None:
    tree = Tree.of([node("b"), node("a")])

    assert tree["b"].name == "b"
    with pytest.raises(KeyError):
        tree["c"]


@pytest.mark.parametrize("special", [0, 0o4000, 0o2000, 0o1000, 0o7000])
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR])
def test_modes(kind: int, special: int) -> None:
    assert unix_mode(go_mode(kind | special | 0o751)) == special | 0o751
