"""Kills at the worst moments: a script starts at most once, and what is reported is true."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from agent.tests.conftest import living, wait_for

pytestmark = pytest.mark.slow


def witness(tmp_path: Path, then: str = "true") -> tuple[Path, dict[str, str]]:
    """A script that leaves a line each time it starts."""
    path = tmp_path / "witness"
    return path, {"apply": f"echo START >> {path}; echo begun; {then}; echo ended"}


def starts(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_killed_agent_reports_the_true_result_after_its_restart(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, "sleep 2; seq 1 1000")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    agent_process.kill()
    agent_process.start()
    plane.finished(job)
    assert (job.status, job.result["exit_code"], starts(path)) == ("SUCCEEDED", 0, 1)
    expected = "begun\n" + "".join(f"{n}\n" for n in range(1, 1001)) + "ended\n"
    assert bytes(job.streams["stdout"].data).decode() == expected


def test_a_job_that_ended_while_the_agent_was_away_is_delivered(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, "sleep 0.5")
    agent_process.start()
    job = plane.queue(parts)
    wait_for(lambda: starts(path))
    agent_process.kill()
    wait_for(lambda: list(agent_process.state_dir.glob("jobs/*/result*")))
    agent_process.start()
    plane.finished(job)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)


@pytest.mark.parametrize("point", ["CP05", "CP06", "CP07", "CP08", "CP14"])
def test_a_crash_before_or_after_the_run_still_runs_it_once(plane, agent_process, tmp_path, point):
    path, parts = witness(tmp_path)
    plane.claim_lease = 1.0
    job = plane.queue(parts)
    agent_process.start(HBX_CRASH_AT=point)
    if point == "CP08":  # the runner dies there, not the agent
        plane.finished(job)
        assert (job.status, job.result["reason"], job.result["outcome_unknown"]) == ("FAILED", "agent_error", False)
        assert starts(path) == 0
        return
    agent_process.wait_dead()
    agent_process.start()
    plane.finished(job)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)


@pytest.mark.parametrize(("point", "ran"), [("CP09", 0), ("CP13", 1)])
def test_a_runner_that_dies_on_either_side_of_the_script_leaves_the_outcome_unknown(
    plane, agent_process, tmp_path, point, ran
):
    path, parts = witness(tmp_path)
    job = plane.queue(parts)
    agent_process.start(HBX_CRASH_AT=point)
    plane.finished(job)
    assert (job.status, job.result["outcome_unknown"], starts(path)) == ("FAILED", True, ran)
    if ran:
        assert bytes(job.streams["stdout"].data) == b"begun\nended\n"


def runner_pid(agent_process) -> int:
    pids = [
        p for p in living(f"{agent_process.state_dir}/jobs/") if b"runner" in Path(f"/proc/{p}/cmdline").read_bytes()
    ]
    return pids[0] if pids else 0


def test_a_killed_runner_takes_its_script_with_it(plane, agent_process, tmp_path):
    _, parts = witness(tmp_path, f"setsid sleep 7654{os.getpid()} & sleep 7654{os.getpid()}")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    os.kill(wait_for(lambda: runner_pid(agent_process)), signal.SIGKILL)
    plane.finished(job)
    assert (job.status, job.result["reason"]) == ("FAILED", "runner_killed")
    assert job.result["outcome_unknown"] is True
    assert bytes(job.streams["stdout"].data) == b"begun\n"
    wait_for(lambda: not living(f"7654{os.getpid()}"), 5)


def test_two_runners_for_one_job_run_it_once(plane, agent_process, tmp_path):
    """An agent that dies right after starting a runner: its successor may start another one."""
    path, parts = witness(tmp_path, "sleep 1.5")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: ("start", 200) in plane.calls)
    agent_process.kill()  # most likely before the runner's record is there
    agent_process.start()
    plane.finished(job)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)


def test_sigterm_ends_the_agent_and_not_the_job(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, "sleep 2")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    began = time.monotonic()
    assert agent_process.stop() == 0
    assert time.monotonic() - began < 6
    assert runner_pid(agent_process)
    agent_process.start()
    plane.finished(job)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)


def test_stopping_with_jobs_leaves_no_process(plane, agent_process, tmp_path):
    _, parts = witness(tmp_path, f"sleep 8765{os.getpid()}")
    agent_process.start(HYPRBOX_STOP_JOBS="true")
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    assert agent_process.stop() == 0
    assert not living(f"8765{os.getpid()}")
    assert not runner_pid(agent_process)


def test_a_second_agent_on_the_same_folder_ends_with_75(plane, agent_process):
    agent_process.start()
    plane.wait(lambda: plane.heartbeats)
    second = agent_process.run()
    assert second.returncode == 75
    assert str(agent_process.state_dir) in second.stderr
