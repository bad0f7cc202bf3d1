"""Places in an object store, as a person writes them: read into their parts, and shown without secrets.

==================================================  ============================================
``s3://bucket/prefix``                              Amazon's
``s3://bucket/prefix?endpoint=https://host:port``   a compatible server's
``s3:https://host/bucket/prefix``, ``s3:host/...``  the same, as restic writes it
``gs://bucket/prefix``, ``gs:bucket:/prefix``       Google's (the second: as restic writes it)
``az://container/prefix``, ``azure:container:/...`` Microsoft's (the second: as restic writes it)
==================================================  ============================================

Behind ``?`` may stand ``endpoint``, ``region`` (S3), ``account`` (Azure) and ``timeout`` (seconds that a
request may take). A secret has no place in it: whoever lists processes or reads a log sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from perdure.errors import UsageError

_S3, _GS, _AZ = "s3", "gs", "az"
_OPTIONS = {
    _S3: {"endpoint", "region", "timeout"},
    _GS: {"endpoint", "timeout"},
    _AZ: {"endpoint", "account", "timeout"},
}
_RESTICS = {"gs": _GS, "azure": _AZ}
_AMAZON = re.compile(r"s3(?:[.-](?P<region>[a-z0-9-]+))?\.amazonaws\.com(?:\.cn)?")
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,254}")
TIMEOUT = 300.0
"""Seconds that a request may take, however it goes on: 16 MiB at 56 KB a second."""
_FORMS = (
    "write s3://bucket/prefix?endpoint=https://host, gs://bucket/prefix or az://container/prefix"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in a bucket; ``scheme`` is s3, gs or az, ``prefix`` has no slash at its ends."""

    scheme: str
    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    account: str | None = None
    timeout: float = TIMEOUT

    def __str__(self) -> str:
        given = (("endpoint", self.endpoint), ("region", self.region), ("account", self.account))
        query = "&".join(f"{name}={value}" for name, value in given if value)
        path = f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")
        return f"{path}?{query}" if query else path


def parse_place(location: str) -> Place:
    """Read a location. Raises UsageError; its message does not repeat what may hold a secret."""
    if "@" in location:
        raise UsageError(
            "a location with an @ may hold a password, and is not used",
            hint="give credentials by the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    scheme, _, rest = location.partition(":")
    try:
        if rest.startswith("//"):
            return _from_url(scheme, rest)
        if scheme == _S3:
            return _from_host(rest)
        bucket, colon, prefix = rest.partition(":")
        if colon and scheme in _RESTICS:
            return _checked(_RESTICS[scheme], bucket, prefix, {})
    except ValueError:  # what urlsplit says of a port or an address that is none
        pass
    raise UsageError(f"{location!r} is no place in an object store", hint=_FORMS)


def _from_url(scheme: str, rest: str) -> Place:
    parts = urlsplit(rest)
    if scheme not in _OPTIONS or parts.fragment:
        raise ValueError(scheme)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    unknown = sorted(options.keys() - _OPTIONS[scheme])
    if unknown:
        raise UsageError(
            f"a location with {scheme}:// has no option {unknown[0]!r}",
            hint=f"there are: {', '.join(sorted(_OPTIONS[scheme]))}; credentials come by the environment",
        )
    return _checked(scheme, parts.netloc, parts.path, options)


def _from_host(rest: str) -> Place:
    """Read what restic writes: a host, with or without a scheme, and the bucket as first folder."""
    url = rest if rest.startswith(("http://", "https://")) else f"https://{rest}"
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment:
        raise ValueError(rest)
    bucket, _, prefix = parts.path.strip("/").partition("/")
    amazon = _AMAZON.fullmatch(parts.netloc)
    if amazon:
        options = {"region": amazon["region"]} if amazon["region"] else {}
    else:
        options = {"endpoint": f"{parts.scheme}://{parts.netloc}"}
    return _checked(_S3, bucket, prefix, options)


def _checked(scheme: str, bucket: str, prefix: str, options: dict[str, str]) -> Place:
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket) or not {"", ".", ".."}.isdisjoint(
        f"{prefix or 'x'}".split("/")
    ):
        raise ValueError(bucket)
    endpoint = options.get("endpoint")
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or (parts.port or 1) < 1:
            raise UsageError(
                f"{endpoint!r} is no endpoint",
                hint="write endpoint=https://host or http://host:port",
            )
    return Place(
        scheme,
        bucket,
        prefix,
        endpoint.rstrip("/") if endpoint else None,
        options.get("region"),
        options.get("account"),
        _seconds(options["timeout"]) if "timeout" in options else TIMEOUT,
    )


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d{1,3})?)s?", text, re.ASCII)
    if not found or not float(found[1]):
        raise UsageError(f"{text!r} is no timeout", hint="write a number of seconds: timeout=60")
    return float(found[1])
