"""Every crash point of the table in `docs/explain/faults.md`, on real processes, with the end that it must have."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from agent.journal import JobFolder
from tests.faults.checker import check
from tests.faults.client import Asked
from tests.faults.evidence import gather
from tests.faults.stack import Stack, settled, stack
from tests.faults.witness_preset import Plan
from tests.house import wait_for

pytestmark = pytest.mark.faults
NODE = "north"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with stack() as made:
        yield made
        assert check(gather(made)) == [], made.last_words()  # the audit log as well, once for all


@pytest.fixture
def up(running: Stack, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The stack with everybody there; afterwards the invariants hold for all that ever ran on it."""
    running.bring_back()
    running.wait_ready()
    failed = request.session.testsfailed
    yield running
    running.bring_back()
    running.wait_ready()
    settled(running)
    assert check(gather(running, with_audit=False)) == [], running.last_words()
    if request.session.testsfailed > failed:
        print(running.last_words())


def plan(**over: Any) -> Plan:
    number = next(_numbers)
    return Plan(**{"nonce": f"point_{number}", "seed": number, "stdout_bytes": 70_000, "stderr_bytes": 300, **over})


def order(up: Stack, **over: Any) -> Asked:
    return up.people.order_until_told(NODE, plan(**over))


def ended(up: Stack, asked: Asked, *, seconds: float = 60) -> dict[str, Any]:
    job: dict[str, Any] = {}

    def has_ended() -> bool:
        job.update(up.people.job(asked.job_id))
        return job.get("status") in ("SUCCEEDED", "FAILED", "CANCELLED")

    wait_for(has_ended, seconds=seconds, why=f"{asked.plan.nonce} ends, now {job}")
    return job


def starts(up: Stack, asked: Asked) -> int:
    texts = [path.read_text() for path in (up.root / "witness").iterdir()]
    return sum(text.count(f"START {asked.job_id} ") for text in texts)


def folder(up: Stack, asked: Asked) -> JobFolder:
    return JobFolder(up.state_dir(NODE) / "jobs" / asked.job_id)


# --- the server dies ---


@pytest.mark.parametrize(("point", "jobs_before"), [("CP01", 0), ("CP02", 1)])
def test_an_order_that_was_not_answered_can_be_repeated(up: Stack, point: str, jobs_before: int) -> None:
    up.crash("web", point)
    up.wait_ready()
    wanted = plan()
    asked = up.people.order(NODE, wanted)
    assert asked.answers == [0]
    up.crashed("web")
    rows = up.sql("SELECT id::text FROM jobs_job WHERE variables->>'NONCE' = %s", wanted.nonce)
    assert len(rows) == jobs_before
    up.wait_ready()
    up.people.order_until_told(NODE, wanted)
    assert asked.answers[-1] == (200 if jobs_before else 201)
    assert [(asked.job_id,)] == up.sql("SELECT id::text FROM jobs_job WHERE variables->>'NONCE' = %s", wanted.nonce)
    assert ended(up, asked)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("point", ["CP03", "CP04"])
def test_a_claim_whose_answer_was_lost_is_given_again(up: Stack, point: str) -> None:
    up.crash("web", point)
    up.wait_ready()
    wanted = plan()
    asked = up.people.order(NODE, wanted)  # it may be claimed, and the web process dead, before the order is answered
    up.crashed("web")
    [(before,)] = up.sql("SELECT claim_id::text FROM jobs_job WHERE variables->>'NONCE' = %s", wanted.nonce)
    assert (before is None) == (point == "CP03")
    up.wait_ready()
    up.people.order_until_told(NODE, wanted)
    assert ended(up, asked)["status"] == "SUCCEEDED"
    [(after,)] = up.sql("SELECT claim_id::text FROM jobs_job WHERE id = %s", asked.job_id)
    assert before in (None, after)
    assert starts(up, asked) == 1


def test_a_completion_whose_answer_was_lost_is_repeated(up: Stack) -> None:
    up.crash("web", "CP15")
    up.wait_ready()
    asked = order(up, exit_code=7)
    up.crashed("web")
    assert up.sql("SELECT status, exit_code FROM jobs_job WHERE id = %s", asked.job_id) == [("FAILED", 7)]
    assert not folder(up, asked).has("closed")
    wait_for(lambda: folder(up, asked).has("closed"), why="the agent hears that its result is known")
    assert (folder(up, asked).read("closed") or {})["why"] == "delivered"
    assert ended(up, asked)["exit_code"] == 7


# --- the agent dies ---


@pytest.mark.parametrize("point", ["CP05", "CP06", "CP07", "CP08A", "CP10", "CP14"])
def test_a_job_whose_agent_died_runs_once_and_its_result_is_true(up: Stack, point: str) -> None:
    up.crash(NODE, point)
    asked = order(up, exit_code=5, tenths=15 if point == "CP10" else 2, stdout_bytes=300_000)
    up.crashed(NODE)
    job = ended(up, asked)
    assert (job["status"], job["reason"], job["exit_code"], starts(up, asked)) == ("FAILED", "exit", 5, 1)
    assert not job["outcome_unknown"]


# --- the runner dies ---


@pytest.mark.parametrize(
    ("point", "reason", "is_unknown", "runs"),
    [
        ("CP08", "agent_error", False, 0),
        ("CP09", "runner_killed", True, 0),
        ("CP11", "runner_killed", True, 1),
        ("CP12", "runner_killed", True, 1),
        ("CP13", "runner_killed", True, 1),
    ],
)
def test_a_job_whose_runner_died_never_runs_again(
    up: Stack, point: str, reason: str, is_unknown: bool, runs: int
) -> None:
    up.crash(NODE, point)
    asked = order(up, tenths=30 if point in ("CP11", "CP12") else 2, leftover=int(point in ("CP11", "CP12")))
    up.killed_runners.add(asked.job_id)
    up.kills["runner"] += 1
    if point == "CP12":
        up.crashed(NODE)  # the agent with it
    job = ended(up, asked)
    up.restart(NODE)
    assert (job["status"], job["reason"], job["outcome_unknown"]) == ("FAILED", reason, is_unknown)
    assert job["exit_code"] is None
    assert starts(up, asked) == runs
    if point == "CP13":
        assert (job["stdout_bytes"], job["stderr_bytes"]) == (70_000, 300)


def test_a_reboot_is_recognised(up: Stack) -> None:
    """CP16. This machine cannot reboot: everything is killed, and the journal is of another boot."""
    asked = order(up, tenths=100)
    wait_for(lambda: starts(up, asked), why="the script runs")
    up.killed_runners.add(asked.job_id)
    up.kill(NODE)
    for pid in [*up.runners().values(), *up.job_processes({asked.job_id})]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    record = folder(up, asked).read("exec")
    assert record is not None
    folder(up, asked).write("exec", {**record, "boot_id": "00000000-0000-4000-8000-000000000000"})
    up.children[NODE].start()
    job = ended(up, asked)
    assert (job["status"], job["reason"], job["outcome_unknown"]) == ("FAILED", "host_rebooted", True)
    assert starts(up, asked) == 1


# --- the database and the network go ---


def test_a_database_that_dies_while_a_script_runs_costs_nothing(up: Stack) -> None:
    asked = order(up, tenths=20, stdout_bytes=500_000)
    wait_for(lambda: starts(up, asked), why="the script runs")
    up.kill_postgres()
    up.postgres.start()
    job = ended(up, asked)
    assert (job["status"], job["stdout_bytes"], starts(up, asked)) == ("SUCCEEDED", 500_000, 1)


@pytest.mark.parametrize("call", ["pending", "start", "output", "complete"])
@pytest.mark.parametrize("kind", ["drop", "duplicate"])
def test_one_call_whose_answer_is_lost_or_that_arrives_twice(up: Stack, kind: str, call: str) -> None:
    before = up.proxy.counts[kind]
    if call == "pending":
        up.restart(NODE)  # the poll that hangs already is too late for it
    up.proxy.once(kind, f"/{call}")
    asked = order(up)
    job = ended(up, asked)
    assert (job["status"], job["stdout_bytes"], starts(up, asked)) == ("SUCCEEDED", 70_000, 1)
    assert up.proxy.counts[kind] == before + 1


def test_a_server_out_of_reach_gets_the_result_when_it_is_back(up: Stack) -> None:
    asked = order(up, tenths=10, exit_code=9)
    wait_for(lambda: starts(up, asked), why="the script runs")
    up.proxy.is_cut_off = True
    wait_for(lambda: folder(up, asked).has("result"), why="the script ends without the server")
    assert up.people.job(asked.job_id)["status"] == "RUNNING"
    up.proxy.is_cut_off = False
    assert ended(up, asked)["exit_code"] == 9
