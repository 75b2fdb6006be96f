"""A control plane behind TLS, and a proxy before it, both on this machine's loopback: what a server in a company sees."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Proxy:
    """`asked`: the first line of every request, as the proxy saw it; `heard`: all bytes that were sent to it in clear."""

    port: int
    asked: list[str] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of `localhost`, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "plane.pem", folder / "plane.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return files


@contextmanager
def tls_front(folder: Path, port: int) -> Iterator[int]:
    """The control plane at `port`, on another port behind TLS as `localhost`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(folder))

    def serve(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as inside:
            _join(inside, ("127.0.0.1", port))

    with _listening(serve) as front:
        yield front


@contextmanager
def connect_proxy(refusal: str = "") -> Iterator[Proxy]:
    """A proxy for CONNECT alone; with `refusal`, such as `407 Proxy Authentication Required`, it lets nobody through."""
    proxy = Proxy(0)

    def serve(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := client.recv(65536)):
                return
            head += piece
        proxy.heard += head
        proxy.asked.append(head.split(b"\r\n")[0].decode())
        verb, target = head.split(b" ")[:2]
        if refusal or verb != b"CONNECT":
            client.sendall(f"HTTP/1.1 {refusal or '405 Method Not Allowed'}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        host, _, port = target.decode().rpartition(":")
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        _join(client, ("127.0.0.1" if host == "localhost" else host, int(port)))

    with _listening(serve) as port:
        proxy.port = port
        yield proxy


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    def one(client: socket.socket) -> None:
        with client, suppress(OSError):
            serve(client)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=one, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _join(client: socket.socket, address: tuple[str, int]) -> None:
    """Bytes both ways until one side has said all."""
    with socket.create_connection(address) as other:
        back = threading.Thread(target=_pump, args=(other, client), daemon=True)
        back.start()
        _pump(client, other)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
