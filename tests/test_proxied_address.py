"""Whose request it is, behind proxies: Django, the lanes and the gates say the same, and nobody chooses it for himself."""

from __future__ import annotations

import asyncio
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse

from accounts.gate import BadBearers, BearerGate
from audit.actions import Action
from audit.models import Event
from hyprbox.gate.door import Gate
from hyprbox.lib import lanes
from hyprbox.lib.middleware import RequestIdMiddleware
from tests.plane import plane
from tests.still_time import in_still_time

INNER, OUTER = "10.0.0.1", "10.0.0.2"  # two proxies, one behind the other
CLIENT, SPOOFED = "192.0.2.7", "203.0.113.99"


def scope_of(peer: str, *lines: str, **more: Any) -> lanes.Scope:
    """What uvicorn makes of a request from `peer` with these lines of X-Forwarded-For."""
    headers = [(b"host", b"x"), *((b"x-forwarded-for", line.encode("latin-1")) for line in lines)]
    return {"type": "http", "method": "GET", "path": "/api/nodes", "headers": headers, "client": (peer, 4711), **more}


def of_django(scope: lanes.Scope) -> str:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.client_ip)  # type: ignore[attr-defined]

    return RequestIdMiddleware(view)(ASGIRequest(scope, BytesIO())).content.decode()


async def nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def ok(scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
    await lanes.answer(send, 200, b"{}", "request-1")


async def status_of(app: lanes.App, scope: lanes.Scope) -> int:
    heard: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        heard.append(message)

    await app(scope, nothing, send)
    return int(heard[0]["status"])


CASES = {
    "no header": ((INNER,), [INNER], INNER),
    "no trusted proxy": ((CLIENT, SPOOFED), [], CLIENT),
    "an untrusted peer's header": ((CLIENT, SPOOFED), [INNER], CLIENT),
    "one hop": ((INNER, CLIENT), [INNER], CLIENT),
    "two hops": ((INNER, f"{CLIENT}, {OUTER}"), [INNER, OUTER], CLIENT),
    "two hops, a network": ((INNER, f"{CLIENT}, {OUTER}"), ["10.0.0.0/8"], CLIENT),
    "two hops, one of them trusted": ((INNER, f"{CLIENT}, {OUTER}"), [INNER], OUTER),
    "a client that writes a hop": ((INNER, f"{SPOOFED}, {CLIENT}"), [INNER], CLIENT),
    "a client that writes a trusted hop": ((INNER, f"{OUTER}, {CLIENT}"), [INNER, OUTER], CLIENT),
    "a client that writes a line": ((INNER, SPOOFED, CLIENT), [INNER], CLIENT),
    "a line for each hop": ((INNER, SPOOFED, CLIENT, OUTER), [INNER, OUTER], CLIENT),
    "lines of several hops": ((INNER, f"{SPOOFED}, {SPOOFED}", f"{CLIENT}, {OUTER}"), [INNER, OUTER], CLIENT),
    "an empty line at the end": ((INNER, CLIENT, ""), [INNER], CLIENT),
    "nothing but proxies": ((INNER, OUTER), [INNER, OUTER], INNER),
    "garbage": ((INNER, "unknown"), [INNER], INNER),
    "garbage on the right": ((INNER, f"{SPOOFED}, _hidden"), [INNER], INNER),
    "garbage on the left": ((INNER, f"<script>, {CLIENT}"), [INNER], CLIENT),
    "letters beyond ASCII": ((INNER, "\xe9\xa0, \xff"), [INNER], INNER),
    "commas alone": ((INNER, " , ,, "), [INNER], INNER),
    "IPv6": (("2001:db8::1", f"{SPOOFED}, 2001:db8:7::9"), ["2001:db8::1"], "2001:db8:7::9"),
    "IPv6 in another spelling": (("2001:db8::1", "2001:DB8:7:0:0:0:0:9"), ["2001:db8:0:0::1"], "2001:db8:7::9"),
    "IPv6 through a network": (("2001:db8::5", "2001:db8:7::9, 2001:db8::6"), ["2001:db8::/64"], "2001:db8:7::9"),
    "IPv4 on a socket for both": ((f"::ffff:{INNER}", f"::ffff:{CLIENT}"), [INNER], CLIENT),
    "IPv4 on a socket for both, without proxies": ((f"::ffff:{CLIENT}", SPOOFED), [], CLIENT),
    "no address at all": (("", CLIENT), [INNER], ""),
}


@pytest.mark.parametrize(("request_", "trusted", "expected"), CASES.values(), ids=CASES)
def test_the_right_most_hop_that_is_not_trusted(
    request_: tuple[str, ...], trusted: list[str], expected: str, settings: Any
) -> None:
    settings.HYPRBOX_TRUSTED_PROXIES = trusted
    scope = scope_of(*request_)
    assert lanes.peer_ip(scope) == expected
    assert of_django(scope) == expected


@in_still_time
async def test_a_made_up_line_buys_nobody_more_requests(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.HYPRBOX_TRUSTED_PROXIES = [INNER]
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=asyncio.get_running_loop().time))
    gate = Gate(ok, size=6)
    flood = [await status_of(gate, scope_of(INNER, f"198.51.100.{n}", CLIENT)) for n in range(40)]
    assert flood == [200] * 30 + [429] * 10
    assert await status_of(gate, scope_of(INNER, CLIENT, "192.0.2.8")) == 200  # somebody else at the same proxy


async def test_a_made_up_line_buys_nobody_more_guesses(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.HYPRBOX_TRUSTED_PROXIES = [INNER]
    monkeypatch.setattr(BadBearers, "_schedule", lambda self: None)
    gate, guess = BearerGate(ok), (b"authorization", b"Bearer nonsense")

    async def show(*lines: str) -> int:
        scope = scope_of(INNER, *lines)
        return await status_of(gate, {**scope, "headers": [*scope["headers"], guess]})

    assert [await show(f"198.51.100.{n}", CLIENT) for n in range(32)] == [401] * 30 + [429] * 2
    assert await show(CLIENT, "192.0.2.8") == 401


@pytest.mark.django_db(transaction=True)
def test_the_log_names_who_a_proxy_saw(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.HYPRBOX_TRUSTED_PROXIES = ["127.0.0.1"]
    lines = [("x-forwarded-for", SPOOFED), ("x-forwarded-for", f"{SPOOFED}, {CLIENT}")]
    given = {"email": "nobody@example.com", "password": "correct horse battery"}
    with plane(monkeypatch) as web:
        answer = web.run(web._client.post("/api/auth/login", json=given, headers=lines))
    assert answer.status_code == 401
    assert Event.objects.get(action=Action.LOGIN_FAILED).ip == CLIENT
