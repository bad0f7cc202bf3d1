"""Whose certificate a server may have: the system's authorities, and those that are named."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from object_server import CREDENTIALS

from perdure.errors import StoreError, StoreUnavailable
from perdure.stores import open_store


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *arguments: object) -> None:
        pass


def _certificate(path: Path) -> None:
    """Write a key, and the certificate of 127.0.0.1 that it signs itself, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority of one's own")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    day = timedelta(days=1)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(encoding, form, plain) + made.public_bytes(encoding))


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Give a file with a certificate that no system knows."""
    path = tmp_path / "own.pem"
    _certificate(path)
    return path


@pytest.fixture
def endpoint(authority: Path) -> Iterator[str]:
    """Run a server that has this certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "RESTIC_CACERT"])
def test_an_authority_of_ones_own_is_believed_where_it_is_named(
    endpoint: str, authority: Path, variable: str
) -> None:
    place = f"s3://bucket/x?endpoint={endpoint}"
    with pytest.raises(StoreError, match="certificate is not accepted: UnknownIssuer") as caught:
        open_store(place, CREDENTIALS).get("config")
    assert not isinstance(caught.value, StoreUnavailable)
    assert "AWS_CA_BUNDLE" in str(caught.value.hint)
    trusting = CREDENTIALS | {variable: str(authority)}
    assert open_store(place, trusting).get("config") == b"content"
