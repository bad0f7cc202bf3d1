"""Writing about all keys: an example of perdure.toml, and a table of the keys with their variables."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from perdure.config.declaration import Key, keys, sections
from perdure.config.reading import as_toml
from perdure.config.values import Duration

SAID = ("repository.location", "repository.password-file", "source.filestorage")
"""The keys that an example cannot do without; all others are commented out."""
_HEAD = """\
# perdure.toml: what `perdure backup` does, so that nothing has to be said on a command line.
#
# Looked for: --config FILE, the variable PERDURE_CONFIG, ./perdure.toml, ~/.config/perdure/perdure.toml,
# /etc/perdure/perdure.toml. Paths are relative to this file. The command line comes before the environment,
# the environment before this file. `perdure config check` says what is wrong with it.
"""


def example() -> str:
    """Give a whole perdure.toml with comments: what cannot be guessed is set, the rest commented out."""
    return "\n".join([_HEAD, *(line for path in sections() for line in _section(path))])


def table() -> str:
    """Give a table in Markdown: key, variable, default, meaning."""
    lines = [f"| {' | '.join(('key', 'variable', 'default', 'meaning'))} |", "|---|---|---|---|"]
    for key in keys().values():
        default = "" if key.default in (None, ()) else f"`{_default(key)}`"
        lines.append(f"| `{key.path}` | `{key.variable}` | {default} | {key.about} |")
    return "\n".join(lines) + "\n"


def _default(key: Key) -> str:
    return as_toml(str(key.default) if isinstance(key.default, Duration) else key.default)


def _section(path: str) -> Iterator[str]:
    kind = sections()[path]
    for paragraph in (kind.__doc__ or "").split("\n\n"):
        yield from (f"# {line}" for line in wrap(" ".join(paragraph.split()), 100))
    inner = [key for key in keys().values() if key.section == path]
    live = any(key.path in SAID for key in inner)
    header = f"[[{path}]]" if path == "source" else f"[{path}]"
    yield header if live or path.count(".") == 0 else f"# {header}"
    for key in inner:
        yield f"# {key.about} ({key.variable})"
        line = f"{key.name} = {as_toml(key.example)}"
        yield line if key.path in SAID else "\n".join(f"# {part}" for part in line.split("\n"))
    yield ""
