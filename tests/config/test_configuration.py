"""perdure.toml and the environment: what they say together, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.config.declaration import OF_TREES, SOURCE_PLACES, Config, Key, keys, sections
from perdure.config.effective import Configuration, settle
from perdure.config.environment import OF_HOOKS, OF_THE_PROGRAM, as_variable
from perdure.config.example import example, table
from perdure.config.reading import as_toml, convert

FILE = Path("/etc/perdure/perdure.toml")
ALL_KEYS = [pytest.param(key, id=path) for path, key in keys().items()]


def settled(text: str | None, **environment: str) -> Configuration:
    home = Path("/home/plone")
    variables = {f"PERDURE_{name}": value for name, value in environment.items()}
    return settle(text, None if text is None else FILE, home, variables)


def sound(text: str | None, **environment: str) -> Config:
    found = settled(text, **environment)
    assert not found.problems
    return found.config


def problems(text: str | None, **environment: str) -> list[str]:
    found = [str(problem) for problem in settled(text, **environment).problems]
    assert found
    return found


def companions(key: Key) -> dict[str, Any]:
    """The keys without which this one is not complete."""
    if key.section == "source" and key.name not in SOURCE_PLACES:
        return {"tree": "/srv/www"} if key.name in OF_TREES else {"filestorage": "/Data.fs"}
    return {"to": ["root"]} if key.path == "monitoring.mail.from" else {}


def value_of(config: Config, key: Key) -> Any:
    inner: Any = config
    for part in key.section.split("."):
        inner = getattr(inner, part)
    return getattr(inner[0] if key.section == "source" else inner, key.field)


# Every key there is.


@pytest.mark.parametrize("key", ALL_KEYS)
def test_a_key_in_the_file(key: Key) -> None:
    header = f"[[{key.section}]]" if key.section == "source" else f"[{key.section}]"
    said = companions(key) | {key.name: key.example}
    lines = [header, *(f"{name} = {as_toml(value)}" for name, value in said.items())]
    configuration = settled("\n".join(lines))
    assert not configuration.problems
    value = value_of(configuration.config, key)
    assert value == convert(key, key.example, None)
    assert value != key.default
    origins = [each.origin for each in configuration.settings() if each.path.endswith(key.name)]
    assert f"{FILE}, line {1 + len(said)}" in origins


@pytest.mark.parametrize("key", ALL_KEYS)
def test_a_key_in_the_environment(key: Key) -> None:
    of_section = {each.name: each for each in keys().values() if each.section == key.section}
    said = companions(key) | {key.name: key.example}
    variables = {of_section[name].variable: as_variable(key, value) for name, value in said.items()}
    configuration = settle(None, None, None, variables)
    assert not configuration.problems
    assert not configuration.warnings
    assert value_of(configuration.config, key) == convert(key, key.example, None)
    origins = [each.origin for each in configuration.settings() if each.path.endswith(key.name)]
    assert key.variable in origins


def test_each_key_has_a_variable_of_its_own() -> None:
    variables = [key.variable for key in keys().values()]
    assert len(set(variables)) == len(variables)
    taken = {f"PERDURE_{name}" for name in (*OF_HOOKS, *OF_THE_PROGRAM)}
    assert not taken & set(variables)


def test_the_example_has_every_key_and_nothing_wrong() -> None:
    assert not settled(example()).problems
    for path, section in sections().items():
        assert f"[{path}]" in example()
        assert section.__doc__
    for key in keys().values():
        assert f"{key.name} = " in example()
        assert key.variable in example()
        assert f"`{key.path}`" in table()


_NAMES = st.sampled_from(
    [part for key in keys().values() for part in (key.section, key.name)] + ["password", "x", "to"]
)
_DOCUMENTS = st.recursive(
    st.one_of(
        *(st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.times(), st.dates()),
        st.sampled_from([key.example for key in keys().values()]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(_NAMES, _DOCUMENTS, max_size=4))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tomllib.loads", lambda text: document)
        found = settled("")
    assert all(isinstance(str(problem), str) for problem in found.problems)
    assert list(found.settings())


@given(st.text() | st.text("[]\"'=.#ab\n {},"))
def test_any_text_is_read_or_refused(text: str) -> None:
    settled(text, KEEP_DAILY=text, HOOK_BEFORE=text, FILESTORAGE_3=text, PING=text)


# What comes before what.


@pytest.mark.parametrize(
    ("text", "environment", "path", "value", "origin"),
    [
        (None, {}, "retention.keep-daily", None, "default"),
        (None, {}, "monitoring.mail.on", "failure", "default"),
        ("[retention]\nkeep-daily = 3", {}, "retention.keep-daily", 3, f"{FILE}, line 2"),
        (
            *("[retention]\nkeep-daily = 3", {"KEEP_DAILY": "4"}),
            *("retention.keep-daily", 4, "PERDURE_KEEP_DAILY"),
        ),
        (
            *("[retention]\nkeep-daily = 3", {"KEEP_DAILY": ""}),
            *("retention.keep-daily", 3, f"{FILE}, line 2"),
        ),
        (
            *("retention.prune = true", {"PRUNE": "false"}),
            *("retention.prune", False, "PERDURE_PRUNE"),
        ),
        (
            *('backup = { tags = ["a", "b"] }', {"TAGS": "c, d,"}),
            *("backup.tags", ["c", "d"], "PERDURE_TAGS"),
        ),
        ("monitoring.mail = {to = ['a@b']}", {}, "monitoring.mail.to", ["a@b"], f"{FILE}, line 1"),
        (
            *(None, {"HOOK_BEFORE": "sh -c 'a; b'\n\nsync\n"}),
            *("hooks.before", [["sh", "-c", "a; b"], ["sync"]], "PERDURE_HOOK_BEFORE"),
        ),
        ("schedule.at = 03:15:00", {}, "schedule.at", "03:15", f"{FILE}, line 1"),
        ("repository.limit-upload = 500", {}, "repository.limit-upload", "500K", f"{FILE}, line 1"),
        # Who says one of two that exclude each other has decided about both.
        (
            *('[repository]\npassword-command = "x"', {"PASSWORD_FILE": "/key"}),
            *("repository.password-command", None, "default"),
        ),
        ('[schedule]\nat = "03:15"', {"SCHEDULE_EVERY": "1h"}, "schedule.at", None, "default"),
    ],
)
def test_where_a_value_comes_from(
    text: str | None, environment: Mapping[str, str], path: str, value: object, origin: str
) -> None:
    configuration = settled(text, **environment)
    assert not configuration.problems
    (setting,) = [each for each in configuration.settings() if each.path == path]
    assert (setting.value, setting.origin) == (value, origin)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/srv/key", "/srv/key"),
        ("key", "/etc/perdure/key"),
        ("../key", "/etc/perdure/../key"),
        ("~/key", "/home/plone/key"),
        ("~other/key", "/etc/perdure/~other/key"),
    ],
)
def test_paths_are_relative_to_the_file(written: str, meant: str) -> None:
    config = sound(f"[repository]\npassword-file = '{written}'\nlocation = '{written}'")
    assert config.repository.password_file == Path(meant)
    assert config.repository.location == meant
    of_environment = sound(None, PASSWORD_FILE=written).repository.password_file
    assert of_environment == Path(written)


def test_a_url_is_no_path() -> None:
    assert sound("repository.location = 's3://bucket/x'").repository.location == "s3://bucket/x"


def test_sources_of_the_environment_stand_for_themselves() -> None:
    text = "[[source]]\nfilestorage = 'a'\nname = 'a'\n[[source]]\nsite = 'b'"
    assert [source.name for source in sound(text).source] == ["a", None]
    (only,) = sound(text, FILESTORAGE="/c", BLOBS="/d").source
    assert (only.filestorage, only.blobs, only.name) == (Path("/c"), Path("/d"), None)
    several = sound(None, FILESTORAGE="/1", FILESTORAGE_3="/3", SOURCE_3="c", ZOPE_CONF_2="/2")
    assert [source.filestorage for source in several.source] == [Path("/1"), None, Path("/3")]
    assert several.source[1].zope_conf == Path("/2")
    assert several.source[2].name == "c"


def test_what_the_file_alone_says() -> None:
    configuration = settled("repository.password-file = '/key'", PASSWORD_COMMAND="pass x")
    assert configuration.config.repository.password_file is None
    assert configuration.in_file.repository.password_file == Path("/key")


def test_no_secret_is_shown() -> None:
    configuration = settled(
        "[repository]\nlocation = 's3://geheim:geheim@bucket'\npassword-command = 'pass geheim'\n"
        "[monitoring]\nping = 'https://hc.example/geheim'"
    )
    assert not configuration.problems
    shown = [each.value for each in configuration.settings()]
    assert "geheim" not in str(shown)
    assert {"s3://bucket", "pass ...", "https://hc.example/..."} <= {
        value for value in shown if isinstance(value, str)
    }
    assert msgspec.json.encode(shown)


# What is wrong.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[retention]\nkep-daily = 7", ["line 2: [retention]", "did you mean keep-daily?"]),
        ("[retention]\nkeep_daily = 7", ["did you mean keep-daily?"]),
        ("[retenton]\nkeep-daily = 7", ["line 1: ", "'retenton'", "did you mean retention?"]),
        ("keep-daily = 7", ["line 1: ", "it belongs into [retention]"]),
        ("[backup]\nlocation = 'x'", ["it belongs into [repository]"]),
        ("[backup]\nxyzzy = 1", ["it has tags, host, skip-if-unchanged"]),
        ("[repository]\npassword = 'geheim'", ["line 2", "secrets do not belong", "password-file"]),
        ("password = 'geheim'", ["secrets do not belong"]),
        ("[monitoring]\nsecret-token = 'geheim'", ["secrets do not belong"]),
        ("[retention]\nkeep-daily = 'x'", ["line 2: [retention] keep-daily", "no number"]),
        ("[retention]\nkeep-daily = 1.5", ["expected a number or text"]),
        ("[retention]\nkeep-daily = true", ["expected a number or text"]),
        ("[retention]\nprune = 'yes'", ["prune: expected true or false, got text"]),
        ("[backup]\ntags = 'a'", ["expected a list, got text", 'for example ["nightly"]']),
        ("[backup]\ntags = ['']", ["a text is empty"]),
        ('[backup]\nhost = "a\\u0000"', ["a NUL"]),
        ("[hooks]\nbefore = ['sync']", ["before: expected a list, got text", '[["sync"]]']),
        ("[hooks]\nbefore = [[]]", ["length"]),
        ("[hooks]\ntimeout = 5", ["expected text", '"30m"']),
        ("[monitoring]\nping = 'file:///x'", ["no URL"]),
        ("[monitoring]\nping-retries = 11", ["<= 10"]),
        ("[monitoring]\nmail = 'a@b'", ["mail is a table: write [monitoring.mail]"]),
        ("[monitoring.mail]\non = 'never'", ["line 2: [monitoring.mail] on"]),
        ("[monitoring.mail]\nfrom = 'a@b'", ["line 2: ", "somebody who gets it"]),
        ("repository = 'x'", ["line 1: repository is a table: write [repository]"]),
        ("[source]\nfilestorage = 'x'", ["write [[source]]"]),
        ("source = 'x'", ["write [[source]]"]),
        ("[[source]]\n", ["this source is empty"]),
        ("[[source]]\nname = 'x'", ["line 2: ", "a source has one of filestorage, zope-conf"]),
        ("[[source]]\nsite = 'x'\nfilestorage = 'y'", ["cannot have filestorage and site"]),
        ("[[source]]\nsite = 'x'\nblobs = 'y'", ["line 3: blobs belong to a filestorage"]),
        (
            "[[source]]\nsite = 'x'\nname = 'n'\n[[source]]\nsite = 'y'\nname = 'n'",
            ["line 6: two sources have the name 'n'"],
        ),
        ("[repository]\npassword-file = 'a'\npassword-command = 'b'", ["line 3", "exclude"]),
        ("[schedule]\nat = '03:15'\nevery = '1h'", ["exclude each other"]),
        ("[retention", [f"{FILE}: this is no TOML"]),
        ("a = " + "[" * 5000, ["this is"]),
        ("a = 1\na = 2", ["this is no TOML"]),
        ("a = " + "1" * 10_000, ["a value that cannot be"]),
        ("repository.limit-upload = 0x" + "f" * 10_000, ["[repository] limit-upload: "]),
        ("monitoring.ping-retries = 0x" + "f" * 10_000, ["[monitoring] ping-retries: "]),
    ],
)
def test_what_is_wrong_with_a_file(text: str, said: list[str]) -> None:
    (problem,) = problems(text)
    assert problem.startswith(str(FILE))
    for each in said:
        assert each in problem
    assert "geheim" not in problem


def test_all_mistakes_are_said_at_once() -> None:
    found = settled("[backup]\nxyzzy = 1\ntags = 1\n[retention]\nprune = 2", KEEP_LAST="x")
    assert len(found.problems) == 4
    with pytest.raises(Exception, match="and 3 more"):
        found.require()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("KEEP_DAILY", "x", "no number of snapshots"),
        ("PRUNE", "perhaps", "expected true or false"),
        ("PING", "geheim", "no URL"),
        ("MAIL_TO", "a b", "no mail address"),
        ("HOOK_AFTER", "sh 'x", "cannot be told apart"),
        ("SCHEDULE_EVERY", "often", "no duration"),
        ("BLOBS", "/x", "a source has one of"),
    ],
)
def test_what_is_wrong_with_a_variable(variable: str, value: str, said: str) -> None:
    problem = problems(None, **{variable: value})[0]
    assert problem.startswith(f"PERDURE_{variable}: ")
    assert said in problem
    assert "geheim" not in problem


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("KEEP_DAYLY", "did you mean PERDURE_KEEP_DAILY?"),
        ("PASSWORT", "did you mean PERDURE_PASSWORD?"),
        ("KEEP_DAILY_2", "did you mean PERDURE_KEEP_DAILY?"),
        ("XYZZY", "PERDURE_XYZZY means nothing"),
    ],
)
def test_a_variable_that_means_nothing(variable: str, said: str) -> None:
    found = settled(None, **{variable: "1"})
    assert not found.problems
    (warning,) = found.warnings
    assert said in warning


@pytest.mark.parametrize(
    "variable",
    [
        *(*OF_THE_PROGRAM, *OF_HOOKS, "TEST_KILLS", "NO_SKIP"),
        *("SERVICE_HOST", "SERVICE_PORT_HTTP", "DB_SERVICE_PORT"),
        *("PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"),
    ],
)
def test_variables_of_others(variable: str) -> None:
    assert not settled(None, **{variable: "1"}).warnings


def test_other_variables_are_not_looked_at() -> None:
    assert settle(None, None, None, {"KEEP_DAILY": "x", "RESTIC_TAGS": "x"}).given == {}
