"""A store in a bucket of an object store: S3 and what is compatible with it, Google's, Azure's.

Each verb is one request (``list``: one for each thousand names), without retries: who wants these wraps
the store in `perdure.stores.retrying.RetryingStore`. A put is one request, too, never one of several parts:
so no half of it can stay behind, and it is seen whole or not at all. What is not asked of the server:
conditional puts, versions, or anything else that not all of them have. Names in a repository are those of
contents or drawn at random, so nothing is ever put under a name that has another content.

A delete does not tell whether there was anything, since S3 does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perdure.errors import NameNotFound, StoreError, StoreUnavailable, UsageError
from perdure.stores.credentials import az_settings, certificates, gs_settings, s3_settings
from perdure.stores.places import Place
from perdure.stores.wrappers import PAGE

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504, 509}
_TRANSIENT_CODES = {"RequestTimeout", "SlowDown", "InternalError", "OperationAborted"}
_STATUS = re.compile(r"status code: (\d{3})([A-Za-z -]*)")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_TOLD = re.compile(r'message: "([^"\n]{1,120})"|error: "([^"\n]{1,120})"')
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w{1,40})")
_METADATA = "169.254.169.254"
"""Where Amazon's machines ask which role they have."""
_NO_KEY = "Invalid Access Key"
_NO_RANGES = "non-partial response"
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws/credentials",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, and _KEY or AZURE_STORAGE_SAS_TOKEN",
}
_KEYS = f"check {_CREDENTIALS['s3']}"
_HINTS = {
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key; {_KEYS}",
    "InvalidAccessKeyId": f"the server does not know the access key; {_KEYS}",
    "InvalidToken": "the session token is not valid; get new credentials",
    "ExpiredToken": "the credentials have expired; get new ones",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "NoSuchBucket": "make the bucket first (Perdure makes none), or correct its name",
    "ContainerNotFound": "make the container first (Perdure makes none), or correct its name",
    "AuthorizationHeaderMalformed": "the bucket is in another region; add region=... to the location",
    "PermanentRedirect": "the bucket is elsewhere; add region=... or another endpoint=... to the location",
    "QuotaExceeded": "make room there; what was stored before is whole",
    "XMinioStorageFull": "make room there; what was stored before is whole",
}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_FORBIDDEN = (
    "the credentials lack the right to do this there; reading needs Get and List, a backup Put and"
    " Delete (of locks). Or they are wrong: check"
)
_UNTRUSTED = "name a file with the certificate of its authority in AWS_CA_BUNDLE or RESTIC_CACERT"
_UNREACHABLE = "is the endpoint right, and can this machine reach it?"


class ObjectStore:
    """A store below a prefix in a bucket."""

    def __init__(self, client: Client, location: str) -> None:
        import obstore

        self._obstore = obstore
        self._client = client
        self._location = location
        self._whole: tuple[str, bytes] | None = None
        self._gives_ranges = True

    @property
    def location(self) -> str:
        """The place as a URL."""
        return self._location

    def put(self, name: str, data: bytes) -> None:
        """Write in one request. Raises StoreError, StoreUnavailable."""
        with self._explained("write", name, bucket_only=True):
            self._obstore.put(self._client, name, data, use_multipart=False)

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Read an object or a part of it. Raises NameNotFound, StoreError, StoreUnavailable."""
        with self._explained("read", name):
            if stop is not None and stop <= start:
                self._obstore.head(self._client, name)
                return b""
            data = self._read(name, start, stop)
        if stop is not None and len(data) != stop - start:
            raise StoreError(f"cannot read {name} in {self._location}: it ends before byte {stop}")
        return data

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give name and size of all objects below a folder. Raises StoreError, StoreUnavailable."""
        with self._explained("list", prefix, bucket_only=True):
            pages = self._obstore.list(self._client, prefix.rstrip("/"), chunk_size=PAGE)
            for page in pages:
                for found in page:
                    yield found["path"], found["size"]

    def size(self, name: str) -> int:
        """Ask for an object's length. Raises NameNotFound, StoreError, StoreUnavailable."""
        with self._explained("look at", name):
            return self._obstore.head(self._client, name)["size"]

    def delete(self, name: str) -> None:
        """Remove an object, if it is there. Raises StoreError, StoreUnavailable."""
        with self._explained("delete", name):
            self._obstore.delete(self._client, name)

    def _read(self, name: str, start: int, stop: int | None) -> bytes:
        if start == 0 and stop is None:
            return self._obstore.get(self._client, name).bytes().to_bytes()
        if self._gives_ranges:
            try:
                if stop is None:
                    behind = self._obstore.get(
                        self._client, name, options={"range": {"offset": start}}
                    )
                    return behind.bytes().to_bytes()
                return self._obstore.get_range(self._client, name, start=start, end=stop).to_bytes()
            except self._obstore.exceptions.GenericError as error:
                if "416" in str(error) and _STATUS.search(str(error)):
                    return b""
                if _NO_RANGES not in str(error):
                    raise
                self._gives_ranges = False
        return self._read_from_whole(name)[start:stop]

    def _read_from_whole(self, name: str) -> bytes:
        """Read all of an object where a server gives no ranges (rclone's); the last one is kept."""
        kept = self._whole
        if kept is None or kept[0] != name:
            kept = name, self._obstore.get(self._client, name).bytes().to_bytes()
            self._whole = kept
        return kept[1]

    @contextmanager
    def _explained(self, verb: str, name: str, *, bucket_only: bool = False) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if bucket_only or any(code in str(error) for code in _NO_BUCKET):
                raise self._failure(verb, name, error) from None
            message = f"cannot {verb} {name} in {self._location}: there is no such object"
            raise NameNotFound(message) from None
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise self._failure(verb, name, error) from None

    def _failure(self, verb: str, name: str, error: Exception) -> StoreError:
        """Say what a server answered, or that it did not; the library's own text has too much in it."""
        text = str(error)
        status, code = _STATUS.search(text), _CODE.search(text)
        what = f"cannot {verb} {name} in {self._location}"
        if status is None and _METADATA in text:
            return StoreError(
                f"{what}: no credentials are given, and this machine has no role", hint=_KEYS
            )
        refused = _CERTIFICATE.search(text)
        if status is None and refused:
            why = f"the server's certificate is not accepted: {refused[1]}"
            return StoreError(f"{what}: {why}", hint=_UNTRUSTED)
        if status is None:
            return StoreUnavailable(f"{what}: {_reason(text)}", hint=_UNREACHABLE)
        number, named = int(status[1]), code[1] if code else ""
        if number == 404 and not named:
            named = "NoSuchBucket"
        answer = f"{number}{status[2].rstrip()}{f' ({named})' if named else ''}"
        hint = _HINTS.get(named)
        if number in {401, 403} and not hint:
            hint = f"{_FORBIDDEN} {_CREDENTIALS[self._location.partition(':')[0]]}"
        kind = StoreError
        if number in _TRANSIENT or named in _TRANSIENT_CODES:
            kind = StoreUnavailable
        return kind(f"{what}: the server answered {answer}", hint=hint)


def _reason(text: str) -> str:
    """Find out of what the library says why there was no answer."""
    told = _TOLD.search(text)
    if told:
        return (told[1] or told[2]).lower()
    if "kind: Timeout" in text or "TimedOut" in text:
        return "no answer came in time"
    return "the connection broke" if "HttpError" in text else _shortened(text)


def open_object_store(place: Place, environment: Mapping[str, str]) -> ObjectStore:
    """Give the store of a place; nothing is asked of the server yet. Raises UsageError."""
    from obstore.exceptions import BaseError

    try:
        return ObjectStore(_CLIENTS[place.scheme](place, environment), str(place))
    except (BaseError, ValueError) as error:
        if _NO_KEY in str(error):  # the rest of it tells which character of the secret is wrong
            raise UsageError(f"{place} cannot be opened: the account's key is not base64") from None
        raise UsageError(f"{place} cannot be opened: {_shortened(str(error))}") from None


def _s3(place: Place, environment: Mapping[str, str]) -> Client:
    from obstore.store import S3Store

    settings: Any = s3_settings(place, environment)
    endpoint = settings.get("endpoint", "")
    settings |= {"virtual_hosted_style_request": False, "disable_bulk_delete": True}
    return S3Store(place.bucket, config=settings, **_shared(place, environment, endpoint))


def _gs(place: Place, environment: Mapping[str, str]) -> Client:
    from obstore.store import GCSStore

    settings: Any = gs_settings(place, environment)
    return GCSStore(
        place.bucket, config=settings, **_shared(place, environment, settings.get("base_url", ""))
    )


def _az(place: Place, environment: Mapping[str, str]) -> Client:
    from obstore.store import AzureStore

    settings: Any = az_settings(place, environment)
    return AzureStore(
        place.bucket, config=settings, **_shared(place, environment, settings.get("endpoint", ""))
    )


_CLIENTS: dict[str, Callable[[Place, Mapping[str, str]], Client]] = {
    "s3": _s3,
    "gs": _gs,
    "az": _az,
}


def _shared(place: Place, environment: Mapping[str, str], endpoint: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "timeout": f"{int(place.timeout * 1000)}ms",
        "connect_timeout": f"{int(min(place.timeout, 20) * 1000)}ms",
    }
    trusted = certificates(place, environment)
    if trusted:
        options["root_certificate"] = trusted
    return {
        "prefix": place.prefix or None,
        "client_options": options,
        "retry_config": {"max_retries": 0},
    }


def _shortened(text: str) -> str:
    first = text.splitlines()[0] if text else "no reason was given"
    return first if len(first) < 300 else f"{first[:300]}..."
