"""Who one is to an object store: from the environment, and from the files of its usual programs.

S3: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``; else the profile
(``AWS_PROFILE``, or ``default``) in ``~/.aws/credentials`` and ``~/.aws/config``; else what the
environment says of a container's or a web identity's role; else the role of the machine, which Amazon's
machines learn from their metadata service. Google: ``GOOGLE_APPLICATION_CREDENTIALS``, or what ``gcloud``
keeps, or the machine's. Azure: ``AZURE_STORAGE_ACCOUNT_NAME`` and ``_KEY`` or ``AZURE_STORAGE_SAS_TOKEN``;
restic's names ``AZURE_ACCOUNT_NAME``, ``AZURE_ACCOUNT_KEY`` and ``AZURE_ACCOUNT_SAS`` are read, too.

Whom one believes to be the server: the system's certificates, and those in the file that ``AWS_CA_BUNDLE``
names (S3; ``ca_bundle`` in a profile), or ``RESTIC_CACERT``.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

from perdure.errors import UsageError
from perdure.stores.places import Place

_LONGEST = 1 << 20
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_FIRST_REGION = "us-east-1"  # what servers that have no regions call theirs


def s3_settings(place: Place, environment: Mapping[str, str]) -> dict[str, str]:
    """Give obstore's settings for a place. Raises UsageError where there are no credentials."""
    profile = _profile(environment)
    key = environment.get("AWS_ACCESS_KEY_ID") or profile.get("aws_access_key_id")
    settings = {
        "region": place.region
        or environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
        or profile.get("region")
        or _FIRST_REGION,
        "endpoint": place.endpoint
        or environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
        or profile.get("endpoint_url"),
        "access_key_id": key,
        "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY")
        if environment.get("AWS_ACCESS_KEY_ID")
        else profile.get("aws_secret_access_key"),
        "session_token": environment.get("AWS_SESSION_TOKEN") or profile.get("aws_session_token"),
    }
    if key and not settings["secret_access_key"]:
        raise _nobody(place, "an access key is given, but no secret", "AWS_SECRET_ACCESS_KEY")
    asks_machine = environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true"
    if not (key or asks_machine or any(environment.get(role) for role in _ROLES)):
        raise _nobody(place, "no credentials are given", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")
    return {name: value for name, value in settings.items() if value}


def certificates(place: Place, environment: Mapping[str, str]) -> bytes | None:
    """Give certificates, as PEM, that are trusted beside the system's. Raises UsageError."""
    named = None
    if place.scheme == "s3":
        named = environment.get("AWS_CA_BUNDLE") or _profile(environment).get("ca_bundle")
    named = named or environment.get("RESTIC_CACERT")
    if not named:
        return None
    try:
        with Path(named).expanduser().open("rb") as file:
            found = file.read(_LONGEST)
    except OSError as error:
        raise UsageError(
            f"cannot read the certificates in {named}: {error.strerror}",
            hint="AWS_CA_BUNDLE, ca_bundle in ~/.aws/config, or RESTIC_CACERT names the file",
        ) from error
    if b"-----BEGIN CERTIFICATE-----" not in found:
        raise UsageError(f"{named} has no certificates", hint="such a file is PEM: text")
    return found


def gs_settings(place: Place, environment: Mapping[str, str]) -> dict[str, str]:
    """Give obstore's settings for a place."""
    found = {
        "application_credentials": environment.get("GOOGLE_APPLICATION_CREDENTIALS"),
        "base_url": place.endpoint,
    }
    return {name: value for name, value in found.items() if value}


def az_settings(place: Place, environment: Mapping[str, str]) -> dict[str, str]:
    """Give obstore's settings for a place. Raises UsageError when no account is named."""

    def first(*names: str) -> str | None:
        return next((environment[name] for name in names if environment.get(name)), None)

    settings = {
        "account_name": place.account or first("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_ACCOUNT_NAME"),
        "account_key": first("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_ACCOUNT_KEY"),
        "sas_key": first("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY", "AZURE_ACCOUNT_SAS"),
        "endpoint": place.endpoint,
    }
    if not settings["account_name"]:
        raise _nobody(place, "no account is named", "AZURE_STORAGE_ACCOUNT_NAME")
    return {name: value for name, value in settings.items() if value}


def _profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Read the profile of the files in ~/.aws, unless the environment has keys.

    Raises UsageError for a named one that is not there.
    """
    if environment.get("AWS_ACCESS_KEY_ID"):
        return {}
    name = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    home = Path(environment.get("HOME") or "/") / ".aws"
    config = Path(environment.get("AWS_CONFIG_FILE") or home / "config")
    credentials = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials")
    wanted = name or "default"
    found = {
        **_section(config, wanted if wanted == "default" else f"profile {wanted}"),
        **_section(credentials, wanted),
    }
    if name and not found:
        raise UsageError(
            f"there is no profile {name!r} in {credentials} or {config}",
            hint="AWS_PROFILE names it; without it the profile default is used",
        )
    return found


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_string(file.read(_LONGEST))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError):
        raise UsageError(f"{path} is not written as such files are") from None  # it holds secrets
    return dict(parser[name]) if parser.has_section(name) else {}


def _nobody(place: Place, why: str, variables: str) -> UsageError:
    return UsageError(
        f"{place} cannot be opened: {why}", hint=f"set {variables} in the environment"
    )
