"""Something of everything, made over the API itself, and for each call values with which somebody succeeds."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from django.utils import timezone

from accounts import jwt, passwords
from hyprbox.lib.actors import Role
from jobs.models import Job
from nodes.models import Node
from tests import factories
from tests.client import ApiClient

NEW_PASSWORD = "an entirely different passphrase"


@dataclass
class World:
    """`callers`: the Authorization of each kind of caller. `known`: what names in paths may stand for.

    `paths`, `bodies` and `queries` are those with which a call, `POST /api/jobs`, works.
    """

    callers: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    paths: dict[str, dict[str, str]] = field(default_factory=dict)
    bodies: dict[str, Any] = field(default_factory=dict)
    queries: dict[str, Any] = field(default_factory=dict)


def make_world() -> World:
    people = {role: factories.make_user(f"the-{role}", role) for role in Role.values}
    world = World(callers={"anonymous": ""})
    for role, user in people.items():
        world.callers[role] = f"Bearer {jwt.access_token(user)}"
    node = factories.make_seen_node("web-1", tags=["web"])
    factories.make_seen_node("twin-1", clone_suspected_at=timezone.now())
    token = factories.make_token(node)
    world.callers["agent"] = f"Bearer {token}"
    world.known = {
        "node_id": node.node_id,
        "user_id": str(factories.make_user("bystander").pk),
        "token_id": str(factories.token_row(token).pk),
    }
    world.paths["POST /api/nodes/{node_id}/confirm-machine"] = {"node_id": "twin-1"}
    admin, agent = ApiClient(world.callers[Role.ADMIN]), ApiClient(world.callers["agent"])
    _presets(world, admin)
    _jobs(world, admin, agent, node)
    _accounts(world, admin, people)
    return world


def _made(response: Any) -> Any:
    assert response.status_code < 300, response.content
    return response.json()


def _presets(world: World, admin: ApiClient) -> None:
    _made(admin.post("/api/presets/system-report/duplicate", {"name": "my-report"}))
    whole = _made(admin.get("/api/presets/my-report"))
    outside = {"parts", "revision", "builtin", "number", "saved_by", "saved_at", "origin", "archived", "warnings"}
    mine = {key: value for key, value in whole.items() if key not in outside}
    world.known |= {"name": "my-report", "number": "1"}
    world.bodies |= {
        "POST /api/presets": {**mine, "name": "another-report"},
        "PUT /api/presets/{name}": {**mine, "title": "Another title"},
        "POST /api/presets/{name}/duplicate": {"name": "third-report"},
        "POST /api/presets/{name}/render": {"variables": {}},
    }
    world.queries["GET /api/presets/{name}/diff"] = {"old": 1, "new": 1}


def _jobs(world: World, admin: ApiClient, agent: ApiClient, node: Node) -> None:
    wanted = {"preset": "system-report", "variables": {}, "node_id": node.node_id}
    many = {"preset": "system-report", "variables": {}, "node_ids": [node.node_id]}
    queued = _made(admin.post("/api/jobs", wanted))["id"]
    claimed = _made(admin.post("/api/jobs", wanted))["id"]
    running = _made(admin.post("/api/jobs", wanted))["id"]
    batch = _made(admin.post("/api/jobs/batches", many))
    failed = _made(admin.post("/api/jobs/batches", many))
    claims = {job_id: _claim(job_id) for job_id in (claimed, running, failed["jobs"][0]["id"])}
    for job_id in (running, failed["jobs"][0]["id"]):
        _made(agent.post(f"/api/jobs/{job_id}/start", {"claim_id": claims[job_id]}))
    ended = failed["jobs"][0]["id"]
    ending = factories.ending(status="failed", reason="exit", exit_code=1, changed=None)
    _made(agent.post(f"/api/jobs/{ended}/complete", {**ending, "claim_id": claims[ended]}))
    pin = _made(admin.post("/api/drift/pins", {"preset": "time-sync", "node_id": node.node_id}))["id"]
    world.known |= {"job_id": queued, "batch_id": batch["id"], "pin_id": pin}
    world.paths |= {
        "POST /api/jobs/{job_id}/start": {"job_id": claimed},
        "POST /api/jobs/{job_id}/output": {"job_id": running},
        "POST /api/jobs/{job_id}/complete": {"job_id": running},
        "POST /api/jobs/{job_id}/retry": {"job_id": ended},
        "POST /api/jobs/batches/{batch_id}/retry": {"batch_id": failed["id"]},
    }
    world.bodies |= {
        "POST /api/jobs": wanted,
        "POST /api/jobs/batches": many,
        "POST /api/jobs/{job_id}/cancel": {},
        "POST /api/jobs/stop": {"reason": "an exercise"},
        "POST /api/jobs/{job_id}/start": {"claim_id": claims[claimed]},
        "POST /api/jobs/{job_id}/output": {"claim_id": claims[running], "chunks": []},
        "POST /api/jobs/{job_id}/complete": {**factories.ending(), "claim_id": claims[running]},
        "POST /api/drift/pins": {"preset": "time-sync", "tag": "web"},
        "PATCH /api/nodes/{node_id}": {"display_name": "The web", "tags": ["web"], "notes": "Old."},
        "POST /api/tokens": {"name": "another", "node_id": "db-1"},
    }
    world.queries["GET /api/nodes/sparks"] = {"node_id": [node.node_id]}


def _claim(job_id: str) -> str:
    return str(factories.claim(Job.objects.get(pk=uuid.UUID(job_id)), lease_seconds=3600))


def _accounts(world: World, admin: ApiClient, people: dict[str, Any]) -> None:
    viewer = people[Role.VIEWER]
    session = _made(ApiClient().post("/api/auth/login", {"email": viewer.email, "password": factories.PASSWORD}))
    issued = passwords.issue_reset(email=viewer.email, by=factories.SYSTEM)
    assert issued is not None
    logins = ApiClient(f"Bearer {session['access']}").get("/api/auth/sessions")
    key = _made(admin.post("/api/auth/keys", {"name": "deploy", "scopes": ["read"]}))["id"]
    invitation = _made(admin.post("/api/users/invite", {"email": "ivy@example.com"}))["id"]
    world.known |= {"session_id": _made(logins)["results"][0]["id"], "key_id": key, "invitation_id": invitation}
    account = {"email": "nora@example.com", "password": NEW_PASSWORD, "name": "Nora"}
    world.bodies |= {
        "POST /api/auth/login": {"email": viewer.email, "password": factories.PASSWORD},
        "POST /api/auth/register": account,
        "POST /api/auth/refresh": {"refresh": session["refresh"]},
        "POST /api/auth/logout": {"everywhere": False},
        "POST /api/auth/password": {"current": factories.PASSWORD, "new": NEW_PASSWORD},
        "POST /api/auth/reset": {"email": viewer.email},
        "POST /api/auth/reset/confirm": {"token": issued[1], "new": NEW_PASSWORD},
        "POST /api/auth/keys": {"name": "another", "scopes": ["read"]},
        "POST /api/users": account,
        "PATCH /api/users/{user_id}": {"name": "Someone else", "is_active": False},
        "POST /api/users/invite": {"email": "ian@example.com"},
    }
