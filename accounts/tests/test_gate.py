"""Bad bearer tokens are turned away before Django, and counted across processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from accounts import gate, jwt, rates
from accounts.models import User
from hyprbox.lib import lanes

KEY = "hbak_" + "a" * 8 + "b" * 43


class Door:
    """A gate with an application behind it that answers what the test wants."""

    def __init__(self, status: int = 200) -> None:
        self.reached, self.status = 0, status
        self.gate = gate.BearerGate(self._app)

    async def _app(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        self.reached += 1
        if self.status < 300:
            lanes.prove(scope, lanes.header(scope, b"authorization").partition(" ")[2])
        await send({"type": "http.response.start", "status": self.status, "headers": []})

    async def show(self, authorization: str, *, path: str = "/api/nodes", ip: str = "10.0.0.1") -> int:
        sent: list[dict[str, Any]] = []
        headers = [(b"authorization", authorization.encode())] if authorization else []
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (ip, 1)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.gate(scope, _nothing, send)
        return int(sent[0]["status"])


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


@pytest.fixture(autouse=True)
def tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database, but in the test that is about it."""
    monkeypatch.setattr(gate.BadBearers, "_schedule", lambda self: None)


def good_token(**over: Any) -> str:
    token = jwt.AccessToken()
    token["sub"], token["ver"] = "x", 1
    for name, value in over.items():
        token[name] = value
    return str(token)


def _with_another_signature(token: str) -> str:
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


@pytest.mark.parametrize(
    ("token", "is_let_through"),
    [
        (good_token, True),
        (KEY, True),
        (KEY.replace("hbak_", "hbnt_"), True),
        ("x" * 40, False),
        ("hbak_short", False),
        ("hbxx_" + KEY[5:], False),
        (lambda: _with_another_signature(good_token()), False),
        (lambda: good_token(exp=1), False),
        ("a.b.c", False),
        ("", False),
        ("é" * 60, False),
        (lambda: "eyJhbGciOiJub25lIn0." + good_token().split(".")[1] + ".", False),
    ],
)
def test_what_cannot_be_good_never_reaches_django(token: str | Callable[[], str], is_let_through: bool) -> None:
    door, token = Door(), token if isinstance(token, str) else token()
    status = asyncio.run(door.show(f"Bearer {token}"))
    assert (status, door.reached) == ((200, 1) if is_let_through else (401, 0))


@pytest.mark.parametrize(
    ("authorization", "path"), [("", "/api/nodes"), ("Basic eDp5", "/api/nodes"), ("Bearer x", "/metrics")]
)
def test_everything_else_passes(authorization: str, path: str) -> None:
    assert asyncio.run(Door().show(authorization, path=path)) == 200


def test_after_thirty_a_minute_an_address_waits_but_good_tokens_pass() -> None:
    async def scenario() -> list[int]:
        door, good, known = Door(), good_token(), KEY
        assert await door.show(f"Bearer {known}") == 200
        seen = [await door.show("Bearer nonsense") for _ in range(32)]
        assert await door.show("Bearer nonsense", ip="10.0.0.2") == 401
        assert await door.show(f"Bearer {good}") == 200
        assert await door.show(f"Bearer {known}") == 200
        assert await door.show(f"Bearer {KEY[:-1]}c") == 429
        return seen

    assert asyncio.run(scenario()) == [401] * 30 + [429] * 2


def test_what_the_database_refuses_is_counted_too() -> None:
    async def scenario() -> tuple[list[int], int]:
        door = Door(status=401)
        return [await door.show(f"Bearer {KEY}") for _ in range(40)], door.reached

    statuses, reached = asyncio.run(scenario())
    assert (statuses.count(401), statuses.count(429), reached) == (31, 9, 31)


@pytest.mark.django_db(transaction=True)
def test_processes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(gate, "FLUSH_SECONDS", 0.01)
    rates.add({rates.address_key("10.0.0.1", "bearer"): 25})  # by another process

    async def scenario() -> list[int]:
        door = Door()
        seen = [await door.show("Bearer nonsense") for _ in range(6)]
        assert door.gate.bad._flush is not None
        await door.gate.bad._flush
        return [*seen, await door.show("Bearer nonsense")]

    assert asyncio.run(scenario()) == [401] * 6 + [429]


@pytest.mark.django_db(transaction=True)
def test_what_comes_while_the_database_counts_is_counted_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(gate, "FLUSH_SECONDS", 0.01)
    bad, add, asked = gate.BadBearers(), rates.add, []

    def slow(counts: dict[str, int]) -> dict[str, tuple[int, int]]:
        asked.append(dict(counts))
        time.sleep(0.2)
        return add(counts)

    monkeypatch.setattr(rates, "add", slow)

    async def scenario() -> None:
        bad.note("10.0.0.1")
        await asyncio.sleep(0.1)  # it is on its way
        for _ in range(4):
            bad.note("10.0.0.1")
        assert bad._flush is not None
        await bad._flush

    asyncio.run(scenario())
    assert [sum(counts.values()) for counts in asked] == [1, 4]
    assert add({rates.address_key("10.0.0.1", "bearer"): 0})[rates.address_key("10.0.0.1", "bearer")][0] == 5


def test_a_real_token_is_one_that_it_lets_through(otto: User) -> None:
    assert asyncio.run(Door().show(f"Bearer {jwt.access_token(otto)}")) == 200
