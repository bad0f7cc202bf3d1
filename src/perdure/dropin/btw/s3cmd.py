"""The settings of an s3cmd configuration file, as far as they say how to reach a bucket.

The file is lines ``name = value`` below ``[default]``. Used are ``access_key``, ``secret_key``,
``access_token``, ``host_base``, ``host_bucket``, ``bucket_location``, ``use_https``,
``check_ssl_certificate``, ``ca_certs_file``, ``proxy_host``, ``proxy_port`` and ``kms_key``. A file that
has s3cmd encrypt by itself (``encrypt = True``) is refused: what would be copied here is not what was
copied before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.errors import UsageError

SIZE_LIMIT = 1 << 18
"""Bytes of a file."""

_LINE = re.compile(r"\s*([A-Za-z0-9_]+)\s*=\s*(.*?)\s*")
_URI = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/(.*))?")
_AMAZON = re.compile(r"s3[.-]?[a-z0-9-]*\.amazonaws\.com(?:\.cn)?")
_PLACEHOLDER = "%(bucket)"
_REGIONS = {"": "us-east-1", "US": "us-east-1", "EU": "eu-west-1"}


@dataclass(frozen=True, slots=True)
class Connection:
    """How a bucket is reached. Without keys, the machine's own role is used."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None
    virtual_host: bool
    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(repr=False)
    kms_key: str
    checks_certificate: bool
    certificates: str
    """A file of certificates to trust; empty for the system's."""
    proxy: str


def parse_s3cmd(text: str) -> Mapping[str, str]:
    """Read the text of a file; what is no setting is skipped, as s3cmd does."""
    found = (_LINE.fullmatch(line) for line in text.splitlines() if not line.startswith(("#", ";")))
    return {each[1]: _unquoted(each[2]) for each in found if each}


def connection(settings: Mapping[str, str], uri: str, server: str | None) -> Connection:
    """Say how the bucket of a URI is reached; ``server`` overrides the host. Raises UsageError."""
    place = _URI.fullmatch(uri)
    if not place:
        raise UsageError(f"S3_URI_PREFIX is no place in S3: {uri!r}", hint="write s3://bucket/path")
    if _true(settings, "encrypt", default=False):
        raise UsageError(
            "the s3cmd configuration has encrypt = True, which is not supported",
            hint="have the server encrypt, which is asked for by default; or use a Perdure repository",
        )
    bucket, prefix = place[1], (place[2] or "").strip("/")
    host = server or settings.get("host_base") or "s3.amazonaws.com"
    virtual = not server and _PLACEHOLDER in settings.get("host_bucket", _PLACEHOLDER)
    region = settings.get("bucket_location", "")
    proxy = settings.get("proxy_host", "")
    return Connection(
        bucket=bucket,
        prefix=prefix,
        region=_REGIONS.get(region, region),
        endpoint=_endpoint(settings, host, bucket if virtual else None),
        virtual_host=virtual,
        access_key=settings.get("access_key", ""),
        secret_key=settings.get("secret_key", ""),
        token=settings.get("access_token", ""),
        kms_key=settings.get("kms_key", ""),
        checks_certificate=_true(settings, "check_ssl_certificate", default=True),
        certificates=settings.get("ca_certs_file", ""),
        proxy=f"http://{proxy}:{settings.get('proxy_port') or '3128'}" if proxy else "",
    )


def _endpoint(settings: Mapping[str, str], host: str, bucket: str | None) -> str | None:
    """Give the URL of the server; None for Amazon's own, which follows from the region."""
    if _AMAZON.fullmatch(host) and _true(settings, "use_https", default=True):
        return None
    scheme, separator, rest = host.rpartition("://")
    if not separator:
        scheme = "https" if _true(settings, "use_https", default=True) else "http"
    pattern = settings.get("host_bucket", "")
    if bucket and pattern:
        rest = pattern.replace("%(bucket)s", bucket)
    return f"{scheme}://{rest.rstrip('/')}"


def _true(settings: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = settings.get(name, "").lower()
    return value in {"1", "true", "yes", "on"} if value else default


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
