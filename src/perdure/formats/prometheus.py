r"""A file for the textfile collector of Prometheus's node_exporter: how the last backup went.

Text, UTF-8, lines that end with a line feed, in Prometheus's exposition format 0.0.4. Before the samples of a
metric stand two lines, ``# HELP name what it is`` and ``# TYPE name gauge``. A sample is a line::

    perdure_source_cut_timestamp_seconds{repository="/srv/backup",source="main"} 1795231200.0

In the value of a label ``\`` is written ``\\``, ``"`` is ``\"`` and a line feed ``\n``. All metrics are
gauges and have the label ``repository``, so that several files may lie in one folder. Times are seconds
since 1970, UTC.

==========================================  =======================================================
``perdure_last_success_timestamp_seconds``  when the last backup ended that went well
``perdure_last_run_timestamp_seconds``      when the last one ended, however it went
``perdure_last_run_exit_code``              its exit code: 0 success, 3 incomplete, others: failed
``perdure_duration_seconds``                how long it took
``perdure_bytes_added``                     bytes that the last snapshot added to the repository
``perdure_snapshot_incomplete``             1 if something is missing from the last snapshot
``perdure_source_cut_timestamp_seconds``    of each ``source``: the time up to which it was backed up
==========================================  =======================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PREFIX = "perdure_"
LAST_SUCCESS = "perdure_last_success_timestamp_seconds"
LAST_RUN = "perdure_last_run_timestamp_seconds"
EXIT_CODE = "perdure_last_run_exit_code"
DURATION = "perdure_duration_seconds"
BYTES_ADDED = "perdure_bytes_added"
INCOMPLETE = "perdure_snapshot_incomplete"
SOURCE_CUT = "perdure_source_cut_timestamp_seconds"
HELP = {
    LAST_SUCCESS: "When the last backup ended that went well, in seconds since 1970.",
    LAST_RUN: "When the last backup ended, however it went, in seconds since 1970.",
    EXIT_CODE: "Exit code of the last backup: 0 success, 3 incomplete, others failed.",
    DURATION: "How long the last backup took, in seconds.",
    BYTES_ADDED: "Bytes that the last snapshot added to the repository.",
    INCOMPLETE: "1 if something is missing from the last snapshot.",
    SOURCE_CUT: "The time up to which a source was backed up, in seconds since 1970.",
}
"""The metrics, in the order in which they are written."""
_VALUE = r'"((?:[^"\\\n]|\\["\\n])*)"'
_LABEL = re.compile(rf"([a-zA-Z_]\w*)={_VALUE},?", re.ASCII)
_SAMPLE = re.compile(rf"(\w+)\{{((?:[a-zA-Z_]\w*={_VALUE},?)*)\}} (\S+)", re.ASCII)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
_UNESCAPES = {escaped[1]: text for text, escaped in _ESCAPES.items()}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric, for one set of labels."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def encode(samples: Iterable[Sample]) -> str:
    """Give the text of a file, the samples of a metric together."""
    listed = list(samples)
    lines: list[str] = []
    for name, about in HELP.items():
        of_metric = [sample for sample in listed if sample.name == name]
        if of_metric:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
            lines += [_line(sample) for sample in of_metric]
    return "".join(f"{line}\n" for line in lines)


def decode(text: str) -> list[Sample]:
    """Give the samples of our metrics in a file; whatever else it has is not ours to judge."""
    samples = []
    for line in text.split("\n"):
        found = _SAMPLE.fullmatch(line)
        if not found or found[1] not in HELP:
            continue
        labels = tuple((name, _unescape(value)) for name, value in _LABEL.findall(found[2]))
        try:
            samples.append(Sample(found[1], labels, float(found[4])))
        except ValueError:
            continue
    return samples


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    """Give labels in the order of their names."""
    return tuple(sorted(given.items()))


def merge(old: Iterable[Sample], new: Mapping[tuple[str, object], Sample]) -> list[Sample]:
    """Lay new samples, by name and labels, over those of an earlier run."""
    merged: dict[tuple[str, object], Sample] = {
        (sample.name, sample.labels): sample for sample in old
    }
    merged.update(new)
    return list(merged.values())


def _line(sample: Sample) -> str:
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in sample.labels)
    return f"{sample.name}{{{inside}}} {float(sample.value)!r}"


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _UNESCAPES[found[1]], text)
