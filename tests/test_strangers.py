"""Who is counted as what: made-up sessions and tokens buy nobody more requests, and good ones beside them are not held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.test import Client

from accounts import keys
from accounts.authentication import actor_from_scope
from accounts.gate import BadBearers, BearerGate
from accounts.models import User
from hyprbox import asgi
from hyprbox.gate import strangers
from hyprbox.gate.door import Gate, StreamGate
from hyprbox.gate.strangers import Strangers
from hyprbox.lib import lanes
from hyprbox.lib.errors import HyprBoxError, Overloaded, RateLimited
from hyprbox.live_routes import STREAMS
from nodes.models import Node
from tests import factories
from tests.factories import as_actor
from tests.plane import Call, Plane, bearer, plane
from tests.still_time import in_still_time

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets fill by the loop's clock, which stands still."""
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(lanes, "time", clock)
    monkeypatch.setattr(BadBearers, "_schedule", lambda self: None)


class Django:
    """Behind the gate: finds good what is in `good`, as the authenticators do, and answers `status`, or 401 to strangers."""

    def __init__(self, *good: str, status: int = 200, is_public: bool = False) -> None:
        self.good, self.status, self.is_public, self.reached = set(good), status, is_public, 0
        self.wait: Callable[[], Any] | None = None
        self.gate = Gate(self, size=100_000)
        self.front = BearerGate(self.gate)

    async def __call__(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        self.reached += 1
        if self.wait is not None:
            await self.wait()
        shown = [*lanes.cookies(scope).values(), lanes.header(scope, b"authorization").partition(" ")[2]]
        found = [one for one in shown if one in self.good]
        for one in found:
            lanes.prove(scope, one)
        status = self.status if found or self.is_public else 401
        await lanes.answer(send, status, b"{}", "request-1")

    async def ask(self, path: str = "/jobs/", *, cookie: str = "", authorization: str = "", ip: str = HERE) -> int:
        headers = [(b"authorization", authorization.encode())] if authorization else []
        headers += [(b"cookie", cookie.encode())] if cookie else []
        return (await answer_of(self.front, path, headers, ip))["status"]


async def answer_of(app: lanes.App, path: str, headers: list[tuple[bytes, bytes]], ip: str = HERE) -> dict[str, Any]:
    heard: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        heard.append(message)

    await app({"type": "http", "method": "GET", "path": path, "headers": headers, "client": (ip, 1)}, receive, send)
    return heard[0]


def node_token(number: int, word: str = "good") -> str:
    return f"hbnt_{number:08d}{word:x<43}"


# --- what is made up ---


@in_still_time
async def test_a_new_made_up_session_for_each_request_is_counted_by_its_address(still: None) -> None:
    django = Django("mine")
    assert await django.ask(cookie="hb_session=mine") == 200
    flood = [await django.ask(cookie=f"hb_session=made-up-{n}") for n in range(400)]
    assert flood == [401] * 300 + [429] * 100
    assert await django.ask() == 429  # what proved nothing counts like what shows nothing
    assert await django.ask(cookie="hb_session=mine") == 200
    assert await django.ask(cookie="hb_session=made-up", ip=ELSEWHERE) == 401
    await asyncio.sleep(1.01)
    again = [await django.ask(cookie=f"hb_session=again-{n}") for n in range(50)]
    assert again.count(401) == 5


@in_still_time
async def test_made_up_tokens_that_reach_no_authenticator_are_counted_too(still: None) -> None:
    django = Django("mine", status=404, is_public=True)
    flood = [await django.ask("/api/no/such", authorization=f"Bearer {node_token(n)}") for n in range(400)]
    assert flood == [404] * 300 + [429] * 100
    assert await django.ask("/api/no/such", authorization=f"Bearer {node_token(1)}", ip=ELSEWHERE) == 404


@in_still_time
async def test_made_up_tokens_that_are_refused_wait_after_thirty(still: None) -> None:
    good = node_token(9999)
    django = Django(good)
    assert await django.ask("/api/jobs", authorization=f"Bearer {good}") == 200
    flood = [await django.ask("/api/jobs", authorization=f"Bearer {node_token(n, 'bad')}") for n in range(100)]
    assert (flood.count(401), flood.count(429), django.reached) == (31, 69, 32)
    assert await django.ask("/api/jobs", authorization=f"Bearer {good}") == 200


@in_still_time
async def test_made_up_tokens_where_everybody_is_answered_are_counted_with_room_for_a_fleet(still: None) -> None:
    django = Django(is_public=True)
    flood = [await django.ask("/api/agent/keys", authorization=f"Bearer {node_token(n)}") for n in range(1100)]
    assert flood == [200] * 1000 + [429] * 100
    assert await django.ask("/api/agent/keys", authorization=f"Bearer {node_token(1)}", ip=ELSEWHERE) == 200
    assert await django.ask("/api/agent/keys") == 200


@in_still_time
async def test_a_token_that_was_only_answered_is_not_known_as_good(still: None) -> None:
    """The keys and the log-in are for everybody: 200 there says nothing of the token."""
    django = Django(is_public=True)
    made_up = node_token(1)
    assert await django.ask("/api/keys", authorization=f"Bearer {made_up}") == 200
    django.is_public = False
    for n in range(40):
        await django.ask("/api/jobs", authorization=f"Bearer {node_token(n + 2)}")
    assert await django.ask("/api/jobs", authorization=f"Bearer {made_up}") == 429


@in_still_time
@pytest.mark.parametrize(
    ("path", "authorization", "cookie"),
    [
        ("/jobs/", "Bearer {n}", ""),
        ("/api/jobs", "Basic {n}", ""),
        ("/api/jobs", "Basic {n}", "hb_session={n}"),
        ("/api/jobs", "{n}", ""),
        ("/jobs/", "", "hb_token={n}"),
        ("/jobs/", "", "hb_theme={n}"),
        ("/jobs/", "", "hb_session="),
    ],
)
async def test_what_nobody_would_look_at_is_no_credential(
    still: None, path: str, authorization: str, cookie: str
) -> None:
    django = Django()
    asked = [
        await django.ask(path, authorization=authorization.format(n=n), cookie=cookie.format(n=n)) for n in range(60)
    ]
    assert asked == [401] * 30 + [429] * 30


@in_still_time
async def test_a_good_session_beside_a_made_up_token_does_not_vouch_for_it(still: None) -> None:
    django = Django("mine", status=404)
    asked = [
        await django.ask("/api/no/such", authorization=f"Bearer {node_token(n)}", cookie="hb_session=mine")
        for n in range(400)
    ]
    assert asked.count(404) == 300


@in_still_time
async def test_of_two_sessions_the_one_that_django_reads_counts(still: None) -> None:
    django = Django("mine")
    asked = [await django.ask(cookie=f"hb_session={n}; hb_session=mine") for n in range(100)]
    assert asked.count(200) == 60  # one name, however it is dressed up
    other = Django("mine")
    asked = [await other.ask(cookie=f"hb_session=mine; hb_session={n}") for n in range(400)]
    assert asked == [401] * 300 + [429] * 100


@pytest.mark.parametrize(
    "lines",
    [
        ["hb_session=a; hb_session=b"],
        ["hb_session=a", "hb_session=b"],
        ['hb_session="a\\"b"; x=1'],
        ["hb_session = spaced ;hb_session"],
        ["other=(bad) [name]; hb_session=b"],
        ["hb_session=\xe9\xa0"],
        [""],
        [],
    ],
)
def test_cookies_are_what_django_reads(lines: list[str]) -> None:
    headers = [(b"host", b"x"), *((b"cookie", line.encode("latin-1")) for line in lines)]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    assert lanes.cookies(scope) == ASGIRequest(scope, None).COOKIES


# --- what is good ---


@in_still_time
async def test_a_fleet_behind_one_address_comes_back_at_once(still: None) -> None:
    tokens = [node_token(n) for n in range(1000)]
    django = Django(*tokens)
    free = asyncio.Event()
    django.wait = free.wait
    asked = [asyncio.create_task(django.ask("/api/jobs/x/output", authorization=f"Bearer {one}")) for one in tokens]
    await asyncio.sleep(0.5)
    free.set()
    assert {await one for one in asked} == {200}


@in_still_time
async def test_an_office_behind_one_address_is_let_in(still: None) -> None:
    people = [f"session-{n}" for n in range(1000)]
    django = Django(*people)
    assert {await django.ask(cookie=f"hb_session={one}") for one in people} == {200}
    assert {await django.ask(cookie=f"hb_session={one}") for one in people} == {200}
    assert len(django.gate.strangers._known) == 1000


@in_still_time
async def test_what_nobody_could_say_costs_nothing(still: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_room(kind: Any) -> Any:
        raise Overloaded()

    django = Django("mine")
    with monkeypatch.context() as patch:
        patch.setattr(django.gate.slots, "take", no_room)
        assert {await django.ask(cookie=f"hb_session={n}") for n in range(1000)} == {503}
    assert await django.ask(cookie="hb_session=mine") == 200


@in_still_time
async def test_what_was_good_once_and_is_no_more_is_a_stranger_again(still: None) -> None:
    django = Django("mine", node_token(1))
    for shown in ({"cookie": "hb_session=mine"}, {"authorization": f"Bearer {node_token(1)}"}):
        assert await django.ask("/api/jobs", **shown) == 200
    assert len(django.gate.strangers._known) == 2
    django.good.clear()
    for shown in ({"cookie": "hb_session=mine"}, {"authorization": f"Bearer {node_token(1)}"}):
        assert await django.ask("/api/jobs", **shown) == 401
    assert len(django.gate.strangers._known) == 0


@in_still_time
async def test_nothing_grows_without_end(still: None) -> None:
    django = Django(*map(str, range(100)), is_public=True)
    django.gate.strangers = Strangers(max_known=50)
    counters = django.gate.strangers
    grow = (counters.named, counters.nobody, counters.unproven, counters.refused, counters.answered)
    for bucket in grow:
        bucket.max_keys = 70
    for n in range(200):
        for cookie in (f"hb_session={n}", ""):
            await django.ask(cookie=cookie, ip=f"198.51.100.{n}")
        await django.ask("/api/x", authorization=f"Bearer {node_token(n)}", ip=f"198.51.100.{n}")
    assert len(counters._known) == 50
    assert counters._knows("99") and not counters._knows("0")  # the oldest go first
    assert [len(bucket._buckets) for bucket in (*grow[:3], counters.answered)] == [70] * 4
    assert Strangers()._max_known == strangers.MAX_KNOWN == 50_000


@in_still_time
async def test_a_flood_of_names_does_not_let_one_go_that_is_held_back(still: None) -> None:
    bucket = lanes.TokenBucket(rate=1, burst=2, max_keys=10)
    for _ in range(2):
        bucket.take("greedy")
    for n in range(100):
        bucket.take(f"other {n}")
        with pytest.raises(RateLimited):
            bucket.take("greedy")
    assert len(bucket._buckets) == 10


@in_still_time
@pytest.mark.parametrize(("rate", "burst"), [(20, 60), (5, 30), (1, 60), (0.5, 30), (10 / 60, 10)])
async def test_who_waits_for_as_long_as_it_was_told_is_let_in(still: None, rate: float, burst: int) -> None:
    bucket = lanes.TokenBucket(rate=rate, burst=burst)
    for _ in range(burst):
        bucket.take("x")
    for _ in range(5):
        with pytest.raises(RateLimited) as caught:
            bucket.take("x")
        wait = caught.value.retry_after
        assert wait == max(1, round(1 / rate))
        if rate < 1:  # and no sooner
            await asyncio.sleep(wait - 0.5)
            with pytest.raises(RateLimited) as early:
                bucket.take("x")
            assert early.value.retry_after == 1
            await asyncio.sleep(0.5)
        else:
            await asyncio.sleep(wait)
        for _ in range(max(1, int(rate))):
            bucket.take("x")


# --- streams ---


async def open_stream(app: lanes.App, *, cookie: str = "", authorization: str = "", path: str = "/events/") -> int:
    headers = [(b"cookie", cookie.encode())] if cookie else []
    headers += [(b"authorization", authorization.encode())] if authorization else []
    return int((await answer_of(app, path, headers))["status"])


def stream(*good: str) -> tuple[lanes.App, Strangers]:
    counters = Strangers()

    async def consumer(scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        shown = [*lanes.cookies(scope).values(), lanes.header(scope, b"authorization").partition(" ")[2]]
        found = [one for one in shown if one in good]
        for one in found:
            lanes.prove(scope, one)
        if not found:
            lanes.refuse(scope, 401)
        await lanes.answer(send, 200 if found else 401, b"", "request-1")

    return BearerGate(StreamGate(consumer, counters)), counters


@in_still_time
async def test_made_up_sessions_open_no_streams_without_end(still: None) -> None:
    app, counters = stream("mine")
    assert await open_stream(app, cookie="hb_session=mine") == 200
    flood = [await open_stream(app, cookie=f"hb_session={n}") for n in range(400)]
    assert flood == [401] * 300 + [429] * 100
    flood = [await open_stream(app, authorization=f"Bearer {node_token(n)}") for n in range(10)]
    assert flood == [429] * 10
    assert await open_stream(app, cookie="hb_session=mine") == 200
    assert [await open_stream(app) for n in range(40)] == [401] * 30 + [429] * 10
    agent = Django(node_token(1))
    agent.gate.strangers = counters
    assert await agent.ask("/api/jobs/x/output", authorization=f"Bearer {node_token(1)}") == 200


@in_still_time
async def test_made_up_tokens_at_a_stream_are_counted_as_anywhere(still: None) -> None:
    app, _ = stream()
    flood = [
        await open_stream(app, authorization=f"Bearer {node_token(n)}", path="/api/stream/nodes") for n in range(40)
    ]
    assert (flood.count(401), flood.count(429)) == (31, 9)


@in_still_time
async def test_a_thousand_viewers_reconnect_at_once(still: None) -> None:
    names = [f"session-{n}" for n in range(1000)]
    app, counters = stream(*names)
    assert {await open_stream(app, cookie=f"hb_session={one}") for one in names} == {200}
    assert len(counters._known) == 1000


def test_every_stream_has_the_gate_and_tells_of_its_refusals() -> None:
    from accounts.gate import _STREAM

    assert set(asgi._streams) == set(STREAMS)
    assert all(isinstance(app, StreamGate) and app._strangers is asgi._gate.strangers for app in asgi._streams.values())
    for route in STREAMS:
        path = "/" + route.replace("<uuid:job_id>", "e3e70682-c209-4cac-a29f-6fbed82c07cd")
        assert _STREAM.fullmatch(path) or not path.startswith("/api/"), path
    for path in ("/api/stream", "/api/nodes/stream", "/api/jobs/x/stream", "/api/stream/nodes/x"):
        assert not _STREAM.fullmatch(path)


# --- the authenticators tell ---


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    monkeypatch.setattr(asgi._gate, "strangers", Strangers())
    with plane(monkeypatch) as made:
        yield made


@pytest.mark.django_db(transaction=True)
def test_whatever_opens_something_is_known_and_nothing_else(web: Plane, ada: User, web_1: Node) -> None:
    client = Client()
    client.force_login(ada)
    session, access = client.cookies["hb_session"].value, bearer(ada)
    key = keys.create_key(by=as_actor(ada), name="wall", scopes=["read"])[1]
    token = factories.make_token(web_1)
    job = factories.make_job(web_1)
    known = asgi._gate.strangers._knows
    good = [
        (session, Call("GET", "/jobs/", "", headers={"cookie": f"hb_session={session}"})),
        (session, Call("GET", "/api/jobs", "", headers={"cookie": f"hb_session={session}"})),
        (access, Call("GET", "/api/jobs", access)),
        (access, Call("GET", "/api/jobs", "", headers={"cookie": f"hb_token={access}"})),
        (key, Call("GET", "/api/jobs", key)),
        (token, Call("POST", f"/api/jobs/{job.pk}/start", token, {})),
    ]
    for shown, call in good:
        asgi._gate.strangers._known.clear()
        answer = web.run(web.send(call))
        assert answer.status_code in (200, 400), answer.text
        assert known(shown), call
    asgi._gate.strangers._known.clear()
    for call in (
        Call("GET", "/jobs/", "", headers={"cookie": f"hb_session={session[:-1]}"}),
        Call("GET", "/api/jobs", "", headers={"cookie": f"hb_token={access[:-2]}"}),
        Call("GET", "/api/jobs", key[:-1] + "x"),
        Call("GET", "/api/jobs", token),  # good, but not there
        Call("GET", "/api/no/such", token),
    ):
        web.run(web.send(call))
    assert not asgi._gate.strangers._known


@pytest.mark.django_db(transaction=True)
def test_streams_tell_as_well(ada: User) -> None:
    client = Client()
    client.force_login(ada)
    session, access = client.cookies["hb_session"].value, bearer(ada)

    async def told(name: bytes, value: str) -> list[str]:
        heard: list[str] = []
        scope = {"type": "http", "path": "/events/", "headers": [(name, value.encode())], "client": (HERE, 1)}
        try:
            await actor_from_scope(lanes.heard_by(scope, heard.append, lambda status: None))
        except HyprBoxError:
            heard.append("refused")
        return heard

    assert asyncio.run(told(b"cookie", f"hb_session=x; hb_session={session}")) == [session]
    assert asyncio.run(told(b"cookie", f"hb_token={access}")) == [access]
    assert asyncio.run(told(b"authorization", f"Bearer {access}")) == [access]
    assert asyncio.run(told(b"cookie", f"hb_session={session}; hb_session=x")) == ["refused"]


@pytest.mark.django_db(transaction=True)
def test_a_stream_that_was_refused_is_counted(web: Plane, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr(BadBearers, "note", lambda self, key: noted.append(key))
    refused = lanes.TokenBucket(rate=1e-6, burst=300)
    for app in asgi._streams.values():
        monkeypatch.setattr(app._strangers, "refused_streams", refused)
    made_up, key = {"cookie": "hb_session=made-up"}, "hbak_" + "a" * 8 + "b" * 43
    paths = ["/events/?topics=nav", "/api/stream/nodes", "/api/jobs/e3e70682-c209-4cac-a29f-6fbed82c07cd/stream"]
    for number, path in enumerate(paths):
        assert web.run(web.send(Call("GET", path, "", headers=made_up))).status_code == 401
        assert web.get(path, key).status_code == 401
        [(level, _)] = refused._buckets.values()
        assert level == pytest.approx(300 - 2 * (number + 1), abs=0.01)
    assert len(noted) == 2  # those under /api/: the gate before it counts bearers there
