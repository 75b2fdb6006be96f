"""The fault proxy does what it says: otherwise a quiet test would only mean that nothing was cut."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from tests.faults.proxy import Proxy, Rates
from tests.house import wait_for


class Target(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[tuple[str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Target

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(target: Target) -> Iterator[Proxy]:
    made = Proxy(target.server_address[1], seed=1).start()
    yield made
    made.stop()


def post(proxy: Proxy, path: str = "/call", body: bytes = b"\0\xffhello") -> bytes | None:
    """The answer's body, or None when there was none."""
    try:
        return httpx.post(proxy.url + path, content=body, timeout=5).content
    except httpx.HTTPError:
        return None


def test_without_faults_everything_gets_through(proxy: Proxy, target: Target) -> None:
    assert [post(proxy, body=bytes([n]) * 100_000) for n in range(3)] == [bytes([n]) * 100_000 for n in range(3)]
    assert proxy.counts == {}
    assert proxy.calls == len(target.heard) == 3


@pytest.mark.parametrize(
    ("kind", "is_answered", "arrivals"),
    [("cut", False, 0), ("drop", False, 1), ("truncate", False, 1), ("duplicate", True, 2), ("delay", True, 1)],
)
def test_each_fault_once(proxy: Proxy, target: Target, kind: str, is_answered: bool, arrivals: int) -> None:
    proxy.once(kind, "/call")
    assert post(proxy, "/other") is not None
    target.heard.clear()
    assert (post(proxy) is not None) == is_answered
    assert target.heard == [("/call", b"\0\xffhello")] * arrivals
    assert post(proxy) is not None
    assert proxy.counts == {kind: 1}


def test_a_replayed_call_comes_once_more_later(proxy: Proxy, target: Target) -> None:
    proxy.once("replay", "/call")
    assert post(proxy) is not None
    assert len(target.heard) == 1
    wait_for(lambda: len(target.heard) == 2, seconds=10)


def test_cut_off_nothing_gets_through(proxy: Proxy, target: Target) -> None:
    proxy.is_cut_off = True
    assert post(proxy) is None
    assert target.heard == []
    proxy.is_cut_off = False
    assert post(proxy) is not None


def test_answers_can_be_tampered_with(proxy: Proxy) -> None:
    proxy.tamper = lambda call, answer: answer.replace(b"hello", b"jello") if call.path == "/call" else answer
    assert post(proxy) == b"\0\xffjello"
    assert post(proxy, "/other") == b"\0\xffhello"


def test_rates_are_kept_and_a_seed_repeats_its_choices(target: Target) -> None:
    rates = Rates(drop=0.2, duplicate=0.1, only="/call")

    def choices(seed: int) -> list[str]:
        chance = random.Random(seed)
        return [rates.choose(chance, "/call") for _ in range(2000)]

    assert choices(3) == choices(3) != choices(4)
    assert 330 < choices(3).count("drop") < 470
    assert 150 < choices(3).count("duplicate") < 250


def test_when_the_client_hangs_up_so_does_the_proxy() -> None:
    """As a server must see it, for nothing is claimed for a poll whose client has gone."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(5)
        proxy = Proxy(silent.getsockname()[1]).start()
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{proxy.url}/poll", timeout=0.3)
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(5)
            assert b"GET /poll" in connection.recv(65536)
            assert connection.recv(1) == b""
        proxy.stop()
