"""Plain functions that make what tests need. Each takes what matters to the test and fills in the rest."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.models import RateCounter, User
from accounts.selectors import actor_for
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Role
from hyprbox.lib.rowmac import Sealed
from jobs import services as jobs
from jobs.models import Job
from nodes.models import Node
from tokens import secrets
from tokens import services as tokens
from tokens.models import NodeToken

PASSWORD = "correct horse battery staple"
SYSTEM = Actor.system("test")
_numbers = itertools.count(1)
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def make_user(name: str, role: str = Role.VIEWER, **over: Any) -> User:
    user = User(email=f"{name}@example.com", name=name.title(), role=role, **over)
    user.set_password(PASSWORD)
    with transaction.atomic():
        sealed.create(user)
        audit.record(Action.ROW_SEALED, by=SYSTEM, target="test", row=user)
    return user


def as_actor(user: User) -> Actor:
    return actor_for(user, ip="127.0.0.1", request_id="test-request")


def lengthen_delays() -> None:
    """Who waits a second after failures waits a minute: a machine that stalls for that second changes nothing."""
    assert RateCounter.objects.exclude(blocked_until=None).update(blocked_until=timezone.now() + timedelta(minutes=1))


def make_node(node_id: str = "", **over: Any) -> Node:
    node = Node.objects.create(node_id=node_id or f"node-{next(_numbers)}", **over)
    node.refresh_from_db()
    return node


def report(*nodes: Node) -> None:
    """They were heard of, just now."""
    now = timezone.now()
    for node in nodes:
        node.first_seen_at, node.last_seen_at = node.first_seen_at or now, now
        node.save(update_fields=["first_seen_at", "last_seen_at"])


def make_seen_node(node_id: str = "", **over: Any) -> Node:
    return make_node(node_id, **{"first_seen_at": timezone.now(), "last_seen_at": timezone.now(), **over})


def make_token(node: Node | None = None, **over: Any) -> str:
    """The plaintext of a new token, pinned to `node` if there is one."""
    pinned = {"node_id": node.node_id, "node_pk": node.pk} if node else {}
    _, plaintext = tokens.issue_token(by=SYSTEM, name=over.pop("name", "test"), **pinned, **over)
    return plaintext


def token_row(plaintext: str) -> NodeToken:
    """The row of a token that was shown."""
    return NodeToken.objects.get(prefix=secrets.parse(plaintext).prefix)


def leave(row: Sealed, **changes: Any) -> None:
    """Change a sealed row as if a verb had left it so: sealed anew, and known to the audit log."""
    with transaction.atomic():
        for name, value in changes.items():
            setattr(row, name, value)
        sealed.save(row, *changes)
        audit.record(Action.ROW_SEALED, by=SYSTEM, target="test", row=row)


def agent_of(node: Node) -> Actor:
    return Actor.agent(id=str(node.pk), name=node.node_id, ip="127.0.0.1")


def make_job(node: Node, *, by: Actor = SYSTEM, preset: str = "system-report", **over: Any) -> Job:
    """A queued job, of a node that has reported."""
    if node.last_seen_at is None:
        report(node)
    order = jobs.Order(preset=preset, variables=over.pop("variables", {}), **over)
    job, _ = jobs.queue_job(by=by, order=order, node_id=node.node_id)
    return job


def claim(job: Job, *, lease_seconds: int = 30) -> uuid.UUID:
    """Give the job a claim as the dispatcher would."""
    claim_id = uuid.uuid4()
    lease = timezone.now() + timedelta(seconds=lease_seconds)
    Job.objects.filter(pk=job.pk).update(
        claim_id=claim_id, request_id=uuid.uuid4(), claimed_at=timezone.now(), lease_expires_at=lease
    )
    job.refresh_from_db()
    return claim_id


def ending(**over: Any) -> dict[str, Any]:
    """The body of `complete` for a job that succeeded without output."""
    now = timezone.now().isoformat().replace("+00:00", "Z")
    return {
        "status": "succeeded",
        "exit_code": 0,
        "phases": [{"name": "apply", "exit_code": 0, "signal": None, "duration_ms": 12, "skipped": False}],
        "changed": True,
        "stdout_bytes": 0,
        "stderr_bytes": 0,
        "stdout_sha256": EMPTY_SHA256,
        "stderr_sha256": EMPTY_SHA256,
        "started_at": now,
        "finished_at": now,
        **over,
    }
