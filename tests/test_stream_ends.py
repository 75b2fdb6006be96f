"""An open stream ends within 15 s when the credential behind it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from accounts import keys, logins, people, services
from accounts.models import User
from hyprbox import dashboard
from hyprbox.lib import sse
from hyprbox.lib.actors import Actor, Role
from nodes import rules, streams
from nodes.tests.test_stream import Viewer, watch
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


@pytest.mark.parametrize("end", [end_session, log_out_everywhere, disable, change_role, revoke_key])
def test_it_ends_with_its_credential(vera: User, ada: User, monkeypatch: pytest.MonkeyPatch, end: End) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0.2)
    monkeypatch.setattr(sse, "SHARED_SECONDS", 0.1)
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0.1)
    here = Actor.anonymous(ip="127.0.0.1")
    token = services.log_in(email=vera.email, password=PASSWORD, by=here).tokens.access
    if end is revoke_key:
        _, token = keys.create_key(by=as_actor(vera), name="wall", scopes=["read"])

    async def work(viewer: Viewer) -> Any:
        await viewer.until("snapshot")
        await sync_to_async(end, thread_sensitive=False)(vera)
        return await viewer.until("expired")

    assert watch(token, work)["code"] == "not_authenticated"
