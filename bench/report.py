"""Tables of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.targets import Runs, Verdict, middle


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table: the first column to the left, the others to the right."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    out = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        out.append("  ".join(cells).rstrip())
    out.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(out)


def steps(runs: Runs) -> str:
    """Show each step: every tool's costs, and Perdure's as a ratio of theirs."""
    parts = []
    for step in dict.fromkeys(step for step, _ in runs):
        tools = [tool for at, tool in runs if at == step]
        own = runs.get((step, "perdure"), [])
        rows = []
        for tool in tools:
            costs = runs[step, tool]
            row = [
                tool,
                *(
                    _cell(middle(costs, field), field)
                    for field in ("wall", "cpu", "rss", "read", "added")
                ),
            ]
            for field in ("wall", "cpu", "added"):
                mine, theirs = middle(own, field), middle(costs, field)
                row.append(
                    f"{mine / theirs:.3f}"
                    if mine is not None and theirs and tool != "perdure"
                    else ""
                )
            rows.append(row)
        heads = [
            step,
            "wall s",
            "CPU s",
            "RSS MB",
            "read MB",
            "added MB",
            "x wall",
            "x CPU",
            "x added",
        ]
        parts.append(table(heads, rows))
    return "\n\n".join(parts)


def growth(sizes: Mapping[str, Runs]) -> str:
    """Show how the wall time, the bytes read and the memory of each step grow with the database."""
    keys = [
        key for key in next(iter(sizes.values())) if all(key in runs for runs in sizes.values())
    ]
    names = list(sizes)
    heads = ["step, tool"]
    for what in ("s", "read MB", "RSS MB"):
        heads += [f"{name} {what}" for name in names]
    heads.append("growth of wall")
    rows = []
    for step, tool in keys:
        row = [f"{step}, {tool}"]
        for field in ("wall", "read", "rss"):
            row += [_cell(middle(runs[step, tool], field), field) for runs in sizes.values()]
        first, last = (middle(sizes[name][step, tool], "wall") for name in (names[0], names[-1]))
        row.append(f"{last / first:.2f}" if first and last else "")
        rows.append(row)
    return table(heads, rows)


def verdicts(found: Iterable[Verdict]) -> str:
    """Show the targets and whether they are reached."""
    rows = [
        [
            v.measure,
            v.against,
            f"{v.reached:.3f} {v.unit}",
            f"{v.limit:.3g} {v.unit}",
            "ok" if v.ok else "MISSED",
        ]
        for v in found
    ]
    return table(["target", "against", "reached", "at most", ""], rows)


def _cell(value: float | None, field: str) -> str:
    if value is None:
        return "?"
    if field in ("wall", "cpu"):
        return f"{value:.2f}"
    return f"{value / 1e6:.2f}" if field == "added" else f"{value / 1e6:.0f}"
