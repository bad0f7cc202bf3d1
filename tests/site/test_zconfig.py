"""Reading zope.conf and zeo.conf without a schema."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import UsageError
from perdure.site.zconfig import Configuration, read_configuration


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "zope.conf"


def read(path: Path, text: str, environment: dict[str, str] | None = None) -> Configuration:
    path.write_text(text)
    return read_configuration(path, environment or {})


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("/a/b c", "/a/b c"),
        ("$DATA/Data.fs", "/data/Data.fs"),
        ("${data}base", "/database"),
        ("$(HERE)/$data", "/here//data"),
        ("pa$$word", "pa$word"),
        ("$INNER", "/data/inner"),
    ],
)
def test_references(conf: Path, value: str, meant: str) -> None:
    defines = "%define Data /data\n%define INNER $data/inner\n"
    text = f"{defines}<filestorage>\n  PATH {value}\n</filestorage>\n"
    (section,) = read(conf, text, {"HERE": "/here"}).top.sections
    assert section.get("path") == meant
    assert (section.kind, section.name, section.line) == ("filestorage", None, 3)


def test_sections_of_the_same_kind_and_keys_that_stand_twice(conf: Path) -> None:
    text = "<A>\n server x\n server y\n</A>\n<a B/>\n<a B>\n</a>\n"
    first, second, third = read(conf, text).top.sections
    assert first.all("server") == ["x", "y"]
    assert first.get("none") is None
    assert (second.name, third.name) == ("b", "b")


def test_a_variable_that_is_not_set_matters_only_where_it_is_needed(conf: Path) -> None:
    text = "<filestorage>\n path $(WHERE)/Data.fs\n blob-dir /b\n read-only $(RO)\n</filestorage>\n"
    (section,) = read(conf, text).top.sections
    assert section.get("blob-dir") == "/b"
    assert section.flag("read-only") is None
    with pytest.raises(UsageError, match=r"line 1: path of <filestorage> is .*no WHERE") as caught:
        section.get("path")
    assert "WHERE" in str(caught.value.hint)
    assert "$(RO)" not in section.text(frozenset({"path", "read-only"}))


@pytest.mark.parametrize(
    ("word", "flag"), [("on", True), ("Yes", True), ("1", True), ("off", False), ("", None)]
)
def test_yes_and_no(conf: Path, word: str, flag: bool | None) -> None:
    (section,) = read(conf, f"<a>\n shared-blob-dir {word}\n</a>\n").top.sections
    assert section.flag("shared-blob-dir") is flag


def test_included_files(conf: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/first.conf").write_text("%define D /data\n%include second.conf\n")
    (tmp_path / "more/second.conf").write_text("\n<filestorage>\npath $D/Data.fs\n</filestorage>")
    text = f"%include more/first.conf\n<x>\n %include file://{tmp_path}/more/second.conf\n</x>\n"
    first, second = read(conf, text).top.sections
    assert first.get("path") == "/data/Data.fs"
    assert (first.file, first.line) == (tmp_path / "more/second.conf", 2)
    assert second.sections[0].get("path") == "/data/Data.fs"


def test_nothing_is_fetched_or_imported(conf: Path) -> None:
    text = (
        "%include http://example.com/zope.conf\n%include package:some.code:zope.conf\n"
        "%import no.such.package\n"
    )
    configuration = read(conf, text)
    assert [target for target, _ in configuration.unread] == [
        "http://example.com/zope.conf",
        "package:some.code:zope.conf",
    ]
    assert configuration.top.imports == ["no.such.package"]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("<a>\n</b>\n", 2, "unbalanced section end"),
        ("\n<a>\n", 2, "unclosed sections"),
        ("\n</a>\n", 2, "unexpected section end"),
        ("<a\n", 1, "malformed section start"),
        ("%frobnicate x\n", 1, "unknown directive"),
        ("%define a 1\n%define a 2\n", 2, "cannot redefine"),
        ("a\nb $none\n", 2, r"\$none is not defined"),
        ("a $\n", 1, r"a lone \$"),
        ("(odd) value\n", 1, "malformed configuration data"),
        ("<a>\n" * 40 + "</a>\n" * 40, 33, "more than 32 sections"),
    ],
)
def test_faults_have_file_and_line(conf: Path, text: str, line: int, what: str) -> None:
    with pytest.raises(UsageError, match=f"zope.conf, line {line}: .*{what}") as caught:
        read(conf, text)
    assert caught.value.hint


def test_includes_are_bounded(conf: Path, tmp_path: Path) -> None:
    (tmp_path / "b.conf").write_text("%include zope.conf\n")
    with pytest.raises(UsageError, match="includes it again"):
        read(conf, "%include b.conf\n")
    (tmp_path / "b.conf").write_text("")
    with pytest.raises(UsageError, match="more than 64 files"):
        read(conf, "%include b.conf\n" * 70)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(conf, "%include missing.conf\n")


def test_what_is_no_configuration(conf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_configuration(tmp_path / "none.conf", {})
    with pytest.raises(UsageError, match="cannot be read"):
        read_configuration(tmp_path, {})
    with pytest.raises(UsageError, match="no configuration file"):
        read(conf, "\0")
    with pytest.raises(UsageError, match="no configuration file"):
        read(conf, "#" * (5 << 20))


def test_names_of_files_may_be_no_text(conf: Path) -> None:
    conf.write_bytes(b"<filestorage>\npath /\xff/Data.fs\n</filestorage>\n")
    (section,) = read_configuration(conf, {}).top.sections
    assert Path(section.get("path") or "") == Path("/\udcff/Data.fs")


@given(st.text("<>/%$(){}#\n az=", max_size=60))
def test_anything_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.conf"
    try:
        top = read(path, text).top
    except UsageError:
        return
    again = "".join(section.text() for section in top.sections)
    assert "".join(each.text() for each in read(path, again).top.sections) == again
