from __future__ import annotations

from datetime import UTC, datetime

import pytest
from small_repository import Site

from perdure.errors import RepositoryDamaged, UsageError, WrongPassword
from perdure.formats.keyfile import FOR_KEY_FILES, KdfParameters
from perdure.repository import Owner, Repository
from perdure.repository.keys import list_keys, open_key

CHEAP = KdfParameters(2, 1, 1)
OWNER = Owner("zope", "www2", datetime(2026, 11, 22, tzinfo=UTC))


def open_with(site: Site, password: str) -> Repository:
    return Repository.open(site.store, password, cache=None, clock=site.clock)


def test_several_passwords_open_one_repository(site: Site) -> None:
    name = site.repository.add_key("another", CHEAP, OWNER)

    assert open_with(site, "another").key_id == name
    assert open_with(site, "secret").id == open_with(site, "another").id
    assert [(k.username, k.hostname) for _, k in list_keys(site.store)] == [
        ("plone", "www1"),
        ("zope", "www2"),
    ]


def test_keys_are_removed_but_never_the_one_in_use(site: Site) -> None:
    name = site.repository.add_key("another", CHEAP, OWNER)

    with pytest.raises(UsageError, match="in use"):
        site.repository.remove_key(site.repository.key_id[:8])
    with pytest.raises(UsageError, match="2 keys"):
        site.repository.remove_key("")
    with pytest.raises(UsageError, match="0 keys"):
        site.repository.remove_key("zz")
    assert site.repository.remove_key(name[:10]) == name
    with pytest.raises(WrongPassword):
        open_with(site, "another")


def test_changing_the_password(site: Site) -> None:
    old = site.repository.key_id
    new = site.repository.change_password("changed", CHEAP, OWNER)

    assert site.names("keys") == [f"keys/{new}"]
    assert new == site.repository.key_id != old
    assert open_with(site, "changed").id == site.repository.id
    with pytest.raises(WrongPassword):
        open_with(site, "secret")


def test_a_damaged_key_is_named_unless_another_opens(site: Site) -> None:
    name = site.repository.add_key("another", CHEAP, OWNER)
    site.store.contents[f"keys/{name}"] += b" "

    assert open_with(site, "secret")
    with pytest.raises(RepositoryDamaged, match=f"keys/{name}"):
        open_with(site, "another")


def test_the_cheapest_key_is_tried_first(site: Site) -> None:
    site.repository.add_key("secret", KdfParameters(1 << 14, 8, 1), OWNER)
    cheap = site.repository.add_key("secret", CHEAP, OWNER)

    assert open_key(site.store, "secret").name == cheap
    assert CHEAP.work < FOR_KEY_FILES.work
