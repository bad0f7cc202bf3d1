"""The same settings from the environment: a container needs no file.

Each key has a variable (`perdure.config.declaration`). A list stands with commas between; of commands, each
is a line of its own, its words split as a shell does. A number behind the variables of a source, as in
``PERDURE_FILESTORAGE_2``, makes one more source. An empty variable is none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, get_origin

from perdure.config.declaration import PREFIX, Commands, Key, keys
from perdure.config.reading import Given, Problem, Values, convert, did_you_mean
from perdure.errors import UsageError

OF_THE_PROGRAM = (
    *("PASSWORD", "CONFIG", "DEBUG"),
    *("FROM_PASSWORD", "FROM_PASSWORD_FILE", "FROM_PASSWORD_COMMAND"),
)
"""Variables that are no settings of the file."""
OF_HOOKS = (
    *("EVENT", "STATUS", "EXIT_CODE", "SNAPSHOT", "ERROR", "SECONDS", "BYTES_ADDED", "SOURCES"),
    *("KIND", "LOCATIONS", "STAMP"),
)
"""Variables that commands around a backup are given."""
_OF_TESTS = re.compile(r"TEST_\w+|NO_SKIP")
# What Kubernetes gives each container about a service called perdure.
_OF_SERVICES = re.compile(r"(?:\w+_)?(?:SERVICE_(?:HOST|PORT)(?:_\w+)?|PORT(?:_\d+_\w+)?)")
_NUMBERED = re.compile(r"(.*?)_(\d{1,3})")


def read_environment(environment: Mapping[str, str]) -> Values:
    """Read all variables that begin with PERDURE_."""
    by_variable = {key.variable: key for key in keys().values()}
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    warnings: list[str] = []
    numbers = _source_numbers(environment)
    for variable in sorted(environment):
        text = environment[variable]
        if not (variable.startswith(PREFIX) and text.strip()):
            continue
        key, number = _key_of(variable, by_variable)
        if key is None:
            warnings += _unknown(variable, list(by_variable))
            continue
        path = key.path
        if key.section == "source":
            path = f"source[{numbers.index(number)}].{key.name}"
        try:
            given[path] = Given(_value(key, text), variable)
        except UsageError as error:
            hint = f"; {error.hint}" if error.hint else ""
            problems.append(Problem(variable, f"{error}{hint}"))
    return Values(given, tuple(problems), tuple(warnings))


def as_variable(key: Key, example: Any) -> str:
    """Write the example of a key as the text of its variable."""
    if key.kind == Commands:
        return "\n".join(shlex.join(words) for words in example)
    if isinstance(example, list):
        return ",".join(example)
    return str(example).lower() if isinstance(example, bool) else str(example)


def _value(key: Key, text: str) -> Any:
    raw: Any = text.strip()
    if key.kind == Commands:
        try:
            raw = [shlex.split(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise UsageError(f"the words of a command cannot be told apart: {error}") from None
    elif get_origin(key.kind) is tuple:
        raw = [part.strip() for part in text.split(",") if part.strip()]
    return convert(key, raw, None, strict=False)


def _key_of(variable: str, known: Mapping[str, Key]) -> tuple[Key | None, int]:
    """Give the key of a variable, and the number of the source that it belongs to."""
    if variable in known:
        return known[variable], 1
    numbered = _NUMBERED.fullmatch(variable)
    if numbered and numbered[1] in known and known[numbered[1]].section == "source":
        return known[numbered[1]], int(numbered[2])
    return None, 1


def _source_numbers(environment: Mapping[str, str]) -> list[int]:
    known = {key.variable: key for key in keys().values() if key.section == "source"}
    found = (_key_of(name, known) for name, text in environment.items() if text.strip())
    return sorted({number for key, number in found if key})


def _unknown(variable: str, known: list[str]) -> Iterator[str]:
    name = variable.removeprefix(PREFIX)
    if name in (*OF_THE_PROGRAM, *OF_HOOKS):
        return
    if _OF_TESTS.fullmatch(name) or _OF_SERVICES.fullmatch(name):
        return
    names = [each.removeprefix(PREFIX) for each in known] + list(OF_THE_PROGRAM)
    nearest = did_you_mean(name, names, 0.5)
    meant = nearest.replace("mean ", f"mean {PREFIX}") if nearest else "perdure config example"
    yield f"the variable {variable} means nothing to Perdure; {meant}"
