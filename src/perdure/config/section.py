"""What a setting's declaration is made of: a section, and for each key what it is for and an example."""

from __future__ import annotations

from typing import Any

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A table of perdure.toml."""


def key(
    about: str, example: Any, variable: str | None = None, *, hidden: bool = False
) -> msgspec.Meta:
    """Declare a key: ``variable`` is that of the environment, ``hidden`` one that may hold a secret."""
    extra = {"example": example, "variable": variable, "hidden": hidden}
    return msgspec.Meta(description=about, extra=extra)
