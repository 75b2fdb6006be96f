"""An open stream ends within 15 s when the credential behind it does."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import ApplicationCommunicator
from django.test import Client

from accounts import keys, logins, people, services
from accounts.models import PageSession, User
from hyprbox import dashboard
from hyprbox.lib import live, sse
from hyprbox.lib.actors import Actor, Role
from hyprbox.live_routes import STREAMS
from jobs import streams as job_streams
from nodes import rules, streams
from nodes.models import Node
from nodes.tests import lane
from nodes.tests.test_stream import Viewer, watch
from tests import factories
from tests.factories import PASSWORD, SYSTEM, as_actor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("settled")]

End = Callable[[User], Any]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server started long ago, so silence counts."""
    monkeypatch.setattr(rules, "is_settling", lambda: False)


def end_session(user: User) -> None:
    logins.end_session(by=SYSTEM, session_id=user.refresh_families.get().pk)


def log_out_everywhere(user: User) -> None:
    services.log_out(by=as_actor(user), everywhere=True)


def log_out_here(user: User) -> None:
    family = user.refresh_families.get()
    services.log_out(by=replace(as_actor(user), session=str(family.pk)))


def remove(user: User) -> None:
    people.remove_user(by=SYSTEM, user_id=user.pk)


def disable(user: User) -> None:
    people.change_user(by=SYSTEM, user_id=user.pk, is_active=False)


def change_role(user: User) -> None:
    people.change_user(by=SYSTEM, user_id=user.pk, role=Role.OPERATOR)


def revoke_key(user: User) -> None:
    keys.revoke_key(by=SYSTEM, key_id=user.api_keys.get().pk)


def test_it_looks_often_enough() -> None:
    """At worst a stream waits, looks, is shown an answer from before the end, and does all that once more."""
    wait = max(streams.WAIT_SECONDS, dashboard.WAIT_SECONDS)
    assert sse.SHARED_SECONDS + sse.RECHECK_SECONDS + wait <= 15


def credential(user: User, end: End) -> str:
    """What `end` will end: a key, or the token of a log-in."""
    if end is revoke_key:
        return keys.create_key(by=as_actor(user), name="wall", scopes=["read"])[1]
    return services.log_in(email=user.email, password=PASSWORD, by=Actor.anonymous(ip="127.0.0.1")).tokens.access


@pytest.mark.parametrize("end", [end_session, log_out_everywhere, disable, change_role, revoke_key])
def test_it_ends_with_its_credential(vera: User, ada: User, monkeypatch: pytest.MonkeyPatch, end: End) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0.2)
    monkeypatch.setattr(sse, "SHARED_SECONDS", 0.1)
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0.1)
    token = credential(vera, end)

    async def work(viewer: Viewer) -> Any:
        await viewer.until("snapshot")
        await sync_to_async(end, thread_sensitive=False)(vera)
        return await viewer.until("expired")

    assert watch(token, work)["code"] == "not_authenticated"


@pytest.mark.parametrize(
    "end", [end_session, log_out_everywhere, log_out_here, disable, change_role, remove, revoke_key]
)
def test_it_is_told_and_does_not_wait_for_the_next_look(
    vera: User, ada: User, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 1000.0)
    monkeypatch.setattr(sse, "SHARED_SECONDS", 1000.0)
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0.1)
    token = credential(vera, end)

    async def work(viewer: Viewer) -> Any:
        await viewer.until("snapshot")
        await sync_to_async(end, thread_sensitive=False)(vera)
        told = await viewer.until("expired")
        assert (await viewer._app.receive_output(5))["more_body"] is False
        return told

    assert watch(token, work)["code"] == "not_authenticated"


def test_it_goes_on_when_nothing_of_its_own_ended(vera: User, otto: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0.1)
    here = Actor.anonymous(ip="127.0.0.1")
    kept = services.log_in(email=vera.email, password=PASSWORD, by=here).tokens.access
    services.log_in(email=vera.email, password=PASSWORD, by=here)
    other = vera.refresh_families.latest("created_at")

    async def work(viewer: Viewer) -> None:
        await viewer.until("snapshot")
        await sync_to_async(logins.end_session, thread_sensitive=False)(by=SYSTEM, session_id=other.pk)
        await sync_to_async(log_out_everywhere, thread_sensitive=False)(otto)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(viewer.event(), 1.0)

    watch(kept, work)


# --- every stream, with every kind of credential ---


class Opened(Viewer):
    """A stream of any kind, opened by whatever is in `headers`."""

    def __init__(self, route: str, headers: list[tuple[bytes, bytes]], job_id: uuid.UUID) -> None:
        self._buffer = ""
        path = "/" + route.replace("<uuid:job_id>", str(job_id))
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"topics=nav", "headers": headers}
        scope |= {"client": ("127.0.0.1", 1), "url_route": {"kwargs": {"job_id": job_id}}}
        self._app = ApplicationCommunicator(STREAMS[route], scope)


def by_session(user: User) -> tuple[bytes, bytes]:
    client = Client()
    client.force_login(user)
    return b"cookie", f"hb_session={client.cookies['hb_session'].value}".encode()


def by_token(user: User) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {credential(user, log_out_everywhere)}".encode()


def by_cookie(user: User) -> tuple[bytes, bytes]:
    return b"cookie", f"hb_token={credential(user, log_out_everywhere)}".encode()


def end_only_session(user: User) -> None:
    row = PageSession.objects.filter(user=user).first() or user.refresh_families.get()
    logins.end_session(by=SYSTEM, session_id=row.pk)


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "by looking"])
@pytest.mark.parametrize("shown_by", [by_session, by_token, by_cookie])
@pytest.mark.parametrize("route", sorted(STREAMS))
def test_every_stream_ends_when_its_session_does(
    otto: User,
    web_1: Node,
    monkeypatch: pytest.MonkeyPatch,
    route: str,
    shown_by: Callable[[User], tuple[bytes, bytes]],
    is_told: bool,
) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 1000.0 if is_told else 0.2)
    monkeypatch.setattr(sse, "SHARED_SECONDS", 1000.0 if is_told else 0.1)
    if not is_told:
        monkeypatch.setattr(sse, "doubt", lambda event: None)
    for module, name in ((streams, "WAIT_SECONDS"), (dashboard, "WAIT_SECONDS"), (job_streams, "POLL_SECONDS")):
        monkeypatch.setattr(module, name, 0.1)
    job = factories.make_job(web_1)
    headers = [shown_by(otto)]

    async def whole() -> Any:
        viewer = Opened(route, headers, job.pk)
        assert await viewer.open() == 200
        try:
            kind, _ = await viewer.event()
            assert kind != "expired"
            await sync_to_async(end_only_session, thread_sensitive=False)(otto)
            told = await asyncio.wait_for(viewer.until("expired"), 10)
            assert (await viewer._app.receive_output(5))["more_body"] is False
            again = Opened(route, headers, job.pk)
            assert await again.open() == 401
            return told
        finally:
            await viewer.close()
            await live.listener.stop()

    assert lane.run(whole)["code"] == "not_authenticated"
