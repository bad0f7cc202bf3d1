"""Put small programs with the names of the older ones into a folder, for lines that call those."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.names import PROGRAMS
from perdure.errors import StoreError, UsageError
from perdure.sources.durable import sync_directory

_MARK = "# Written by perdure dropins; it is written anew by it, and may be deleted."


@dataclass(frozen=True, slots=True)
class Program:
    """One program that is to be in the folder."""

    path: Path
    script: str
    standing: str | None
    """What is there under its name: ``ours``, ``foreign``, or None for nothing."""
    current: bool
    """Whether what is there is the same already."""


def plan(folder: Path, perdure: Sequence[str], names: Iterable[str] = ()) -> tuple[Program, ...]:
    """Say what would be written: for each name, or for all, a script that runs ``perdure``.

    Raises UsageError for a name that no drop-in has.
    """
    wanted = list(names) or sorted(PROGRAMS)
    unknown = [name for name in wanted if name not in PROGRAMS]
    if unknown:
        raise UsageError(
            f"nothing stands in for {', '.join(unknown)}",
            hint=f"there are {', '.join(sorted(PROGRAMS))}",
        )
    return tuple(_program(folder, name, perdure) for name in wanted)


def install(programs: Sequence[Program]) -> None:
    """Write the programs, executable. Raises UsageError before anything is written if one is not ours."""
    foreign = [str(each.path) for each in programs if each.standing == "foreign"]
    if foreign:
        raise UsageError(
            f"{', '.join(foreign)} is there, and was not written by perdure: nothing is written",
            hint="give another folder, and put it before the other one in PATH",
        )
    for program in programs:
        if not program.current:
            _write(program)


def _program(folder: Path, name: str, perdure: Sequence[str]) -> Program:
    command = shlex.join([*perdure, *PROGRAMS[name]])
    script = f'#!/bin/sh\n{_MARK}\nexec {command} "$@"\n'
    path = folder / name
    try:
        text = path.read_bytes().decode(errors="replace")
        executable = os.access(path, os.X_OK)
    except FileNotFoundError:
        standing, text, executable = "foreign" if path.is_symlink() else None, "", False
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    else:
        ours = not path.is_symlink() and _MARK in text.splitlines()[:3]
        standing = "ours" if ours else "foreign"
    return Program(path, script, standing, text == script and executable)


def _write(program: Program) -> None:
    path = program.path
    temporary = path.with_name(f".{path.name}.perdure-new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(program.script)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
