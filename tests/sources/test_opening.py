"""What is shown of a storage's configuration, and what never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.errors import SourceUnusable
from perdure.sources.opening import describe, read_text, without_secrets
from perdure.sources.storage import StorageSource

POSTGRESQL = """
%import relstorage
<relstorage main>
  keep-history false
  blob-dir /srv/blobs
  <postgresql>
    # password='no comment either'
    dsn dbname='zodb' user='zope' host='db.example.com' password='ge heim' port=5432
  </postgresql>
</relstorage>
"""


@pytest.mark.parametrize(
    ("zconfig", "place"),
    [
        (POSTGRESQL, "relstorage postgresql dbname=zodb host=db.example.com port=5432"),
        (
            "<relstorage>\n<postgresql>\ndsn postgresql://zope:geheim@db:5433/site?sslmode=require\n",
            "relstorage postgresql host=db port=5433 dbname=site",
        ),
        (
            "<relstorage>\n<mysql>\nhost db\ndb zodb\nuser u\npasswd geheim\n",
            "relstorage mysql host=db db=zodb",
        ),
        (
            "%define PASSWORD geheim\n<zeoclient>\n server localhost:8100\n password $PASSWORD\n storage 1\n",
            "zeoclient server=localhost:8100 storage=1",
        ),
        (
            "<zlibstorage>\n<filestorage>\npath /srv/Data.fs\n",
            "zlibstorage filestorage path=/srv/Data.fs",
        ),
        ("", ""),
    ],
)
def test_places(zconfig: str, place: str) -> None:
    assert describe(zconfig) == place
    assert StorageSource(zconfig).place == place


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("FATAL: no pg_hba entry", "FATAL: no pg_hba entry"),
        ("could not use 'ge heim'", "could not use ***"),
        ("could not use ge heim here", "could not use *** here"),
        ('invalid dsn: missing "=" after "heim"', "its dsn cannot be taken apart"),
    ],
)
def test_messages(message: str, shown: str) -> None:
    assert without_secrets(message, POSTGRESQL) == shown


@pytest.mark.parametrize("key", ["passwd geheim", "password geheim", "%define DB_PASSWORD geheim"])
def test_every_secret_key(key: str) -> None:
    assert "geheim" not in without_secrets("it said geheim, geheim.", f"<x>\n  {key}\n</x>")


@pytest.mark.parametrize(
    "zconfig",
    [
        "",
        "<filestorage>\n",
        "<relstorage>\n</relstorage>\n",
        "%import no_such_package_anywhere\n<filestorage>\n path x\n</filestorage>\n",
        "<filestorage>\n path a\n</filestorage>\n<filestorage>\n path b\n</filestorage>\n",
        "<filestorage>\n path /does/not/exist/Data.fs\n</filestorage>\n",
        "<demostorage>\n <filestorage 1>\n  path /no/a\n </filestorage>\n</demostorage>\n",
    ],
)
def test_what_cannot_be_opened(zconfig: str) -> None:
    with pytest.raises(SourceUnusable) as error, StorageSource(zconfig).cut():
        pass
    assert error.value.exit_code == 14
    assert error.value.hint


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "storage.conf"
    with pytest.raises(SourceUnusable, match="cannot be read"):
        read_text(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SourceUnusable, match="not UTF-8"):
        StorageSource.from_file(path)
    path.write_text("<zeoclient>\n server a:1\n</zeoclient>")
    source = StorageSource.from_file(path, "main")
    assert (source.name, source.place) == ("main", "zeoclient server=a:1")
