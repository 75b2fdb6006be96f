"""A control plane that lies, and a network that loses things."""

from __future__ import annotations

import itertools
import json
import time
from datetime import timedelta

import pytest

from agent.tests.plane import Job, Signer, key_set, make_payload, render

pytestmark = pytest.mark.slow
PARTS = {"apply": "echo must not run"}


def refused(plane, job: Job) -> str:
    plane.finished(job)
    assert job.status == "FAILED"
    assert job.streams["stdout"].total == 0
    assert job.result["phases"] == []
    return job.result["reason"]


def test_a_retired_key_signs_nothing(plane, agent_process):
    old, new = plane.signer, Signer()
    plane.claim_lease = 1.0  # what a killed agent's open poll is handed comes back soon
    plane.keys = key_set(1, [old.entry(), new.entry()], old)
    agent_process.start()
    assert plane.finished(plane.queue({"apply": "true"})).status == "SUCCEEDED"
    plane.keys = key_set(2, [old.entry(retired=True), new.entry()], old)
    plane.signer = new
    assert plane.finished(plane.queue({"apply": "true"})).status == "SUCCEEDED"
    time.sleep(0.2)
    plane.signer = old
    agent_process.kill()
    agent_process.start()
    assert refused(plane, plane.queue(PARTS)) == "signature_invalid"


def test_a_key_set_that_nobody_pinned_signed_is_not_taken(plane, agent_process):
    agent_process.start()
    assert plane.finished(plane.queue({"apply": "true"})).status == "SUCCEEDED"
    stranger = Signer()
    plane.keys = key_set(2, [stranger.entry()], stranger)
    plane.signer = stranger
    assert refused(plane, plane.queue(PARTS)) == "signature_invalid"


def test_first_contact_needs_the_hash_that_was_told(plane, agent_process):
    agent_process.start(HYPRBOX_KEYS_SHA256="0" * 64)
    job = plane.queue(PARTS)
    plane.wait(lambda: "keys_untrusted" in agent_process.log)
    time.sleep(0.5)
    assert job.status == "QUEUED"


def test_a_job_is_never_run_again_whatever_the_server_says(plane, agent_process, tmp_path):
    witness = tmp_path / "witness"
    plane.claim_lease = 1.0  # an offer that comes too early is passed over, and made again
    agent_process.start()
    job = plane.finished(plane.queue({"apply": f"echo START >> {witness}"}))
    again = plane.put(Job(job.id, job.payload, job.signature, job.key_id))
    plane.finished(again)
    assert again.result["reason"] == "signature_invalid"
    other = make_payload(plane.node_id, plane.signer.key_id, render({"apply": f"echo OTHER >> {witness}"}), ["apply"])
    third = plane.queue_payload({**other, "job_id": job.id})
    plane.finished(third)
    assert third.status == "FAILED"
    assert witness.read_text() == "START\n"


def test_an_hour_of_clock_skew_refuses_jobs(plane, agent_process):
    plane.clock_shift = timedelta(hours=2)
    agent_process.start()
    assert refused(plane, plane.queue(PARTS)) == "clock_skew"


def test_a_secret_that_is_not_there_refuses_the_job(plane, agent_process):
    agent_process.start()
    for pointer in ("env:HYPRBOX_SECRET_MISSING", "env:HYPRBOX_NODE_TOKEN", "file:/etc/passwd", "nonsense"):
        assert refused(plane, plane.queue(PARTS, secrets={"PASSWORD": pointer})) == "secret_unresolved", pointer


def test_a_secret_reaches_the_script_and_nothing_else(plane, agent_process):
    agent_process.start(HYPRBOX_SECRET_DB="canary-4711")
    job = plane.finished(
        plane.queue(
            {
                "apply": 'test "$PASSWORD" = canary-4711; echo "it is <$PASSWORD>"; printf canary-; sleep 0.3; echo 4711; '
                'tr "\\0" "\\n" </proc/$$/cmdline; echo "$PASSWORD" >&2'
            },
            secrets={"PASSWORD": "env:HYPRBOX_SECRET_DB"},
        )
    )
    assert job.status == "SUCCEEDED"
    shown = bytes(job.streams["stdout"].data).decode()
    assert shown.startswith("it is <***>\n***\n")
    assert bytes(job.streams["stderr"].data) == b"***\n"
    assert job.result["stdout_bytes"] == len(shown)
    assert "canary-4711" not in agent_process.log
    for path in agent_process.state_dir.rglob("*"):
        assert not path.is_file() or b"canary-4711" not in path.read_bytes(), path


def test_a_secret_is_masked_before_it_is_on_disk(plane, agent_process, tmp_path):
    """While the job runs and the control plane takes no output, so that all of it is in the spool."""
    go_on = tmp_path / "go-on"
    plane.fault = lambda verb: "503" if verb == "output" else None
    agent_process.start(HYPRBOX_SECRET_DB="canary-4711")
    job = plane.queue(
        {
            "apply": 'echo "it is <$PASSWORD>"; printf canary-; sleep 0.2; echo "4711 at the end"; echo "$PASSWORD!" >&2; '
            f"until [ -e {go_on} ]; do sleep 0.05; done"
        },
        secrets={"PASSWORD": "env:HYPRBOX_SECRET_DB"},
    )

    def on_disk():
        files = [path for path in (agent_process.state_dir / "jobs" / job.id).rglob("*") if path.is_file()]
        return {path.name: path.read_bytes() for path in files}

    plane.wait(lambda: sum(b"***" in data for data in on_disk().values()) >= 2)
    plane.wait(lambda: any(b"*** at the end" in data for data in on_disk().values()))
    kept = on_disk()
    assert any(b"it is <***>\n*** at the end\n" in data for data in kept.values())
    assert any(b"***!\n" in data for data in kept.values())
    assert [name for name, data in kept.items() if b"canary" in data] == []
    assert job.streams["stdout"].total == 0
    plane.fault = lambda verb: None
    go_on.touch()
    assert plane.finished(job).status == "SUCCEEDED"
    assert bytes(job.streams["stdout"].data) == b"it is <***>\n*** at the end\n"


def test_ids_that_are_paths_touch_nothing(plane, agent_process, tmp_path):
    evil = Job("../../../escaped", b"", "", "")
    evil.status, evil.claim_id, evil.cancel_requested = "RUNNING", "../x", True
    plane.put(evil)
    agent_process.start()
    plane.wait(lambda: plane.calls.count(("pending", 200)) >= 2)
    evil.status = "FAILED"
    job = plane.finished(plane.queue({"apply": "true"}))
    assert job.status == "SUCCEEDED"
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_running_job_that_the_journal_does_not_know_is_ended_as_unknown(plane, agent_process):
    job = Job("11111111-1111-4111-8111-111111111111", b"", "", "")
    job.status, job.claim_id = "RUNNING", "22222222-2222-4222-8222-222222222222"
    job.streams["stdout"].data += b"of an earlier life"
    plane.put(job)
    agent_process.start()
    plane.finished(job)
    assert (job.status, job.result["reason"], job.result["outcome_unknown"]) == ("FAILED", "agent_error", True)


def test_nonsense_answers_do_not_end_the_agent(plane, agent_process):
    answers = itertools.cycle([{"job": 7, "cancel": None, "poll_after_ms": "x"}, {"cancel": [1]}, {"holding": 3}])
    real = plane._pending
    until = time.monotonic() + 2.5
    plane._pending = lambda query, http: next(answers) if time.monotonic() < until else real(query, http)
    agent_process.start()
    job = plane.finished(plane.queue({"apply": "true"}), 60)
    assert job.status == "SUCCEEDED"


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "twice", "503"])
def test_every_call_may_be_lost_or_doubled(plane, agent_process, tmp_path, fault):
    witness = tmp_path / "witness"
    faulted: set[str] = set()

    def once_each(verb: str) -> str | None:
        if verb in faulted or verb == "heartbeat":
            return None
        faulted.add(verb)
        return fault

    plane.fault = once_each
    agent_process.start()
    job = plane.queue({"apply": f"echo START >> {witness}; seq 1 20000"})
    plane.finished(job, 60)
    assert job.status == "SUCCEEDED"
    assert witness.read_text() == "START\n"
    assert bytes(job.streams["stdout"].data).decode() == "".join(f"{n}\n" for n in range(1, 20001))
    assert {"keys", "pending", "start", "output", "complete"} <= faulted


def test_the_control_plane_restarts_in_the_middle_of_a_job(plane, agent_process):
    agent_process.start()
    job = plane.queue({"apply": "for n in 1 2 3 4 5 6 7 8; do echo line $n; sleep 0.4; done"})
    plane.wait(lambda: job.streams["stdout"].total)
    plane.stop()
    time.sleep(1.0)
    plane.start()
    plane.finished(job, 60)
    assert bytes(job.streams["stdout"].data).decode() == "".join(f"line {n}\n" for n in range(1, 9))


def test_output_that_conflicts_does_not_harm_the_script(plane, agent_process, tmp_path):
    witness = tmp_path / "witness"
    agent_process.start()
    job = plane.queue({"apply": f"echo one; sleep 1.5; echo two; sleep 1.5; echo END >> {witness}"})
    plane.wait(lambda: job.streams["stdout"].total)
    with plane.changed:
        job.streams["stdout"].data[:] = b"XX"
    plane.finished(job, 30)
    assert witness.read_text() == "END\n"
    assert (job.status, job.result["exit_code"]) == ("SUCCEEDED", 0)


def test_a_cancel_ends_the_script(plane, agent_process):
    agent_process.start()
    job = plane.queue({"apply": "echo begun; sleep 300", "rollback": "echo never"})
    plane.wait(lambda: job.streams["stdout"].total)
    began = time.monotonic()
    plane.cancel(job)
    plane.finished(job)
    assert job.status == "CANCELLED"
    assert time.monotonic() - began < 8
    assert bytes(job.streams["stdout"].data) == b"begun\n"


def test_the_token_is_nowhere_but_in_the_request(plane, agent_process):
    agent_process.start()
    job = plane.queue({"apply": "env; tr '\\0' '\\n' < /proc/$$/environ; cat /proc/$PPID/cmdline /proc/$PPID/environ"})
    plane.finished(job)
    seen = bytes(job.streams["stdout"].data).decode(errors="replace") + agent_process.log + json.dumps(job.result)
    assert plane.token not in seen
    for path in agent_process.state_dir.rglob("*"):
        assert not path.is_file() or plane.token.encode() not in path.read_bytes()
