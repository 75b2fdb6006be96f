"""docs/contribute/permissions.md, walked: every address and method with eight kinds of caller."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client
from django.urls import URLResolver, get_resolver
from django.utils import timezone

import hyprbox.asgi
from accounts import jwt, keys, people
from accounts.models import User
from hyprbox import installer
from hyprbox.lib.actors import Role
from jobs import batches, drift, services
from jobs.models import Job
from nodes.models import Node
from presets import services as presets
from tests import factories
from tests.factories import ending
from tests.plane import plane
from tokens.models import NodeToken

TABLE = Path(settings.BASE_DIR) / "docs/contribute/permissions.md"
ROW = re.compile(r"\| (GET|POST|PUT|PATCH|DELETE) \| (\S+) \| ([a-z ]+) \|")
OTHERS = ("healthz", "readyz", "metrics", "events/", "install.sh", "agent/hyprnode.pyz")
# Where the docs are served they are the same document for everybody; in production they are off.
UNLISTED = {"api/schema", "api/docs"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CALLERS = ("anonymous", "viewer", "operator", "admin", "own agent", "other agent", "read key", "disabled")
_SIGNED_IN = {"viewer", "operator", "admin"}
WHO: dict[str, set[str]] = {
    "everyone": set(CALLERS),
    "people": _SIGNED_IN | {"read key"},
    "oneself": _SIGNED_IN,
    "operators": {"operator", "admin"},
    "readers": {"operator", "admin", "read key"},
    "admins": {"admin"},
    "own agent": {"own agent"},
    "nobody": set(),
}
DOCUMENT = {"name": "own-preset", "title": "Own", "description": "Says hello.", "category": "other", "risk": "safe",
            "systems": [], "timeout_seconds": 60, "variables": [], "apply": "echo hello\n"}  # fmt: skip
NEW = "a passphrase nobody guesses"
Body = dict[str, Any]


def table() -> dict[tuple[str, str], str]:
    rows = ROW.findall(TABLE.read_text())
    return {(method, "" if address == "." else address): who for method, address, who in rows}


RULES = table()


@dataclass
class World:
    """Something of each kind, and how each caller proves who they are."""

    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    sessions: dict[str, User] = field(default_factory=dict)
    things: dict[str, Any] = field(default_factory=dict)
    secret: str = ""

    def client(self, caller: str, *, is_page: bool) -> Client:
        client = Client()
        if is_page and caller in self.sessions:
            client.force_login(self.sessions[caller])
        return client


@pytest.fixture
def world(web_1: Node, db_1: Node, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(installer, "agent", lambda: (b"the agent's file", "0" * 64))
    Node.objects.update(concurrency=5)
    users = {name: factories.make_user(name, name) for name in ("viewer", "operator", "admin")}
    gone = factories.make_user("disabled", Role.ADMIN)
    target = factories.make_user("target", Role.VIEWER)
    made.sessions = {**users, "disabled": gone}
    admin = factories.as_actor(users["admin"])
    _, key = keys.create_key(by=admin, name="reader", scopes=["read"])
    bearers = {name: jwt.access_token(user) for name, user in made.sessions.items()}
    bearers |= {"own agent": factories.make_token(web_1), "other agent": factories.make_token(db_1), "read key": key}
    made.headers = {name: {"authorization": f"Bearer {text}"} for name, text in bearers.items()}
    made.headers["anonymous"] = {}
    factories.leave(gone, is_active=False)

    invitation, _ = people.invite(by=admin, email="guest@example.com", role=Role.VIEWER)
    presets.create_preset(by=admin, text=json.dumps(DOCUMENT), kind="json")
    order = services.Order("system-report", {})
    batch, _, _ = batches.queue(by=admin, order=order, node_ids=["web-1", "db-1"])
    failed = Job.objects.filter(batch=batch).earliest("id")
    _end(failed, "FAILED")
    finished, queued, claimed, running = (factories.make_job(web_1) for _ in range(4))
    _end(finished, "SUCCEEDED")
    factories.claim(claimed)
    factories.claim(running)
    Job.objects.filter(pk=running.pk).update(
        status="RUNNING", started_at=timezone.now(), lease_expires_at=timezone.now(), deadline_at=timezone.now()
    )
    running.refresh_from_db()
    made.things = {
        "user_id": target.pk, "invitation_id": invitation.pk, "node_id": "web-1", "name": "own-preset", "number": 1,
        "token_id": NodeToken.objects.filter(node_id="db-1").get().pk, "batch_id": batch.pk, "finished": finished.pk,
        "queued": queued.pk, "claimed": claimed, "running": running,
        "pin_id": drift.create_pin(by=admin, preset="time-sync", variables={}, node_id="web-1").pk,
    }  # fmt: skip
    return made


def _end(job: Job, status: str) -> None:
    now = timezone.now()
    Job.objects.filter(pk=job.pk).update(status="RUNNING", claim_id=uuid.uuid4(), started_at=now)
    Job.objects.filter(pk=job.pk).update(
        status=status, reason="exit" if status == "FAILED" else "", finished_at=now, completion_sha256="x"
    )


@dataclass
class Sample:
    """A request that means something: what an allowed caller sends, and gets."""

    body: Body | Callable[[World], Body] | None = None
    job: str = "finished"
    query: str = ""
    status: int | None = None  # of the strongest allowed caller; else below 400


def _claimed(name: str, **more: Any) -> Callable[[World], Body]:
    return lambda world: {"claim_id": str(world.things[name].claim_id), **more}


SAMPLES: dict[tuple[str, str], Sample] = {
    ("GET", "readyz"): Sample(status=503),  # nothing listens in a test
    ("POST", "api/auth/login"): Sample({"email": "target@example.com", "password": factories.PASSWORD}),
    ("POST", "api/auth/register"): Sample({"email": "new@example.com", "password": NEW}),
    ("POST", "api/auth/refresh"): Sample({"refresh": "nonsense"}, status=401),
    ("POST", "api/auth/step-up"): Sample({"otp": "000000"}, status=409),  # nobody here has a second factor
    ("DELETE", "api/users/<uuid:user_id>/second-factor"): Sample(status=409),
    ("POST", "api/auth/reset"): Sample({"email": "target@example.com"}),
    ("POST", "api/auth/reset/confirm"): Sample({"token": "nonsense", "new": NEW}, status=400),
    ("POST", "api/auth/password"): Sample({"current": factories.PASSWORD, "new": NEW}),
    ("DELETE", "api/auth/sessions/<uuid:session_id>"): Sample(status=404),
    ("POST", "api/auth/keys"): Sample({"name": "mine", "scopes": ["read"]}),
    ("DELETE", "api/auth/keys/<uuid:key_id>"): Sample(status=404),
    ("POST", "api/users"): Sample({"email": "new@example.com", "password": NEW, "role": "viewer"}),
    ("POST", "api/users/invite"): Sample({"email": "other@example.com", "role": "viewer"}),
    ("PATCH", "api/users/<uuid:user_id>"): Sample({"role": "operator"}),
    ("GET", "api/nodes/sparks"): Sample(query="?node_id=web-1"),
    ("PATCH", "api/nodes/<str:node_id>"): Sample({"notes": "seen"}),
    ("POST", "api/nodes/<str:node_id>/confirm-machine"): Sample(status=409),  # nothing was suspected
    ("POST", "api/tokens"): Sample({"name": "new"}),
    ("POST", "api/presets"): Sample({**DOCUMENT, "name": "another"}),
    ("PUT", "api/presets/<str:name>"): Sample({**DOCUMENT, "title": "Better"}),
    ("POST", "api/presets/<str:name>/render"): Sample({"variables": {}}),
    ("GET", "api/presets/<str:name>/diff"): Sample(query="?old=1&new=1"),
    ("POST", "api/presets/<str:name>/duplicate"): Sample({"name": "copied"}),
    ("POST", "api/jobs"): Sample({"preset": "system-report", "variables": {}, "node_id": "web-1"}),
    ("POST", "api/jobs/batches"): Sample({"preset": "system-report", "variables": {}, "node_ids": ["web-1"]}),
    ("POST", "api/jobs/<uuid:job_id>/cancel"): Sample(job="queued"),
    ("GET", "api/jobs/<uuid:job_id>/output"): Sample(query="?stream=stdout"),
    ("POST", "api/jobs/<uuid:job_id>/output"): Sample(_claimed("running", phase="apply", chunks=[]), job="running"),
    ("POST", "api/jobs/<uuid:job_id>/start"): Sample(_claimed("claimed"), job="claimed"),
    ("POST", "api/jobs/<uuid:job_id>/complete"): Sample(_claimed("running", **ending()), job="running"),
    ("POST", "api/drift/pins"): Sample({"preset": "time-sync", "variables": {}, "tag": "web"}),
}
SPECIAL = {"api/nodes/heartbeat", "api/jobs/pending", "api/stream/nodes", "api/jobs/<uuid:job_id>/stream", "events/"}


# What a page's form sends. Without one an allowed caller gets the form again, with what is wrong with it.
FORMS: dict[tuple[str, str], Sample] = {
    ("POST", "jobs/<uuid:job_id>/cancel/"): Sample(job="queued"),
    ("POST", "nodes/<str:node_id>/confirm-machine/"): Sample(status=409),
    ("GET", "palette/"): Sample(query="?q=web"),
    ("GET", "presets/pick/"): Sample(query="?preset=system-report&node=web-1"),
    ("POST", "settings/tokens/"): Sample({"name": "new"}),
    ("POST", "settings/people/"): Sample({"email": "other@example.com", "role": "viewer"}),
    ("POST", "settings/people/<uuid:user_id>/change/"): Sample({"name": "Target", "role": "operator"}),
    ("POST", "profile/name/"): Sample({"name": "Other"}),
    ("POST", "theme/"): Sample({"theme": "dark"}),
    ("GET", "login/second/"): Sample(status=302),  # to the first step
    ("POST", "login/second/"): Sample(status=302),
    ("GET", "reset/<str:secret>/"): Sample(status=400),
    ("POST", "reset/<str:secret>/"): Sample(status=400),
    ("GET", "invitation/<str:secret>/"): Sample(status=400),
    ("POST", "invitation/<str:secret>/"): Sample(status=400),
    ("POST", "profile/sessions/<uuid:session_id>/end/"): Sample(status=404),
    ("POST", "profile/keys/<uuid:key_id>/revoke/"): Sample(status=404),
}


def _filled(address: str, world: World, sample: Sample) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "job_id":
            found = world.things[sample.job]
            return str(found.pk if isinstance(found, Job) else found)
        return str(world.things.get(name) or uuid.uuid4())

    return "/" + re.sub(r"<\w+:(\w+)>", value, address) + sample.query


def _call(world: World, caller: str, method: str, address: str) -> int:
    """The status; whatever it did is undone."""
    sample = SAMPLES.get((method, address), Sample())
    body = sample.body(world) if callable(sample.body) else sample.body
    client = world.client(caller, is_page=False)
    with transaction.atomic():
        answer = client.generic(
            method,
            _filled(address, world, sample),
            data=json.dumps(body or {}) if method != "GET" else "",
            content_type="application/json",
            headers=world.headers[caller],
        )
        transaction.set_rollback(True)
    return int(answer.status_code)


def _open(world: World, caller: str, method: str, address: str) -> tuple[int, str]:
    """The status and the place that a page leads to; whatever it did is undone."""
    sample = FORMS.get((method, address), Sample())
    with transaction.atomic():
        client = world.client(caller, is_page=True)
        headers = {} if caller in world.sessions else world.headers[caller]
        path = _filled(address, world, sample)
        answer = (
            client.post(path, sample.body or {}, headers=headers)
            if method == "POST"
            else client.generic(method, path, headers=headers)
        )
        transaction.set_rollback(True)
    return int(answer.status_code), answer.headers.get("Location", "")


def addresses(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, Any]]:
    for entry in resolver.url_patterns:
        here = before + str(entry.pattern)
        if here.startswith(settings.HYPRBOX_ADMIN_PATH):
            continue  # Django's own admin: its own test
        if isinstance(entry, URLResolver):
            yield from addresses(entry, here)
        else:
            yield here, entry.callback


def is_api(address: str) -> bool:
    return address.startswith("api/") or address in OTHERS


def api_addresses() -> set[str]:
    known = {address for address, _ in addresses(get_resolver()) if is_api(address) and "^" not in address} - UNLISTED
    lanes = {path.lstrip("/") for path in hyprbox.asgi.LANES}
    return known | lanes | set(hyprbox.asgi.STREAMS)


def page_addresses() -> set[str]:
    return {address for address, _ in addresses(get_resolver()) if not is_api(address)}


def _requests(known: set[str]) -> Iterator[tuple[str, str, str, str | None]]:
    """Every caller with every method in the table; what is not there is tried by the weakest and the strongest."""
    for caller, address, method in itertools.product(CALLERS, sorted(known), METHODS):
        who = RULES.get((method, address))
        if who is not None or caller in ("anonymous", "admin"):
            yield caller, address, method, who


def test_every_address_is_in_the_table_and_the_table_names_no_other() -> None:
    assert {address for _, address in RULES if is_api(address)} == api_addresses()
    assert {address for _, address in RULES if not is_api(address)} == page_addresses()
    assert set(RULES.values()) <= set(WHO)


@pytest.mark.slow
@pytest.mark.django_db
def test_the_api(world: World) -> None:
    """Allowed: the request goes through, or stumbles over what it is about. Not allowed: 401, 403, or 404 for what is hidden."""
    wrong = []
    for caller, address, method, who in _requests(api_addresses() - SPECIAL):
        status = _call(world, caller, method, address)
        if not _is_right(method, address, who, caller, status):
            wrong.append(f"{method} {address} ({who or 'no such method'}) as {caller}: {status}")
    assert not wrong, "\n".join(wrong)


def _is_right(method: str, address: str, who: str | None, caller: str, status: int) -> bool:
    if who is None:
        return status in (401, 403, 404, 405)
    if caller in WHO[who]:
        strongest = "own agent" if who == "own agent" else "admin"
        expected = SAMPLES.get((method, address), Sample()).status
        if expected is not None:
            return status == expected
        return status < 400 if caller == strongest else status not in (401, 403) and status < 500
    hidden = who in ("own agent", "nobody")
    return status in ((401, 403, 404) if hidden else (401, 403))


@pytest.mark.slow
@pytest.mark.django_db
def test_pages(world: World) -> None:
    """Not allowed: a page that says so, or the way to the log-in page for whoever is not signed in."""
    wrong = []
    for caller, address, method, who in _requests(page_addresses()):
        status, place = _open(world, caller, method, address)
        if not _is_right_page(method, address, who, caller, status, place):
            wrong.append(f"{method} {address} ({who or 'no such method'}) as {caller}: {status} {place}")
    assert not wrong, "\n".join(wrong)


def _is_right_page(method: str, address: str, who: str | None, caller: str, status: int, place: str) -> bool:
    is_sent_away = place.startswith("/login/?next=")
    is_signed_in = caller in _SIGNED_IN
    if who is None:
        return status in (401, 403, 404, 405) or (is_sent_away and not is_signed_in)
    expected = FORMS.get((method, address), Sample()).status
    if who == "everyone" or (is_signed_in and caller in WHO[who]):
        if expected is not None:
            return status == expected
        # 400: the form again, which nobody else gets to see.
        return (status < 400 or (method == "POST" and status in (400, 409, 422))) and not is_sent_away
    if is_signed_in:
        return status == 403
    return is_sent_away or (method == "POST" and status in (401, 403))


async def _asgi(method: str, path: str, headers: dict[str, str], body: bytes) -> int:
    """The status of one request to the whole application; a stream is left as soon as it has answered."""
    target, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": target,
        "raw_path": target.encode(), "query_string": query.encode(), "scheme": "http", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1", **headers}.items()],
        "client": ("127.0.0.1", 4711), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    handed = False

    async def receive() -> dict[str, Any]:
        nonlocal handed
        if not handed:
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}
        await answered
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and not answered.done():
            answered.set_result(message["status"])

    task = asyncio.ensure_future(hyprbox.asgi.application(scope, receive, send))
    status = await asyncio.wait_for(answered, 10)
    await asyncio.wait([task], timeout=10)
    return status


@pytest.mark.django_db(transaction=True)
def test_lanes_and_streams(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not Django's, so they are asked through the whole application."""
    beat = {"node_id": "web-1", "agent_version": "1", "interval_seconds": 10,
            "metrics": {"cpu_percent": 1, "memory_percent": 1, "disk_percent": 1}}  # fmt: skip
    running = world.things["running"].pk
    requests = {
        ("POST", "api/nodes/heartbeat"): ("/api/nodes/heartbeat", beat),
        ("GET", "api/jobs/pending"): (f"/api/jobs/pending?node_id=web-1&request_id={uuid.uuid4()}&wait=0", None),
        ("GET", "api/stream/nodes"): ("/api/stream/nodes", None),
        ("GET", "api/jobs/<uuid:job_id>/stream"): (f"/api/jobs/{running}/stream", None),
        ("GET", "events/"): ("/events/?topics=nav", None),
    }
    assert {address for _, address in requests} == SPECIAL
    Job.objects.filter(node__node_id="web-1", status="QUEUED").delete()

    async def ask() -> list[str]:
        wrong = []
        for (method, address), (path, body) in requests.items():
            for caller in CALLERS:
                raw = b"" if body is None else json.dumps(body).encode()
                status = await _asgi(method, path, {"content-type": "application/json", **world.headers[caller]}, raw)
                if (status < 300) != (caller in WHO[RULES[method, address]]) or (
                    status >= 300 and status not in (401, 403)
                ):
                    wrong.append(f"{method} {address} as {caller}: {status}")
        return wrong

    with plane(monkeypatch) as up:
        assert up.run(ask()) == []
