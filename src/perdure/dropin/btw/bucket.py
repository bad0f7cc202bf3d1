"""The bucket that holds the copy: files in and out of it in parts, copies within it, and what lies there.

Files above 16 MiB go in parts; whatever stops before the last of them leaves no object, but parts that a
lifecycle rule of the bucket ("abort incomplete multipart uploads") should remove.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from perdure.dropin.btw.s3cmd import Connection
from perdure.errors import StoreError, UsageError
from perdure.stores.objectstore import ObjectStore

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

_PAGE = 1000
"""Names that a server gives in one answer to a list."""
_PART = 16 << 20
_MOST_PARTS = 9000
_AT_ONCE = 4
_OTHERS_PARTS = (15 << 20, 8 << 20, 5 << 20)
"""The parts of s3cmd, of Amazon's own program, and the smallest that there can be."""
_BLOCK = 1 << 20
_RETRIES = 4
_PATIENCE = timedelta(seconds=60)
_TIMEOUTS = {"timeout": "300s", "connect_timeout": "20s"}


@dataclass(frozen=True, slots=True)
class Found:
    """An object: its name below the prefix, its length, and the server's tag of its content."""

    name: str
    size: int
    tag: str


class Remote(Protocol):
    """What the copy needs of the place where it is. All raise StoreError."""

    @property
    def location(self) -> str:
        """Where it is, for messages."""

    def objects(self, folder: str) -> Iterator[Found]:
        """Give what lies below a folder; all there is for an empty name."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object, seen whole or not at all."""

    def put_file(self, name: str, path: Path) -> None:
        """Write an object of a file's content, seen whole or not at all."""

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Read an object. Raises NameNotFound."""

    def fetch(self, name: str, path: Path) -> None:
        """Write an object's content into a new file."""

    def copy(self, source: str, target: str) -> None:
        """Give an object's content to another name."""

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""


class Bucket(ObjectStore):
    """A place in a bucket."""

    def objects(self, folder: str) -> Iterator[Found]:
        """List names, sizes and tags. Raises StoreError."""
        with self._explained("list", folder or "the objects", bucket_only=True):
            for page in self._obstore.list(
                self._client, folder.strip("/") or None, chunk_size=_PAGE
            ):
                for each in page:
                    yield Found(each["path"], each["size"], (each["e_tag"] or "").strip('"'))

    def put_file(self, name: str, path: Path) -> None:
        """Write an object of a file. Raises StoreError, OSError."""
        size = path.stat().st_size
        with self._explained("write", name, bucket_only=True):
            self._obstore.put(
                self._client,
                name,
                path,
                use_multipart=size > _PART,
                chunk_size=part_size(size),
                max_concurrency=_AT_ONCE,
            )

    def fetch(self, name: str, path: Path) -> None:
        """Read an object into a file. Raises NameNotFound, StoreError, OSError."""
        written = 0
        with self._explained("read", name):
            answer = self._obstore.get(self._client, name)
            size = answer.meta["size"]
            with path.open("xb") as file:
                for block in answer.stream(min_chunk_size=_BLOCK):
                    written += file.write(block)
        if written != size:
            raise StoreError(f"cannot read {name} in {self.location}: it ends before byte {size}")

    def copy(self, source: str, target: str) -> None:
        """Copy within the bucket; what is too long for that (5 GB) goes through here. Raises StoreError."""
        with self._explained("copy", source):
            try:
                self._obstore.copy(self._client, source, target)
            except self._obstore.exceptions.GenericError as error:
                if "InvalidRequest" not in str(error):
                    raise
                size = self._obstore.head(self._client, source)["size"]
                blocks = self._obstore.get(self._client, source).stream(min_chunk_size=_BLOCK)
                self._obstore.put(
                    self._client, target, blocks, use_multipart=True, chunk_size=part_size(size)
                )


def open_bucket(connection: Connection, *, encrypted: bool) -> Bucket:
    """Open a bucket; nothing is asked of the server yet. Raises UsageError."""
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    endpoint = connection.endpoint
    config: dict[str, Any] = {
        "region": connection.region,
        "endpoint": endpoint,
        "access_key_id": connection.access_key,
        "secret_access_key": connection.secret_key,
        "session_token": connection.token,
        **(_encryption(connection) if encrypted else {}),
    }
    options: dict[str, Any] = {
        **_TIMEOUTS,
        "allow_http": bool(endpoint and endpoint.startswith("http://")),
        "allow_invalid_certificates": not connection.checks_certificate,
    }
    if connection.proxy:
        options["proxy_url"] = connection.proxy
    if connection.certificates:
        try:
            options["root_certificate"] = Path(connection.certificates).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {connection.certificates}: {error.strerror}") from None
    fixed = {
        "virtual_hosted_style_request": connection.virtual_host,
        "disable_bulk_delete": True,
    }
    try:
        client: Client = S3Store(
            connection.bucket,
            config={**{name: value for name, value in config.items() if value}, **fixed},  # type: ignore[arg-type]
            prefix=connection.prefix or None,
            client_options=options,  # type: ignore[arg-type]
            retry_config={"max_retries": _RETRIES, "retry_timeout": _PATIENCE},
        )
    except (BaseError, ValueError) as error:
        raise UsageError(f"the bucket {connection.bucket} cannot be opened: {error}") from None
    place = f"s3://{connection.bucket}/{connection.prefix}".rstrip("/")
    return Bucket(client, f"{place} at {endpoint}" if endpoint else place)


def _encryption(connection: Connection) -> dict[str, str]:
    if connection.kms_key:
        return {"server_side_encryption": "aws:kms", "sse_kms_key_id": connection.kms_key}
    return {"server_side_encryption": "AES256"}


def part_size(size: int) -> int:
    """Give the length of the parts in which so many bytes are sent."""
    needed = -(-size // _MOST_PARTS)
    return max(_PART, -(-needed // _BLOCK) * _BLOCK)


def has_content(path: Path, tag: str) -> bool:
    """Whether a server's tag is that of a file's content: its MD5, or that of its parts' MD5s.

    A tag that is made in another way, as some kinds of encryption do, tells nothing: False.
    """
    digest, _, parts = tag.partition("-")
    if len(digest) != 32:
        return False
    if not parts:
        return _md5(path, 0) == tag
    size = os.stat(path).st_size
    candidates = dict.fromkeys((part_size(size), *_OTHERS_PARTS))
    fitting = (part for part in candidates if parts == str(-(-size // part)))
    return any(_md5(path, part) == tag for part in fitting)


def _md5(path: Path, part: int) -> str:
    """Give the tag of a file that was sent in parts of a length, or (0) in one piece."""
    whole = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        if not part:
            return hashlib.file_digest(file, lambda: whole).hexdigest()
        count = 0
        while data := _exactly(file.read, part):
            whole.update(data)
            count += 1
    return f"{whole.hexdigest()}-{count}"


def _exactly(read: Any, length: int) -> bytes:
    """Give the MD5 of the next so many bytes; nothing at the end."""
    digest = hashlib.md5(usedforsecurity=False)
    left = length
    while left and (block := read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    return digest.digest() if left < length else b""
