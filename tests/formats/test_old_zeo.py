"""Messages of the old ZEO: what Python 2's server sent is read, and nothing of it is imported or called."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import StoreError
from perdure.formats.old_zeo import (
    MOST_BYTES,
    Message,
    Opaque,
    agree,
    decode,
    encode_call,
    frame,
    frame_size,
)

# From ZEO of ZODB3 3.8.6 with a DirectoryStorage 1.1.21.
NOTHING = b"(K\x01K\x00U\x06.replyNt."
CODE = b"(K\x05K\x00U\x06.replyU\tuser/me-1t."
FAILURE = (
    b"(K\x06K\x00U\x06.reply(cDirectoryStorage.utils\nDirectoryStorageError\n"
    b"cZODB.POSException\n_recon\n(cDirectoryStorage.utils\nDirectoryStorageError\n}(U\x07message"
    b"U\"bad code 'user/other'!='user/me-1'U\x04args(U\"bad code 'user/other'!='user/me-1'tutRtt."
)


def test_answers() -> None:
    assert decode(NOTHING) == Message(1, 0, ".reply", None)
    assert decode(CODE).content == "user/me-1"
    assert decode(CODE).failure is None
    assert decode(FAILURE).failure == "DirectoryStorageError: bad code 'user/other'!='user/me-1'"


def test_a_call_is_what_python_2_reads() -> None:
    call = encode_call(3, "enter_snapshot", "host-1", 0)
    assert pickle.loads(call) == (3, 0, "enter_snapshot", ("host-1", 0))


def test_nothing_is_called() -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch /tmp/perdure-was-here",)

    for protocol in range(3):
        message = decode(pickle.dumps((1, 0, ".reply", (Evil(), Evil())), protocol))
        assert isinstance(message.content[0], Opaque)
        assert message.content[0].name.endswith("system")
    assert not os.path.exists("/tmp/perdure-was-here")


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_all_sorts_of_values(protocol: int) -> None:
    value = {"a": [1, 2.5, None, True], "b": ("x" * 300, 1 << 70)}
    message = decode(pickle.dumps((1, 1, "invalidateTransaction", value), protocol))
    assert (message.number, message.flags, message.method) == (1, 1, "invalidateTransaction")


@pytest.mark.parametrize("content", [b"", b"N.", NOTHING[:-3], b"(K\x01t.", b"\x80\x05" + NOTHING])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    if content.startswith(b"\x80\x05"):
        assert decode(content).number == 1  # a protocol mark changes nothing
        return
    with pytest.raises(StoreError):
        decode(content)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for each in (content, NOTHING[:8] + content, FAILURE[:20] + content + b"."):
        with suppress(StoreError):
            decode(each)


def test_lengths_are_bounded() -> None:
    assert frame_size(frame(b"abc")[:4]) == 3
    with pytest.raises(StoreError, match="no ZEO server of the old kind"):
        frame_size((MOST_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(StoreError, match="signs its messages"):
        frame_size(b"\x80\x00\x00\x05")


@pytest.mark.parametrize("greeting", [b"Z303", b"Z308", b"Z3101"])
def test_old_protocols_are_agreed_to(greeting: bytes) -> None:
    assert agree(greeting) == greeting


@pytest.mark.parametrize("greeting", [b"Z5", b"M5", b"HTTP/1.1", b""])
def test_others_are_not(greeting: bytes) -> None:
    with pytest.raises(StoreError, match="greets"):
        agree(greeting)
