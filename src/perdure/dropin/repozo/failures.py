"""What can go wrong in a repozo repository, by repozo's names for it."""

from __future__ import annotations

from perdure.errors import DamageFound, SourceUnusable


class NoFiles(SourceUnusable):
    """The repository has no backup, or none that is old enough."""


class VerificationFail(DamageFound):
    """A file of the repository is missing, or is not what was written."""
