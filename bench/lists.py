"""Lists, as pages and as calls, and what each asks of the database: for a benchmark, and for the test of their budgets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import keys, people
from accounts.models import User
from accounts.selectors import actor_for
from hyprbox import enrolment
from hyprbox.lib import actors, api
from jobs import drift, services
from nodes.models import Node

PAGES = (
    "/", "/?view=table", "/jobs/", "/presets/", "/drift/", "/live/", "/audit/", "/settings/tokens/", "/settings/people/",
    "/profile/",
)  # fmt: skip
CALLS = (
    "/api/nodes", "/api/nodes/sparks?node_id=list-0&node_id=list-1", "/api/jobs", "/api/presets", "/api/drift",
    "/api/drift/pins", "/api/audit", "/api/tokens", "/api/users", "/api/users/invite", "/api/auth/keys",
    "/api/auth/sessions",
)  # fmt: skip
PASSWORD = "correct horse battery staple"
_CHECKS = ("require", "require_fresh")


def fill(admin: User, numbers: range) -> None:
    """Something for every list: a node with a token, a job and a pin, a person, an invitation, a key, and what the log has of it."""
    by = actor_for(admin)
    for number in numbers:
        name = f"list-{number}"
        enrolment.enrol(by=by, name=name, node_id=name)
        Node.objects.filter(node_id=name).update(first_seen_at=Now(), last_seen_at=Now())
        services.queue_job(by=by, order=services.Order("system-report", {}), node_id=name)
        drift.create_pin(by=by, preset="time-sync", variables={}, node_id=name)
        people.create_user(by=by, email=f"{name}@example.com", password=PASSWORD)
        people.invite(by=by, email=f"guest-{number}@example.com", role="viewer")
        keys.create_key(by=by, name=name, scopes=["read"])


def client_of(user: User) -> Client:
    """Someone who is signed in to the pages; the same session opens the API."""
    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(user)
    return client


def queries(client: Client, path: str) -> int:
    """How many statements a list takes, once everything that is made once has been made."""
    for _ in range(2):
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(path)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}")
    return len(captured)


@contextmanager
def without_checks() -> Iterator[None]:
    """The same program without a question about permissions: in every module that has one, it answers at once."""

    def nothing(*_args: Any, **_more: Any) -> None:
        return None

    asked = {name: getattr(actors, name) for name in _CHECKS}
    with ExitStack() as stack:
        for module in list(sys.modules.values()):
            for name, check in asked.items():
                if getattr(module, "__dict__", {}).get(name) is check:
                    stack.enter_context(mock.patch.object(module, name, nothing))
        stack.enter_context(mock.patch.object(actors.Actor, "can", lambda _self, _capability: True))
        stack.enter_context(mock.patch.object(api.IsPerson, "has_permission", lambda *_args: True))
        yield
