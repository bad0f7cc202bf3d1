"""Who one is to an object store: the environment, and the files of Amazon's own programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.errors import UsageError
from perdure.stores.credentials import az_settings, certificates, gs_settings, s3_settings
from perdure.stores.places import parse_place

PLACE = parse_place("s3://bucket/x")
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with files of two profiles."""
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = ds\n"
        "[work]\naws_access_key_id = w\naws_secret_access_key = w%s\naws_session_token = t\n"
    )
    (folder / "config").write_text(
        "[default]\nregion = eu-1\n[profile work]\nregion = eu-2\nendpoint_url = http://host:1\n"
    )
    return {"HOME": str(tmp_path)}


def test_the_environment_comes_first(home: dict[str, str]) -> None:
    found = s3_settings(PLACE, home | KEYS | {"AWS_SESSION_TOKEN": "token"})
    assert found == {
        "access_key_id": "key",
        "secret_access_key": "secret",
        "session_token": "token",
        "region": "us-east-1",
    }


def test_the_profile_is_next(home: dict[str, str]) -> None:
    found = s3_settings(PLACE, home)
    assert found == {"access_key_id": "d", "secret_access_key": "ds", "region": "eu-1"}
    found = s3_settings(PLACE, home | {"AWS_PROFILE": "work"})
    assert found["secret_access_key"] == "w%s"
    assert (found["session_token"], found["region"]) == ("t", "eu-2")
    assert found["endpoint"] == "http://host:1"
    with pytest.raises(UsageError, match="no profile 'other'"):
        s3_settings(PLACE, home | {"AWS_PROFILE": "other"})


def test_the_location_says_more_than_both(home: dict[str, str]) -> None:
    place = parse_place("s3://bucket/x?endpoint=https://here&region=r")
    environment = home | {"AWS_REGION": "eu-3", "AWS_ENDPOINT_URL": "https://there"}
    found = s3_settings(place, environment)
    assert (found["endpoint"], found["region"]) == ("https://here", "r")
    found = s3_settings(PLACE, environment)
    assert (found["endpoint"], found["region"]) == ("https://there", "eu-3")


def test_nobody(tmp_path: Path) -> None:
    empty = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.raises(UsageError, match="no credentials"):
        s3_settings(PLACE, empty)
    with pytest.raises(UsageError, match="no secret"):
        s3_settings(PLACE, empty | {"AWS_ACCESS_KEY_ID": "key"})
    found = s3_settings(PLACE, empty | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/x"})
    assert found == {"region": "us-east-1"}


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("secret = geheim\n")
    with pytest.raises(UsageError) as caught:
        s3_settings(PLACE, {"AWS_SHARED_CREDENTIALS_FILE": str(path), "HOME": str(tmp_path)})
    assert "geheim" not in str(caught.value)


def test_google_and_azure() -> None:
    place = parse_place("gs://bucket/x?endpoint=http://127.0.0.1:1")
    assert gs_settings(place, {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}) == {
        "application_credentials": "/key.json",
        "base_url": "http://127.0.0.1:1",
    }
    restics = {"AZURE_ACCOUNT_NAME": "me", "AZURE_ACCOUNT_KEY": "k"}
    assert az_settings(parse_place("az://container/x"), restics) == {
        "account_name": "me",
        "account_key": "k",
    }
    with pytest.raises(UsageError, match="no account"):
        az_settings(parse_place("az://container/x"), {})


def test_certificates_that_are_trusted_too(home: dict[str, str], tmp_path: Path) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n"
    for name in ("own", "work", "restics"):
        (tmp_path / name).write_bytes(pem + name.encode())
    with (tmp_path / ".aws/config").open("a") as file:
        file.write(f"ca_bundle = {tmp_path}/work\n")
    assert certificates(PLACE, home) is None
    assert certificates(PLACE, home | {"AWS_PROFILE": "work"}) == pem + b"work"
    named = {"AWS_CA_BUNDLE": f"{tmp_path}/own", "RESTIC_CACERT": f"{tmp_path}/restics"}
    assert certificates(PLACE, home | named) == pem + b"own"
    assert certificates(parse_place("az://container"), named) == pem + b"restics"
    with pytest.raises(UsageError, match=r"cannot read the certificates in .*No such file"):
        certificates(PLACE, {"AWS_CA_BUNDLE": f"{tmp_path}/none"})
    with pytest.raises(UsageError, match="has no certificates"):
        certificates(PLACE, {"AWS_CA_BUNDLE": f"{tmp_path}/.aws/config"})
