"""Object stores: what servers, and networks before them, answer when something is wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from faulty_proxy import Fault, Proxy, once_each, proxy
from object_server import CREDENTIALS, ObjectServer

from perdure.errors import NameNotFound, StoreError, StoreUnavailable, UsageError
from perdure.stores import Store, open_store
from perdure.stores.retrying import RetryingStore

pytestmark = pytest.mark.slow
NAME = f"data/ab/{'ab' * 32}"
CALLS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put(NAME, b"content"),
    "get": lambda store: store.get(NAME),
    "head": lambda store: store.size(NAME),
    "list": lambda store: list(store.list("data/")),
    "delete": lambda store: store.delete(NAME),
}


@pytest.fixture(scope="module")
def front(object_server: ObjectServer) -> Iterator[Proxy]:
    with proxy(object_server.endpoint) as running:
        yield running


@pytest.fixture
def bucket(object_server: ObjectServer, front: Proxy) -> str:
    front.reset()
    return object_server.bucket()


def patient(store: Store) -> RetryingStore:
    return RetryingStore(
        store,
        sleep=lambda seconds: None,
        monotonic=lambda: 0.0,
        jitter=lambda: 0.0,
        told=lambda text: None,
    )


@pytest.mark.parametrize("fault", [each for each in Fault if each is not Fault.SILENT])
def test_what_fails_once_works_in_the_end(front: Proxy, bucket: str, fault: Fault) -> None:
    store = patient(open_store(front.url(bucket), CREDENTIALS))
    data = os.urandom(100_000)
    front.harm = once_each(fault)

    store.put(NAME, data)
    assert store.get(NAME) == data
    assert store.get(NAME, 5, 50_000) == data[5:50_000]
    assert store.size(NAME) == len(data)
    assert list(store.list("data/")) == [(NAME, len(data))]
    store.delete(NAME)
    assert list(store.list("data/")) == []

    assert front.struck[fault] >= 4
    # An answer without a body cannot be torn.
    assert store.retries >= (2 if fault is Fault.TORN else 5)


def test_a_server_that_does_not_answer_is_left(front: Proxy, bucket: str) -> None:
    store = patient(open_store(front.url(bucket, timeout="2"), CREDENTIALS))
    store.put(NAME, b"content")
    front.harm = once_each(Fault.SILENT, "get")
    with pytest.raises(StoreUnavailable, match="no answer came in time"):
        open_store(front.url(bucket, timeout="2"), CREDENTIALS).get(NAME)
    front.harm = once_each(Fault.SILENT, "get")
    assert store.get(NAME) == b"content"
    assert store.retries >= 1


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.ERROR_500, Fault.BUSY_503])
def test_a_store_by_itself_tries_once(front: Proxy, bucket: str, verb: str, fault: Fault) -> None:
    store = open_store(front.url(bucket), CREDENTIALS)
    store.put(NAME, b"content")
    front.reset()
    front.harm = lambda asked: fault
    with pytest.raises(StoreUnavailable) as caught:
        CALLS[verb](store)
    assert [asked.verb for asked in front.asked] == [verb]
    if fault is not Fault.REFUSED:
        assert fault.name.partition("_")[2] in str(caught.value)


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "geheim"}, "SignatureDoesNotMatch|403"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId|403"),
    ],
)
def test_wrong_credentials(
    front: Proxy, bucket: str, verb: str, change: dict[str, str], said: str
) -> None:
    store = patient(open_store(front.url(bucket), CREDENTIALS | change))
    with pytest.raises(StoreError, match=said) as caught:
        CALLS[verb](store)
    assert len(front.asked) == 1
    assert not isinstance(caught.value, StoreUnavailable)
    assert caught.value.hint
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
    assert "geheim" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("verb", ["put", "get", "list"])
def test_a_bucket_that_is_not_there(front: Proxy, verb: str) -> None:
    front.reset()
    store = patient(open_store(front.url("no-such-bucket"), CREDENTIALS))
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        CALLS[verb](store)
    assert not isinstance(caught.value, NameNotFound)
    assert "make the bucket first" in str(caught.value.hint)
    assert len(front.asked) == 1


def test_nobody_listens() -> None:
    store = open_store("s3://bucket/x?endpoint=http://127.0.0.1:1", CREDENTIALS)
    with pytest.raises(StoreUnavailable, match=r"cannot read config.*connection refused") as caught:
        store.get("config")
    assert "endpoint" in str(caught.value.hint)


def test_ranges_are_read_where_a_server_does_not_say_so(poor_server: ObjectServer) -> None:
    """rclone's answers a part with the status of a whole."""
    store = open_store(poor_server.url(poor_server.bucket()), CREDENTIALS)
    data = os.urandom(1000)
    store.put(NAME, data)
    store.put("config", b"c")
    assert [store.get(NAME, 10, 20), store.get(NAME, 900)] == [data[10:20], data[900:]]
    assert store.get("config", 0, 1) == b"c"
    with pytest.raises(StoreError, match="before byte 1001"):
        store.get(NAME, 990, 1001)


class _Refuses(BaseHTTPRequestHandler):
    """Answers as Azure's servers do: with a code and a text."""

    answer = (404, "ContainerNotFound")

    def do_GET(self) -> None:
        status, code = self.answer
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (404, "ContainerNotFound", "make the container first"),
        (403, "AuthorizationFailure", "AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_what_azure_refuses(status: int, code: str, hint: str) -> None:
    kind = type("Answers", (_Refuses,), {"answer": (status, code)})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        place = f"az://container/x?endpoint=http://127.0.0.1:{server.server_port}/me&account=me"
        try:
            with pytest.raises(StoreError, match=f"{status} .*{code}") as caught:
                open_store(place, {"AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}).get("config")
        finally:
            server.shutdown()
            thread.join()
    assert not isinstance(caught.value, NameNotFound | StoreUnavailable)
    assert hint in str(caught.value.hint)
    assert "AWS" not in str(caught.value.hint)


def test_an_account_key_that_is_none() -> None:
    with pytest.raises(UsageError, match="the account's key is not base64"):
        open_store("az://container/x?account=me", {"AZURE_STORAGE_ACCOUNT_KEY": "ge heim"})
