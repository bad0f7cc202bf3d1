"""What the tests of trees share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tree_site import TreeSite, tree_site


@pytest.fixture
def site() -> Iterator[TreeSite]:
    """A repository in memory; at the end it is checked."""
    yield from tree_site()
