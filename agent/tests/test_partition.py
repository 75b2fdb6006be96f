"""The network goes at the worst times, for short and for long: around the claim, the lease, the deadline."""

from __future__ import annotations

import os
import time

import pytest

from agent.tests.conftest import end_all, living, wait_for
from agent.tests.test_crash import starts, witness

pytestmark = [pytest.mark.faults, pytest.mark.slow]
MARK = f"8{os.getpid()}"


@pytest.fixture(autouse=True)
def no_stray_sleeper():
    yield
    end_all(MARK)


@pytest.mark.parametrize("away", [0.3, 3.0])
def test_a_partition_between_claim_and_start_runs_it_once(plane, agent_process, tmp_path, away):
    """Shorter than the claim's lease, and longer: then it may be handed out anew, and the old claim is void."""
    path, parts = witness(tmp_path)
    plane.claim_lease = 1.0
    cut_until = [0.0]

    def fault(verb: str) -> str | None:
        if verb == "start" and not cut_until[0]:
            cut_until[0] = time.monotonic() + away
        return "drop_before" if time.monotonic() < cut_until[0] else None

    plane.fault = fault
    agent_process.start()
    job = plane.finished(plane.queue(parts), 60)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)


def test_a_claim_that_went_to_another_request_starts_nothing_under_the_old_one(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path)
    stolen = []

    def fault(verb: str) -> str | None:
        if verb == "start" and not stolen:
            with plane.changed:
                job = next(iter(plane.jobs.values()))
                stolen.append(job.claim_id)
                job.claim_id, job.request_id = "33333333-3333-4333-8333-333333333333", "another"
                job.lease_until = time.monotonic() + 3
        return None

    plane.fault = fault
    agent_process.start()
    job = plane.queue(parts)
    wait_for(lambda: "stale_claim" in agent_process.log)
    assert starts(path) == 0
    plane.finished(job, 60)  # the other claim's lease runs out: handed out anew
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)


@pytest.mark.parametrize("away", [1.0, 6.0])
def test_a_partition_while_it_runs_loses_no_byte(plane, agent_process, tmp_path, away):
    path, parts = witness(tmp_path, "for n in $(seq 40); do echo line $n; sleep 0.1; done")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    plane.fault = lambda verb: "drop_before"
    time.sleep(away)
    plane.fault = lambda verb: None
    plane.finished(job, 60)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)
    expected = "begun\n" + "".join(f"line {n}\n" for n in range(1, 41)) + "ended\n"
    assert bytes(job.streams["stdout"].data).decode() == expected


def test_a_job_that_was_given_up_meanwhile_is_ended_and_leaves_nothing(plane, agent_process, tmp_path):
    """The partition outlasted the deadline: FAILED(lost) on the server, and the script still runs here."""
    _, parts = witness(tmp_path, f"setsid sleep {MARK} & sleep {MARK}")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    with plane.changed:
        job.status = "FAILED"
    wait_for(lambda: '"job.done"' in agent_process.log, 30)
    assert "job_finished" in agent_process.log
    assert not living(MARK)
    assert not list(agent_process.state_dir.glob("jobs/*/*.ring"))
    assert plane.finished(plane.queue({"apply": "true"})).status == "SUCCEEDED"


def test_a_result_waits_for_a_server_that_is_away_through_restarts_of_the_agent(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, "sleep 1; exit 7")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    plane.stop()
    wait_for(lambda: list(agent_process.state_dir.glob("jobs/*/result")))
    for _ in range(3):
        agent_process.kill()
        agent_process.start()
        time.sleep(1.0)
    plane.start()
    plane.finished(job, 60)
    assert (job.status, job.result["reason"], job.result["exit_code"], starts(path)) == ("FAILED", "exit", 7, 1)


def test_what_a_restored_database_forgot_is_delivered_again(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path)
    agent_process.start()
    job = plane.finished(plane.queue(parts))
    wait_for(lambda: list(agent_process.state_dir.glob("jobs/*/closed")))
    agent_process.stop()
    with plane.changed:
        job.status, job.result = "RUNNING", None
    agent_process.start()
    plane.finished(job)
    assert (job.status, job.result["exit_code"], starts(path)) == ("SUCCEEDED", 0, 1)


def test_a_damaged_intent_does_not_leave_a_job_running_for_ever(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, "sleep 2")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    agent_process.kill()
    (agent_process.state_dir / "jobs" / job.id / "intent").write_text("torn")
    agent_process.start()
    plane.finished(job)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)
    assert bytes(job.streams["stdout"].data) == b"begun\nended\n"


def test_a_start_that_took_too_long_is_judged_again(plane, agent_process, tmp_path, monkeypatch):
    """Offline, or asleep, from before `start` until after the job expired: the answer is a yes, and it is too late."""
    import threading

    from agent import delivery as module
    from agent.delivery import Delivery
    from agent.journal import Journal
    from agent.log import Log

    folder = Journal(tmp_path).folder("11111111-2222-4333-8444-55555555cafe")
    folder.create()
    folder.write("intent", {"claim_id": "c", "payload": ""})
    sent = []

    class Answering:
        def post(self, path: str, body: dict) -> dict:
            sent.append((path.rsplit("/", 1)[1], body))
            return {"lease_seconds": 60}

    monkeypatch.setattr(module, "STALE_SECONDS", -1.0)
    Delivery(folder, Answering(), stop=threading.Event(), log=Log(), judge_again=lambda: "signature_invalid").run()
    assert [verb for verb, _ in sent] == ["start", "complete"]
    assert sent[1][1]["reason"] == "signature_invalid" and not folder.may_have_run
