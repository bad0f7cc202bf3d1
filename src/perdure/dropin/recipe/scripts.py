"""The scripts of a part: a line of Python each, which calls the program with the settings of the part."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from perdure.dropin.recipe.naming import script_name
from perdure.dropin.recipe.part import Part

MARK = "# Made by perdure: it is written anew, and removed when it is not wanted any more."
_LONGEST_INTERPRETER = 120
_TEXT = """\
{interpreter}
{mark}
import sys

sys.path[0:0] = {paths!r}

from perdure.dropin.recipe.command import main

if __name__ == "__main__":
    sys.exit(main([{before}, {command!r}, *sys.argv[1:]]))
"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def write_scripts(
    part: Part, before: str, folder: Path, python: str, paths: Iterable[str]
) -> list[Path]:
    """Write the scripts of a part into a folder; gives their paths.

    ``before`` is what `arguments_of` gives: the arguments before the command. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for command in part.commands:
        path = folder / script_name(command, part.name)
        text = _TEXT.format(
            interpreter=_interpreter(python),
            mark=MARK,
            paths=list(paths),
            before=before,
            command=command,
        )
        part_file = path.with_name(f".{path.name}.part")
        part_file.write_text(text)
        part_file.chmod(0o755)
        os.rename(part_file, path)
        written.append(path)
    return written


def arguments_of(option: str, value: str) -> str:
    """Write the option that tells the program which settings to use, as the text of a script."""
    return f"{option!r}, {value!r}"


def remove_unwanted(part: Part, before: str, folder: Path) -> list[Path]:
    """Remove the scripts that were made for this part and that it has no more; gives their paths."""
    wanted = {script_name(command, part.name) for command in part.commands}
    removed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name not in wanted and path.is_file() and _is_ours(path, before):
            path.unlink()
            removed.append(path)
    return removed


def _is_ours(path: Path, before: str) -> bool:
    with open(path, "rb") as file:
        text = file.read(1 << 16).decode("utf-8", "replace")
    return MARK in text and f"main([{before}, " in text


def _interpreter(python: str) -> str:
    """Give the first line; a path with spaces, or a long one, is no interpreter to the kernel."""
    if " " not in python and len(python) < _LONGEST_INTERPRETER:
        return f"#!{python}"
    return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"


def import_paths() -> list[str]:
    """Give the folders that Perdure and all that it needs are imported from."""
    paths = {str(Path(__file__).parents[3])}
    seen: set[str] = set()
    pending = ["perdure"]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name != "perdure":
            paths.add(str(found.locate_file("")))
        pending += _needed(found.requires or ())
    return sorted(paths)


def _needed(requirements: Iterable[str]) -> Iterator[str]:
    for requirement in requirements:
        name = _NAME.match(requirement)
        if name and "extra ==" not in requirement:
            yield name[0]
