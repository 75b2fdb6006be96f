"""From queue to result: a real agent, a real bash, and a control plane over HTTP."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from pathlib import Path

import pytest

from agent import config, delivery, work
from agent.heart import Heart
from agent.log import Log
from agent.state import StateDir
from agent.tests.plane import Signer, key_set
from agent.wire import parse_offer


def test_a_job_runs_and_its_output_and_result_arrive(plane, agent_process):
    agent_process.start()
    plane.wait(lambda: plane.heartbeats)
    job = plane.queue({"check": "return 1", "apply": "echo applied; echo oops >&2", "verify": "echo verified"})
    plane.finished(job)
    assert job.status == "SUCCEEDED"
    assert bytes(job.streams["stdout"].data) == b"applied\nverified\n"
    assert bytes(job.streams["stderr"].data) == b"oops\n"
    result = job.result
    assert (result["exit_code"], result["changed"], result["reason"]) == (0, True, None)
    assert [(p["name"], p["exit_code"], p["skipped"]) for p in result["phases"]] == [
        ("check", 1, False),
        ("apply", 0, False),
        ("verify", 0, False),
    ]
    assert result["stdout_sha256"] == hashlib.sha256(b"applied\nverified\n").hexdigest()


def test_the_first_line_does_not_wait_for_more(plane, agent_process, tmp_path):
    """Output goes every 1.5 s, here every minute; how soon the first line comes is the bench's to judge."""
    assert delivery.SEND_SECONDS == 1.5
    agent_process.command = lambda *_: [
        sys.executable, "-c",
        "import sys; from agent import daemon, delivery; delivery.SEND_SECONDS = 60; sys.exit(daemon.main([]))",
    ]  # fmt: skip
    agent_process.start()
    job = plane.queue({"apply": f"echo first; until [[ -e {tmp_path}/go ]]; do sleep 0.05; done"})
    plane.wait(lambda: job.first_output_at)
    assert job.status == "RUNNING"
    (tmp_path / "go").touch()
    plane.finished(job)


@pytest.mark.slow
def test_a_script_that_says_nothing_keeps_its_lease(plane, agent_process):
    """Every ten seconds; here every half one, so that nobody has to wait."""
    assert delivery.LEASE_SECONDS == 10
    agent_process.command = lambda *_: [
        sys.executable, "-c",
        "import sys; from agent import daemon, delivery; delivery.LEASE_SECONDS = 0.5; sys.exit(daemon.main([]))",
    ]  # fmt: skip
    agent_process.start()
    job = plane.finished(plane.queue({"apply": "sleep 3"}))
    assert job.streams["stdout"].total == job.streams["stderr"].total == 0
    assert 4 <= job.output_calls <= 20


def test_a_second_job_waits_for_the_first(plane, agent_process):
    agent_process.start()
    jobs = [plane.queue({"apply": f"echo {n}"}) for n in range(3)]
    for job in jobs:
        plane.finished(job)
    assert [bytes(job.streams["stdout"].data) for job in jobs] == [b"0\n", b"1\n", b"2\n"]


@pytest.mark.parametrize(("age", "refusal"), [(59.0, ""), (61.0, "signature_invalid")])
def test_keys_older_than_a_minute_are_asked_for_anew_before_a_job(plane, agent_process, age, refusal):
    """What was retired meanwhile signs nothing from then on."""
    settings = config.load({}, agent_process.environment(), Path("/no"))
    state = StateDir(settings.state_dir)
    worker = work.Work(settings, state, Heart(settings, state), Log(), threading.Event())
    worker.keys.offer(plane.keys)
    old, new = plane.signer, Signer()
    plane.keys = key_set(2, [old.entry(retired=True), new.entry()], old)
    plane.queue({"apply": "true"})
    offer = parse_offer(plane._claim("request"))
    assert worker._judge(offer) == ("", {}) and plane.calls == []
    worker.keys._asked_at = time.monotonic() - age
    assert worker._judge(offer)[0] == refusal
    assert plane.calls == ([("keys", 200)] if refusal else [])
    assert worker.keys.age_seconds < 30 if refusal else worker.keys.age_seconds > 59
