"""What a request may be: as large, deep, wide and slow, on the lanes, in the API and on pages alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from django.conf import settings as django_settings
from django.test import Client

from accounts.models import User
from hyprbox import asgi
from hyprbox.lib.errors import TooSlow
from hyprbox.openapi.document import routes
from nodes import ingest
from nodes.models import Node
from nodes.tests import lane
from tests import factories
from tests.plane import Call, Plane, bearer, plane

pytestmark = pytest.mark.django_db(transaction=True)
MIB = 1024 * 1024
UUID = "e3e70682-c209-4cac-a29f-6fbed82c07cd"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    with plane(monkeypatch) as made:
        yield made


@pytest.fixture
def tokens(web_1: Node, ada: User) -> dict[str, str]:
    return {"node": factories.make_token(web_1), "ada": bearer(ada)}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def session(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {"cookie": f"hb_session={client.cookies['hb_session'].value}"}


# --- size ---

SIZES = [
    ("/api/nodes/heartbeat", "node", MIB),
    (f"/api/jobs/{UUID}/output", "node", MIB),
    ("/api/jobs", "ada", MIB),
    ("/api/auth/login", "", MIB),
    ("/api/presets", "ada", 2 * MIB),
    ("/api/presets/system-report/render", "ada", 2 * MIB),
]


@pytest.mark.parametrize(("path", "who", "limit"), SIZES)
def test_a_body_over_the_limit_is_413_and_one_below_is_read(
    web: Plane, tokens: dict[str, str], path: str, who: str, limit: int
) -> None:
    token = tokens.get(who, "")
    padded = b'{"x": "' + b"a" * (limit - 9) + b'"}'
    assert len(padded) == limit
    assert web.post(path, token, padded).status_code in (400, 404)  # read, and found wanting
    assert code(web.post(path, token, padded + b" ")) == (413, "body_too_large")


def test_a_form_over_the_limit_is_a_page_that_says_so(web: Plane, ada: User) -> None:
    form = {**session(ada), "content-type": "application/x-www-form-urlencoded"}
    answer = web.run(web.send(Call("POST", "/settings/tokens/", "", b"name=" + b"a" * MIB, form)))
    assert (answer.status_code, answer.headers["content-type"]) == (413, "text/html; charset=utf-8")
    assert "larger than this address takes" in answer.text


async def never_read(body_parts: int, size: int) -> list[dict[str, Any]]:
    """A body that is sent piece by piece without saying how long it is; what the application answers."""
    heard: list[dict[str, Any]] = []
    pieces = [b"x" * size] * body_parts
    scope = {"type": "http", "method": "POST", "path": "/api/auth/login", "headers": [], "client": ("192.0.2.9", 1)}

    async def receive() -> dict[str, Any]:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        heard.append(message)

    await asgi.application(scope, receive, send)
    return heard


def test_a_body_without_end_is_not_read_for_ever(web: Plane) -> None:
    heard = web.run(never_read(200, MIB))
    assert heard[0]["status"] == 413


def test_who_goes_away_in_the_middle_hears_nothing(web: Plane) -> None:
    assert web.run(never_read(3, 10)) == []


# --- headers ---


@pytest.mark.parametrize("path", ["/api/nodes/heartbeat", "/api/jobs/pending", "/api/jobs", "/login/", "/healthz"])
def test_headers_over_16_kib_are_431_everywhere(web: Plane, tokens: dict[str, str], path: str) -> None:
    method = "POST" if path.endswith("heartbeat") else "GET"
    body = lane.beat("web-1") if method == "POST" else None
    fits = web.run(web.send(Call(method, path, tokens["node"], body, {"x-long": "a" * 15_000})))
    assert fits.status_code != 431
    assert code(web.run(web.send(Call(method, path, tokens["node"], body, {"x-long": "a" * 16_384})))) == (
        431, "headers_too_large",
    )  # fmt: skip


# --- shape ---

DEEP = b'{"variables": {"a": ' + b"[" * 21 + b"]" * 21 + b"}}"
WIDE = json.dumps({"variables": {f"k{n}": n for n in range(1001)}}).encode()
SHAPES: list[tuple[str, bytes]] = [
    ("deep", DEEP),
    ("a hundred thousand deep", b"[" * 100_000 + b"]" * 100_000),
    ("wide", WIDE),
    ("an escaped NUL", b'{"name": "a\\u0000b", "node_id": "a\\u0000b"}'),
    ("a NUL in a key", b'{"a\\u0000b": 1}'),
    ("a raw NUL", b'{"name": "a\0b"}'),
    ("half a surrogate", b'{"name": "\\ud800"}'),
    ("not UTF-8", b'{"name": "\xff"}'),
    ("no number", b'{"name": NaN}'),
    ("endless", b'{"name": 1e999999}'),
    ("a number of 5,000 digits", b'{"name": ' + b"9" * 5000 + b"}"),
    ("a list", b"[1]"),
    ("cut", b'{"name": '),
]
PLACES = [
    ("POST", "/api/jobs", "ada"), ("PATCH", "/api/nodes/web-1", "ada"), ("POST", "/api/tokens", "ada"),
    ("POST", "/api/presets", "ada"), ("POST", "/api/auth/login", ""), ("POST", "/api/nodes/heartbeat", "node"),
    ("POST", f"/api/jobs/{UUID}/start", "node"), ("POST", f"/api/jobs/{UUID}/complete", "node"),
]  # fmt: skip


@pytest.mark.parametrize("body", [body for _, body in SHAPES], ids=[name for name, _ in SHAPES])
def test_what_no_honest_client_sends_is_400(web: Plane, tokens: dict[str, str], body: bytes) -> None:
    for method, path, who in PLACES:
        answer = web.run(web.send(Call(method, path, tokens.get(who, ""), body)))
        assert answer.status_code == 400, (path, answer.text)
        assert answer.json()["error"]["code"] in ("malformed_body", "invalid_input"), path


def test_twenty_levels_are_taken(web: Plane, tokens: dict[str, str]) -> None:
    levels = b'{"preset": "system-report", "node_id": "web-1", "variables": {"a": ' + b"[" * 18 + b"]" * 18 + b"}}"
    answer = web.post("/api/jobs", tokens["ada"], levels)
    assert code(answer) == (400, "invalid_input")  # of what is in it, not of how deep it is
    assert (
        web.post("/api/jobs", tokens["ada"], levels.replace(b"[" * 18, b"[" * 19).replace(b"]" * 18, b"]" * 19)).json()[
            "error"
        ]["code"]
        == "malformed_body"
    )


@pytest.mark.parametrize("name", ["node_id", "request_id", "wait", "reconcile", "other"])
def test_the_wait_for_work_refuses_what_cannot_be(web: Plane, tokens: dict[str, str], name: str) -> None:
    good = {"node_id": "web-1", "request_id": UUID, "wait": "0", "reconcile": "0"}
    for value in ("%00", "%ff", "a" * 10_000, "%ud800"):
        asked = "&".join(f"{key}={each}" for key, each in {**good, name: value}.items())
        answer = web.get(f"/api/jobs/pending?{asked}", tokens["node"])
        assert code(answer) == (400, "invalid_input"), (name, value[:9])


def test_a_thousand_parameters_and_no_more(web: Plane, tokens: dict[str, str], ada: User) -> None:
    many = "&".join(f"a{number}=1" for number in range(1001))
    asked = [
        web.get(f"/api/nodes?{many}", tokens["ada"]),
        web.get(f"/api/jobs/pending?{many}", tokens["node"]),
        web.run(web.send(Call("GET", f"/?{many}", headers=session(ada)))),
    ]
    cookie = f"{session(ada)['cookie']}; hb_csrf={'a' * 32}"
    form = {"cookie": cookie, "x-csrftoken": "a" * 32, "content-type": "application/x-www-form-urlencoded"}
    asked.append(web.run(web.send(Call("POST", "/theme/", "", many.encode(), form))))
    assert [answer.status_code for answer in asked] == [400] * 4
    assert django_settings.DATA_UPLOAD_MAX_NUMBER_FIELDS == 1000


# --- NUL on pages ---


def field_names() -> list[str]:
    """Every name that a form or an address of ours has, read from the templates and from what views ask for."""
    root = Path(django_settings.BASE_DIR)
    text = "".join(path.read_text() for path in (root / "templates").rglob("*.html"))
    found = set(re.findall(r'\sname="([a-z_]+)"', text))
    for package in ("accounts", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens"):
        for path in (root / package).rglob("*.py"):
            if "tests" not in path.parts:
                found |= set(re.findall(r'(?:GET|POST|query|data|post)\.get(?:list)?\("([a-z_]+)"', path.read_text()))
    return sorted(found - {"csrfmiddlewaretoken"})


def pages() -> list[str]:
    known = {"name": "system-report", "node_id": "web-1", "number": "1", "secret": "x"}
    found = []
    for route, _ in routes():
        if route.startswith(("api/", "django-admin", "events", "logout", "^")) or "\\" in route:
            continue
        found.append("/" + re.sub(r"<\w+:(\w+)>", lambda match: known.get(match[1], UUID), route))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("value", ["a\0b", "𝟙" * 200 + "\ud800"], ids=["nul", "long and broken"])
def test_no_field_of_a_page_makes_an_error_of_ours(client: Client, ada: User, web_1: Node, value: str) -> None:
    names = field_names()
    assert {"q", "name", "node", "status", "tag", "group", "email", "password", "reason", "text"} <= set(names)
    client.raise_request_exception = False
    filled = urlencode({name: value.encode("utf-8", "surrogatepass") for name in names})
    for path in pages():
        client.force_login(User.objects.get(pk=ada.pk))
        asked = {
            "GET": client.get(f"{path}?{filled}"),
            "POST": client.post(path, filled, content_type="application/x-www-form-urlencoded"),
        }
        for method, answer in asked.items():
            assert answer.status_code < 500 or path == "/readyz", (method, path, answer.content[-400:])


# --- defects ---


@pytest.mark.parametrize("path", ["/api/nodes/heartbeat", "/api/jobs/pending", "/api/stream/nodes", "/api/jobs", "/"])
def test_a_defect_shows_its_id_and_nothing_else(
    web: Plane, tokens: dict[str, str], ada: User, path: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("a secret of the inside")

    for place in ("nodes.ingest._accept", "jobs.waiting.parse_query", "nodes.streams.require", "jobs.selectors.list_jobs",
                  "hyprbox.fleet.state.fleet_state"):  # fmt: skip
        monkeypatch.setattr(place, broken)
    is_page = path == "/"
    token = {"/api/nodes/heartbeat": tokens["node"], "/api/jobs/pending": tokens["node"], "/": ""}.get(
        path, tokens["ada"]
    )
    asked = Call("POST" if path.endswith("heartbeat") else "GET", path, token, {}, session(ada) if is_page else {})
    answer = web.run(web.send(asked))
    assert answer.status_code == 500
    assert not re.search("secret|Zero|Traceback|line [0-9]|\\.py", answer.text)
    request_id = answer.headers["x-request-id"]
    assert is_page or answer.json()["error"] == {
        "code": "error", "detail": {}, "fields": {},
        "message": "Something went wrong on the server. The request id helps to find it in the log.",
    }  # fmt: skip
    assert not is_page or request_id in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "ZeroDivisionError" in caplog.text and request_id in caplog.text


async def test_there_are_no_websockets() -> None:
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    for path in ("/", "/events/", "/api/stream/nodes", "/api/jobs/pending"):
        await asgi.application({"type": "websocket", "path": path, "headers": []}, receive, send)
    assert [message["type"] for message in said] == ["websocket.close"] * 4


def test_the_sentence_names_the_time_that_is_waited() -> None:
    from hyprbox.lib import patience

    assert f"{patience.READ_SECONDS:.0f} seconds" in TooSlow().message
    assert ingest.wire.MAX_BODY_BYTES == MIB
