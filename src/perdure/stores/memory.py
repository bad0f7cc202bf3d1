"""A store in memory: for tests, and under `perdure.stores.wrappers.DryRunStore`."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.errors import NameNotFound, StoreError


class MemoryStore:
    """A store whose bytes end with the process."""

    def __init__(self, location: str = "memory") -> None:
        self.contents: dict[str, bytes] = {}
        self._location = location

    @property
    def location(self) -> str:
        """The name it was given."""
        return self._location

    def put(self, name: str, data: bytes) -> None:
        """Keep a copy."""
        self.contents[name] = bytes(data)

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Give a part. Raises NameNotFound, StoreError."""
        data = self._find(name)
        if stop is not None and stop > len(data):
            raise StoreError(f"cannot read {name} in {self.location}: it ends before byte {stop}")
        return data[start:stop]

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give what is there now."""
        for name, data in list(self.contents.items()):
            if name.startswith(prefix):
                yield name, len(data)

    def size(self, name: str) -> int:
        """Give a length. Raises NameNotFound."""
        return len(self._find(name))

    def delete(self, name: str) -> None:
        """Forget a name. Raises NameNotFound."""
        self._find(name)
        del self.contents[name]

    def _find(self, name: str) -> bytes:
        try:
            return self.contents[name]
        except KeyError:
            raise NameNotFound(f"there is no {name} in {self.location}") from None
