"""Bugs that the harness must find. Each is behind a switch that does nothing outside of tests.

A suite that cannot fail proves nothing: with the bug there is a violation, and in the same scenario without it none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.checker import check
from tests.faults.client import Asked
from tests.faults.evidence import gather
from tests.faults.proxy import Call
from tests.faults.stack import Stack, stack
from tests.faults.witness_preset import Plan
from tests.house import ROOT, wait_for

pytestmark = pytest.mark.faults
NODE = "north"
# The second is what an installation has: somebody sets the variable, and nothing comes of it.
SWITCHES = pytest.mark.parametrize("switch", ["1", ""], ids=["with the bug", "inert outside of tests"])


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with stack() as made:
        yield made


@pytest.fixture
def up(running: Stack) -> Iterator[Stack]:
    yield running
    running.proxy.tamper = None
    for child in running.children.values():
        if child.given:  # the next test starts it without the bug, or with its own
            child.end(signal.SIGKILL)


def plant(up: Stack, name: str, bug: str, switch: str) -> None:
    up.children[name].end(signal.SIGKILL)
    up.children[name].start(HYPRBOX_PLANTED_BUG=bug, HYPRBOX_TEST=switch)
    up.bring_back()
    up.wait_ready()


def order(up: Stack, name: str, **over: Any) -> Asked:
    return up.people.order_until_told(NODE, Plan(f"{name}_{uuid.uuid4().hex[:6]}", **over))


def closed(up: Stack, asked: Asked) -> None:
    """The agent has said all that it will ever say about it."""
    record = up.state_dir(NODE) / "jobs" / asked.job_id / "closed"
    wait_for(record.exists, seconds=60, why=f"the agent is done with {asked.plan.nonce}\n{up.last_words()}")


def violated(up: Stack, asked: Asked) -> set[str]:
    """The invariants that this job breaks."""
    return {found.invariant for found in check(gather(up, with_audit=False)) if asked.job_id in found.text}


def started(up: Stack, asked: Asked) -> bool:
    return any(f"START {asked.job_id} " in path.read_text() for path in (up.root / "witness").iterdir())


@SWITCHES
def test_a_claim_id_that_is_ignored(up: Stack, switch: str) -> None:
    """Somebody who held the job once, and lost it, reports on it."""
    plant(up, "web", "claim_ignored", switch)
    up.children[NODE].end()
    asked = order(up, "claim", stdout_bytes=0, stderr_bytes=0, tenths=20)
    old_claim = claim_as_ghost(up)
    up.sql("UPDATE jobs_job SET lease_expires_at = now() - interval '1 second' WHERE id = %s", asked.job_id)
    up.children[NODE].start()
    wait_for(lambda: started(up, asked), why="the agent runs it under a claim of its own")
    status = complete_as_ghost(up, asked, old_claim)
    assert status == (200 if switch else 409)
    closed(up, asked)
    found = violated(up, asked)
    assert found >= ({"I4", "I6"} if switch else set())
    assert bool(found) == bool(switch)


def claim_as_ghost(up: Stack) -> str:
    query = {"node_id": NODE, "request_id": str(uuid.uuid4()), "wait": "1"}
    headers = {"Authorization": f"Bearer {up.tokens[NODE]}"}
    answer = httpx.get(f"{up.url}/api/jobs/pending", params=query, headers=headers, timeout=20).json()
    return str(answer["job"]["claim_id"])


def complete_as_ghost(up: Stack, asked: Asked, claim_id: str) -> int:
    empty = hashlib.sha256(b"").hexdigest()
    body = {
        "claim_id": claim_id, "status": "failed", "reason": "exit", "exit_code": 3, "signal": None, "phases": [],
        "changed": None, "outcome_unknown": False, "stdout_bytes": 0, "stderr_bytes": 0, "stdout_sha256": empty,
        "stderr_sha256": empty, "started_at": None, "finished_at": None,
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {up.tokens[NODE]}"}
    return httpx.post(f"{up.url}/api/jobs/{asked.job_id}/complete", json=body, headers=headers, timeout=20).status_code


@SWITCHES
def test_a_script_that_is_started_twice(up: Stack, switch: str) -> None:
    plant(up, NODE, "double_fork", switch)
    asked = order(up, "twice", tenths=10)
    closed(up, asked)
    assert violated(up, asked) == ({"I3", "I4"} if switch else set())


@SWITCHES
def test_output_that_is_stored_as_text(up: Stack, switch: str) -> None:
    plant(up, "web", "text_output", switch)
    asked = order(up, "text", stdout_bytes=5000)
    closed(up, asked)
    assert violated(up, asked) == ({"I7"} if switch else set())


@SWITCHES
def test_a_late_result_that_overwrites_the_end(up: Stack, switch: str) -> None:
    """The database would refuse it; here it is told not to, so that the checker has to see it."""
    plant(up, "web", "late_overwrites", switch)
    up.sql("ALTER TABLE jobs_job DISABLE TRIGGER jobs_status_guarded", as_owner=True)
    try:
        asked = order(up, "late", tenths=20, stdout_bytes=0, stderr_bytes=0)
        wait_for(lambda: started(up, asked), why="the script runs")
        up.sql("UPDATE jobs_job SET lease_expires_at = now() WHERE id = %s", asked.job_id)  # as if it were out of reach
        assert up.people.cancel(asked, force=True) == 200
        closed(up, asked)
    finally:
        up.sql("ALTER TABLE jobs_job ENABLE TRIGGER jobs_status_guarded", as_owner=True)
    job = up.people.job(asked.job_id)
    assert job["status"] == ("SUCCEEDED" if switch else "CANCELLED")
    found = violated(up, asked)
    assert ("I9" in found) == bool(switch)
    assert bool(found) == bool(switch)


@SWITCHES
def test_a_script_whose_signature_is_not_checked(up: Stack, switch: str) -> None:
    """On its way to the agent the script becomes another."""
    plant(up, NODE, "hash_unchecked", switch)
    up.proxy.tamper = another_script
    asked = order(up, "hash")
    closed(up, asked)
    job = up.people.job(asked.job_id)
    assert job["reason"] == (None if switch else "signature_invalid")
    assert violated(up, asked) == ({"I12"} if switch else set())


def another_script(call: Call, answer: bytes) -> bytes:
    """A job's script with one line more, and the hash that goes with it. Only the signature tells."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if "/api/jobs/pending" not in call.path or b'"payload"' not in body:
        return answer
    data = json.loads(body)
    payload = json.loads(base64.b64decode(data["job"]["payload"]))
    script = base64.b64decode(payload["script"]) + b"\n# and one line more\n"
    payload["script"], payload["script_sha256"] = base64.b64encode(script).decode(), hashlib.sha256(script).hexdigest()
    data["job"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    changed = json.dumps(data).encode()
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"content-length: %d" % len(changed), b"", changed])


def test_a_crash_point_is_inert_outside_of_tests(up: Stack) -> None:
    for name, point in (("web", "CP02"), (NODE, "CP06")):
        up.crash(name, point, HYPRBOX_TEST="")
    up.wait_ready()
    asked = order(up, "inert")
    closed(up, asked)
    assert asked.answers[-1] == 201
    assert up.children["web"].is_alive and up.children[NODE].is_alive
    assert violated(up, asked) == set()


def test_every_switch_is_in_the_document() -> None:
    text = (ROOT / "docs/explain/faults.md").read_text()
    code = [path.read_text() for folder in ("agent", "jobs") for path in sorted(Path(ROOT, folder).glob("*.py"))]
    for kind in ("crash_point", "planted"):
        used = {part.split('"', 1)[0] for source in code for part in source.split(f'{kind}("')[1:]}
        assert used
        assert [name for name in sorted(used) if f"`{name}`" not in text] == []
