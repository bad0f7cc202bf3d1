"""What a command prints: a table or a line for people, JSON for programs, progress for a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from perdure.cli import messages
from perdure.cli.options import Settings
from perdure.cli.reaching import Traffic

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY = 1.0
"""Seconds between two status events."""


class Output:
    """Standard output and standard error of one command."""

    def __init__(self, settings: Settings) -> None:
        self.quiet = settings.quiet
        self.verbose = settings.verbose
        self.json = settings.json
        self.traffic = Traffic()

    def line(self, text: str) -> None:
        """Say something to people, unless they want quiet."""
        if not (self.json or self.quiet):
            click.echo(text)

    def detail(self, text: str) -> None:
        """Say something to people who want to know more."""
        if self.verbose:
            self.line(text)

    def event(self, kind: str, values: Mapping[str, object]) -> None:
        """Print a JSON object on a line of its own, if JSON is wanted; a summary with its traffic."""
        if self.json:
            if kind == "summary" and self.traffic:
                values = {**values, "traffic": self.traffic.values()}
            sys.stdout.write(messages.event(kind, values))
            sys.stdout.flush()

    def warning(self, message: str) -> None:
        """Warn, on standard error."""
        sys.stderr.write(messages.warning(message, as_json=self.json))

    def table(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[str]],
        objects: Iterable[Mapping[str, object]],
        right: Sequence[str] = (),
    ) -> None:
        """Print a list: an array of JSON objects, or rows under heads; some of them right-aligned."""
        if self.json:
            self.array(objects)
        elif sys.stdout.isatty():
            _print_rich(heads, rows, right)
        else:
            _print_aligned(heads, rows, right)

    def array(self, objects: Iterable[Mapping[str, object]]) -> None:
        """Print a JSON array, an object at a time: a log may be long."""
        separator = "["
        for each in objects:
            sys.stdout.write(f"{separator}{json.dumps(each)}")
            separator = ",\n"
        sys.stdout.write("[]\n" if separator == "[" else "]\n")

    def lines(self, head: str, lines: Iterable[str]) -> None:
        """Print a list as it comes, under a head."""
        sys.stdout.write(f"{head}\n")
        for line in lines:
            sys.stdout.write(f"{line}\n")

    def observer(self) -> Watcher:
        """Give who shows how a long work goes on; a context manager."""
        return Watcher(self)


class Watcher:
    """Shows progress: a bar on a terminal, status events in JSON, otherwise nothing."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._shown = monotonic()
        self._shows_bar = not (output.json or output.quiet) and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, phase: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is behind us."""
        if self._shows_bar:
            self._move_bar(phase, done, total)
        elif self._output.json and monotonic() - self._shown >= _EVERY:
            self._shown = monotonic()
            self._output.event("status", {"phase": phase, "done": done, "total": total})

    def warning(self, message: str) -> None:
        """Warn: among the events in JSON, otherwise on standard error."""
        if self._output.json:
            self._output.event("warning", {"message": message})
        elif self._bar:
            self._bar.console.print(f"perdure: warning: {message}", markup=False, highlight=False)
        else:
            self._output.warning(message)

    def _move_bar(self, phase: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=total)
        self._bar.update(self._tasks[phase], completed=done, total=total)


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _print_rich(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _print_aligned(
    heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]
) -> None:
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, line, widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())
