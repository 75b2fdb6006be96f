"""The gate before Django: who gets a place, who is told to wait, how often one may call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from hyprbox.gate import slots
from hyprbox.gate.door import MIB, Gate, kind_of
from hyprbox.gate.slots import Kind, Slots
from hyprbox.gate.strangers import caller
from hyprbox.lib import lanes
from hyprbox.lib.errors import Overloaded, TooSlow
from tests import factories
from tests.plane import bearer
from tests.still_time import in_still_time


def now() -> float:
    return asyncio.get_running_loop().time()


JOB = "/api/jobs/0b9f2a1c-0000-4000-8000-000000000000"


# --- places ---


async def test_kept_places_are_for_their_kind_alone() -> None:
    places = Slots(12)
    shared = [await places.take(Kind.OTHER) for _ in range(8)]
    assert {place.kind for place in shared} == {None}
    reports = [await places.take(Kind.REPORT) for _ in range(3)]
    assert {place.kind for place in reports} == {Kind.REPORT}
    assert (await places.take(Kind.LOGIN)).kind is Kind.LOGIN
    waiting = asyncio.create_task(places.take(Kind.OTHER))
    await asyncio.sleep(0)
    places.give(reports[0])  # not one that it may have
    await asyncio.sleep(0)
    assert not waiting.done()
    places.give(shared[0])
    assert (await waiting).kind is None


async def test_the_most_urgent_one_comes_first() -> None:
    places = Slots(5)
    held = [await places.take(kind) for kind in (Kind.OTHER, Kind.REPORT, Kind.REPORT, Kind.REPORT, Kind.LOGIN)]
    assert [place.kind for place in held] == [None, Kind.REPORT, Kind.REPORT, Kind.REPORT, Kind.LOGIN]
    order: list[Kind] = []

    async def come(kind: Kind) -> None:
        place = await places.take(kind)
        order.append(kind)
        places.give(place)

    tasks = [asyncio.create_task(come(kind)) for kind in (Kind.OTHER, Kind.LOGIN, Kind.REPORT, Kind.OTHER)]
    await asyncio.sleep(0)
    places.give(held[0])
    await asyncio.gather(*tasks)
    assert order == [Kind.REPORT, Kind.LOGIN, Kind.OTHER, Kind.OTHER]


async def test_who_stops_waiting_leaves_no_place_behind() -> None:
    places = Slots(5)
    place = await places.take(Kind.OTHER)
    given_up, late = asyncio.create_task(places.take(Kind.OTHER)), asyncio.create_task(places.take(Kind.OTHER))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    places.give(place)
    late.cancel()  # in the very moment in which it got the place
    await asyncio.gather(given_up, late, return_exceptions=True)
    assert (await asyncio.wait_for(places.take(Kind.OTHER), 1)).kind is None


@in_still_time
async def test_a_wait_that_is_too_long_and_a_queue_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = slots.Terms(kept=0, waiting=2, seconds=0.2, longest=1.0)
    monkeypatch.setattr(Kind.OTHER, "_value_", terms)
    places = Slots(5)
    await places.take(Kind.OTHER)
    waiting = [asyncio.create_task(places.take(Kind.OTHER)) for _ in range(2)]
    await asyncio.sleep(0)
    began = now()
    with pytest.raises(Overloaded):
        await places.take(Kind.OTHER)
    assert now() == began
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [Overloaded, Overloaded]
    assert now() - began == pytest.approx(0.2)


@in_still_time
async def test_a_queue_that_moves_is_waited_in_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kind.OTHER, "_value_", slots.Terms(kept=0, waiting=9, seconds=0.3, longest=1.0))
    monkeypatch.setattr(slots, "MOVING_SECONDS", 0.25)

    async def hold(places: Slots, seconds: float) -> None:
        place = await places.take(Kind.OTHER)
        await asyncio.sleep(seconds)
        places.give(place)

    for seconds, served in (
        (0.2, 5),
        (0.28, 2),
    ):  # one place: the fifth waits for 0.8 s, or the third too long for a queue that stands
        places = Slots(5)
        ended = await asyncio.gather(*(hold(places, seconds) for _ in range(5)), return_exceptions=True)
        assert sum(error is None for error in ended) == served, ended


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", f"{JOB}/complete", Kind.REPORT),
        ("POST", f"{JOB}/output", Kind.REPORT),
        ("POST", f"{JOB}/cancel", Kind.REPORT),
        ("POST", f"{JOB.removeprefix('/api')}/cancel/", Kind.REPORT),
        ("GET", f"{JOB}/output", Kind.OTHER),
        ("POST", f"{JOB}/start", Kind.OTHER),
        ("POST", "/api/jobs", Kind.OTHER),
        ("POST", "/api/auth/login", Kind.LOGIN),
        ("GET", "/login/", Kind.LOGIN),
        ("POST", "/login/", Kind.LOGIN),
    ],
)
def test_what_is_never_turned_away(method: str, path: str, kind: Kind) -> None:
    assert kind_of(method, path) is kind


# --- the door ---


async def ask(gate: Gate, method: str, path: str, *, token: str = "", ip: str = "192.0.2.1") -> tuple[int, Any, float]:
    """(status, headers and body, seconds)."""
    heard: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        heard.append(message)

    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    began = now()
    await gate({"type": "http", "method": method, "path": path, "headers": headers, "client": (ip, 1)}, receive, send)
    head = dict(heard[0]["headers"])
    return heard[0]["status"], {**head, "body": heard[1]["body"]}, now() - began


def gate_to(app: Callable[[], Awaitable[None]], *, size: int = 6) -> Gate:
    async def django(scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        await app()
        await lanes.answer(send, 200, b"{}", "request-1")

    return Gate(django, size=size)


async def at_once() -> None:
    pass


@in_still_time
async def test_a_crowd_is_told_to_come_back_and_the_urgent_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kind.OTHER, "_value_", slots.Terms(kept=0, waiting=3, seconds=1.8, longest=6.0))
    free = asyncio.Event()
    gate = gate_to(free.wait, size=6)
    monkeypatch.setattr(gate.watch, "_answers", at_once_true)
    crowd = [asyncio.create_task(ask(gate, "GET", "/api/nodes", token=f"t{n}")) for n in range(2 + 3)]
    await asyncio.sleep(0.01)
    status, head, seconds = await ask(gate, "GET", "/api/nodes", token="one too many")
    assert (status, json.loads(head["body"])["error"]["code"]) == (503, "overloaded")
    assert int(head[b"retry-after"]) >= 1
    assert seconds == 0
    page = await ask(gate, "GET", "/jobs/", token="another")
    assert (page[0], page[1][b"content-type"], b"HyprBox is not ready" in page[1]["body"]) == (
        503, b"text/html; charset=utf-8", True,
    )  # fmt: skip
    urgent = [f"{JOB}/{act}" for act in ("complete", "output", "cancel")] * 20 + ["/api/auth/login"] * 20
    asked = [asyncio.create_task(ask(gate, "POST", path, token=f"u{n}")) for n, path in enumerate(urgent)]
    await asyncio.sleep(0.01)
    free.set()
    assert {answer[0] for answer in await asyncio.gather(*asked, *crowd)} == {200}


async def at_once_true() -> bool:
    return True


@in_still_time
async def test_a_database_that_does_not_answer_is_told_of_within_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_answer() -> bool:
        await asyncio.sleep(0.9)
        return False

    stuck = asyncio.Event()
    gate = gate_to(stuck.wait)
    monkeypatch.setattr(gate.watch, "_answers", no_answer)
    read, wrote = await asyncio.gather(
        ask(gate, "GET", "/api/nodes", token="a"), ask(gate, "POST", f"{JOB}/complete", token="b")
    )
    assert (read[0], wrote[0], max(read[2], wrote[2]) < 2.0) == (503, 503, True)
    assert "Nothing was changed" in json.loads(read[1]["body"])["error"]["message"]
    assert "not known" in json.loads(wrote[1]["body"])["error"]["message"]
    status, _, seconds = await ask(gate, "GET", "/api/nodes", token="c")  # nobody else waits
    assert (status, seconds) == (503, 0)
    ready = await ask(gate, "GET", "/readyz")
    assert (ready[0], json.loads(ready[1]["body"])["failing"].keys()) == (503, {"database"})
    monkeypatch.setattr(gate.watch, "_answers", at_once_true)
    stuck.set()
    await asyncio.sleep(1.5)
    assert (await ask(gate, "GET", "/api/nodes", token="d"))[0] == 200
    assert gate.slots._free == Slots(6)._free  # what was left alone gave its places back


@in_still_time
async def test_a_slow_request_is_left_alone_while_the_database_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def answers() -> bool:
        asked.append(now())
        return True

    gate = gate_to(lambda: asyncio.sleep(2.0))
    monkeypatch.setattr(gate.watch, "_answers", answers)
    assert (await ask(gate, "GET", "/api/nodes", token="a"))[0] == 200
    assert len(asked) == 2  # a request of 2 s, and PATIENCE_SECONDS between the questions


# --- rates ---


async def rate_of(gate: Gate, **who: str) -> tuple[int, dict[Any, Any]]:
    """How many of a hundred at once get through, and the last refusal."""
    answers = [await ask(gate, "POST", f"{JOB}/complete", **who) for _ in range(100)]
    refused = [head for status, head, _ in answers if status == 429]
    return sum(status == 200 for status, _, _ in answers), refused[-1] if refused else {}


@in_still_time
async def test_a_token_has_twenty_a_second_and_a_burst_of_sixty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=now))
    gate = gate_to(at_once)
    passed, refusal = await rate_of(gate, token="hbnt_one")
    assert passed == 60
    assert json.loads(refusal["body"])["error"]["code"] == "rate_limited"
    assert int(refusal[b"retry-after"]) >= 1
    assert (await ask(gate, "POST", f"{JOB}/complete", token="hbnt_two"))[0] == 200
    await asyncio.sleep(0.51)
    assert (await rate_of(gate, token="hbnt_one"))[0] == 10


@in_still_time
async def test_who_shows_nothing_has_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=now))
    gate = gate_to(at_once)
    passed, refusal = await rate_of(gate)
    assert passed == 30
    await asyncio.sleep(1.01)
    assert (await rate_of(gate))[0] == 5
    assert refusal[b"retry-after"]
    probes = [(await ask(gate_to(at_once), "GET", path))[0] for path in ("/healthz", "/readyz", "/metrics") * 40]
    assert set(probes) == {200}


@pytest.mark.django_db
def test_a_persons_tokens_count_together_and_nobody_elses(ada: Any, otto: Any) -> None:
    tokens = [bearer(ada), bearer(ada), bearer(otto)]
    assert tokens[0] != tokens[1]
    names = [caller(token) for token in tokens]
    assert names[0] == names[1] != names[2]
    head, body, _ = tokens[0].split(".")
    forged = f"{head}.{body}.{tokens[2].rsplit('.', 1)[1]}"
    assert caller(forged) not in names
    assert factories.PASSWORD not in names


def test_an_address_that_does_not_exist_says_so_to_everybody(client: Any) -> None:
    client.handler.enforce_csrf_checks = True
    answer = client.post("/api/no/such", {"a": 1}, content_type="application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


# --- bodies ---


class Trickle:
    """A client that has sent its headers, and takes its time with the rest."""

    def __init__(self, gate: Gate, path: str = "/api/jobs", *, method: str = "POST", token: str = "slow") -> None:
        self.sent = asyncio.Event()
        self.heard: list[dict[str, Any]] = []
        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": ("192.0.2.9", 1)}
        self.task = asyncio.create_task(gate(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.sent.wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        self.heard.append(message)


@in_still_time
async def test_who_sends_slowly_holds_no_place() -> None:
    gate = gate_to(at_once, size=5)  # one place for all that is not urgent
    slow = [Trickle(gate, method=("GET", "POST")[number % 2], token=f"t{number}") for number in range(20)]
    await asyncio.sleep(0.01)
    status, _, seconds = await ask(gate, "GET", "/api/nodes", token="fast")
    assert (status, seconds) == (200, 0)
    for one in slow:
        one.sent.set()
    await asyncio.gather(*(one.task for one in slow))
    assert {one.heard[0]["status"] for one in slow} == {200}


@in_still_time
async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    for path in ("/api/jobs", "/jobs/stop/", "/healthz"):
        slow, began = Trickle(gate_to(at_once), path), now()
        await slow.task
        assert now() - began == pytest.approx(lanes.BODY_SECONDS), path
        assert slow.heard[0]["status"] == 408, path
        assert TooSlow().message.encode() in slow.heard[1]["body"], path
        assert dict(slow.heard[0]["headers"])[b"connection"] == b"close"


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_a_body_that_is_too_large_never_reaches_django(method: str) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * MIB, "more_body": next(left) > 0}

    async def send(message: dict[str, Any]) -> None:
        heard.append(message)

    async def django() -> None:
        reached.append(True)

    heard: list[dict[str, Any]] = []
    reached: list[bool] = []
    left = iter(range(2, -1, -1))
    scope = {"type": "http", "method": method, "path": "/jobs/", "headers": [], "client": ("192.0.2.9", 1)}
    await gate_to(django)(scope, receive, send)
    assert (heard[0]["status"], reached) == (413, [])


async def test_a_watch_that_breaks_leaves_the_door_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> bool:
        raise RuntimeError

    gate = gate_to(lambda: asyncio.sleep(0.1))
    gate.watch.is_away = True
    monkeypatch.setattr(gate.watch, "_answers", broken)
    with gate.watch.outage():
        assert gate.watch._task is not None
        with pytest.raises(RuntimeError):
            await gate.watch._task
    assert (await ask(gate, "GET", "/api/nodes", token="a"))[0] == 200
