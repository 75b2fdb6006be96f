"""The connection: what is not the control plane is not believed, and never harms a job."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent import client as client_module
from agent.client import CallFailed, Client
from agent.config import BadSetting, load
from agent.tests.plane import TOKEN


def make_client(url: str) -> Client:
    return Client(
        load({"HYPRBOX_API_URL": url}, {"HYPRBOX_NODE_ID": "web-1", "HYPRBOX_NODE_TOKEN": TOKEN}, Path("/no"))
    )


class Server:
    """Answers every request with `answer(handler)`; with a certificate of its own if asked."""

    def __init__(self, answer: Any, context: ssl.SSLContext | None = None) -> None:
        self.seen: list[tuple[str, str | None]] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append((self.path, self.headers.get("Authorization")))
                answer(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve():
    started: list[Server] = []

    def make(answer: Any, context: ssl.SSLContext | None = None) -> Server:
        started.append(Server(answer, context))
        return started[-1]

    yield make
    for server in started:
        server.stop()


def say(body: bytes, status: int = 200, **headers: str) -> Any:
    def answer(http: BaseHTTPRequestHandler) -> None:
        http.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            http.send_header(name, value)
        http.end_headers()
        http.wfile.write(body)

    return answer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Self-signed, for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


def test_a_certificate_that_nobody_vouches_for_gets_no_token(serve, certificate):
    server = serve(say(b"{}"), tls(certificate))
    with pytest.raises(CallFailed, match="certificate"):
        make_client(f"https://localhost:{server.port}").get("/api/agent/keys")
    assert server.seen == []


def test_a_certificate_for_another_name_gets_no_token(serve, certificate, monkeypatch):
    """Trusted, but not this server's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    server = serve(say(b"{}"), tls(certificate))
    assert make_client(f"https://localhost:{server.port}").get("/x") == {}
    ip6 = socket.gethostbyname("localhost")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip6, server.port))]
    )
    with pytest.raises(CallFailed, match=r"(?i)hostname"):
        make_client(f"https://other.example:{server.port}").get("/x")
    assert len(server.seen) == 1


def test_tls_1_1_is_not_spoken(serve, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    context = tls(certificate)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    server = serve(say(b"{}"), context)
    with pytest.raises(CallFailed, match=r"(?i)protocol|version|handshake"):
        make_client(f"https://localhost:{server.port}").get("/x")
    assert server.seen == []


def test_a_ca_file_that_is_not_there_is_an_error_and_not_a_crash(serve, certificate, monkeypatch, tmp_path):
    server = serve(say(b"{}"), tls(certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(CallFailed):
        make_client(f"https://localhost:{server.port}").get("/x")
    assert server.seen == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_takes_no_token_elsewhere(serve, status):
    elsewhere = serve(say(b"{}"))
    server = serve(say(b"", status, Location=f"http://127.0.0.1:{elsewhere.port}/"))
    with pytest.raises(CallFailed) as caught:
        make_client(f"http://127.0.0.1:{server.port}").post("/x", {})
    assert caught.value.status == status and caught.value.is_worth_repeating
    assert elsewhere.seen == []


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1", "http://hyprbox.example", "http://127.0.0.1.example", "http://[2001:db8::1]", "ftp://127.0.0.1", "http://0.0.0.0"],
)  # fmt: skip
def test_plain_http_is_for_this_machine(url):
    with pytest.raises(BadSetting):
        make_client(url)
    make_client("http://[::1]:8000")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b"7", b"\xff", b"[" * 100_000])
def test_what_is_no_answer_of_ours_is_no_acknowledgement(serve, body):
    server = serve(say(body))
    with pytest.raises(CallFailed) as caught:
        make_client(f"http://127.0.0.1:{server.port}").post("/api/jobs/x/complete", {})
    assert caught.value.is_worth_repeating


def test_an_answer_without_end_is_given_up(serve, monkeypatch):
    def endless(http: BaseHTTPRequestHandler) -> None:
        http.send_response(200)
        http.end_headers()
        for _ in range(2000):
            http.wfile.write(b"x" * 65536)

    server = serve(endless)
    with pytest.raises(CallFailed, match="larger than"):
        make_client(f"http://127.0.0.1:{server.port}").get("/x")

    def slow(http: BaseHTTPRequestHandler) -> None:
        http.send_response(200)
        http.send_header("Content-Length", "1000000")
        http.end_headers()
        for _ in range(100):
            http.wfile.write(b" " * 70_000)
            time.sleep(0.05)

    monkeypatch.setattr(client_module, "MAX_ANSWER_SECONDS", 0.2)
    server = serve(slow)
    with pytest.raises(CallFailed, match="longer than"):
        make_client(f"http://127.0.0.1:{server.port}").get("/x")


def test_a_compressed_answer_cannot_fill_the_memory(serve):
    import gzip

    server = serve(say(gzip.compress(b" " * 200_000_000, 1), 200, **{"Content-Encoding": "gzip"}))
    with pytest.raises(CallFailed, match="larger than"):
        make_client(f"http://127.0.0.1:{server.port}").get("/x")


@pytest.mark.parametrize("page", ["page 404", "page 302", "page 400", "page 200", "page 413", "page 500"])
@pytest.mark.slow
def test_a_proxys_own_pages_cost_no_result(plane, agent_process, page):
    """A misconfigured proxy answers for a while in the name of the control plane."""
    seen = {"start": 0, "output": 0, "complete": 0}

    def fault(verb: str) -> str | None:
        if verb in seen and seen[verb] < 1:
            seen[verb] += 1
            return page
        return None

    plane.fault = fault
    agent_process.start()
    job = plane.finished(plane.queue({"apply": "echo out"}), 40)
    assert (job.status, bytes(job.streams["stdout"].data)) == ("SUCCEEDED", b"out\n")
    assert set(seen.values()) == {1}
