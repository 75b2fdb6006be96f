"""Every crash point of the agent and its runner, and a reboot: what the next agent makes of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from agent.processes import cgroup_mounts
from agent.spool import SpoolReader
from agent.tests.conftest import living, wait_for
from agent.tests.test_crash import runner_pid, starts, witness

pytestmark = [pytest.mark.faults, pytest.mark.slow]
MARK = f"6{os.getpid()}"


def end(number: int, *pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture(autouse=True)
def no_stray_sleeper():
    yield
    end(signal.SIGKILL, *living(MARK))


def rewrite(path: Path, **over: object) -> None:
    """A record of the journal with other facts, and a checksum that holds."""
    data = json.loads(path.read_text().partition("\n")[2])
    text = json.dumps({**data, **over}, sort_keys=True, separators=(",", ":"))
    path.write_text(hashlib.sha256(text.encode()).hexdigest() + "\n" + text)


def test_cp08_acknowledged_and_the_agent_dies_before_the_runner_is_there(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path)
    job = plane.queue(parts)
    agent_process.start(HBX_CRASH_AT="CP08A")
    agent_process.wait_dead()
    assert (job.status, starts(path)) == ("RUNNING", 0)
    agent_process.start()
    plane.finished(job)
    assert (job.status, starts(path)) == ("SUCCEEDED", 1)


def test_cp10_the_agent_dies_while_bash_runs(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, "sleep 1.5; seq 5")
    job = plane.queue(parts)
    agent_process.start(HBX_CRASH_AT="CP10")
    agent_process.wait_dead()
    assert runner_pid(agent_process)
    agent_process.start()
    plane.finished(job)
    assert (job.status, job.result["exit_code"], starts(path)) == ("SUCCEEDED", 0, 1)
    assert bytes(job.streams["stdout"].data) == b"begun\n1\n2\n3\n4\n5\nended\n"


def test_cp11_the_runner_dies_while_bash_runs(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, f"setsid sleep {MARK} & sleep {MARK}")
    job = plane.queue(parts)
    agent_process.start(HBX_CRASH_AT="CP11")
    plane.finished(job)
    assert (job.status, job.result["reason"], job.result["outcome_unknown"]) == ("FAILED", "runner_killed", True)
    assert starts(path) == 1
    assert bytes(job.streams["stdout"].data) == b"begun\n"
    wait_for(lambda: not living(MARK), 5)


def test_cp12_agent_runner_and_script_are_killed(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, f"sleep {MARK}")
    job = plane.queue(parts)
    agent_process.start(HBX_CRASH_AT="CP12")
    agent_process.wait_dead()
    wait_for(lambda: not living(MARK))
    agent_process.start()
    plane.finished(job)
    assert (job.status, job.result["reason"], job.result["outcome_unknown"]) == ("FAILED", "runner_killed", True)
    assert (starts(path), bytes(job.streams["stdout"].data)) == (1, b"begun\n")


@pytest.mark.parametrize("lives", [False, True], ids=["all gone", "a process has the number of the runner"])
def test_cp16_after_a_reboot_it_says_so_and_touches_no_stranger(plane, agent_process, tmp_path, lives):
    path, parts = witness(tmp_path, f"sleep {MARK}")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    folder = agent_process.state_dir / "jobs" / job.id
    wait_for(
        lambda: SpoolReader(folder, after_reboot=True).progress()[0][0] == len(b"begun\n")
    )  # the runner has synced
    agent_process.kill()
    record = agent_process.state_dir / "jobs" / job.id / "exec"
    if not lives:
        end(signal.SIGKILL, runner_pid(agent_process), *living(MARK))
    rewrite(record, boot_id="00000000-0000-4000-8000-000000000000", **({} if not lives else {"cgroup": ""}))
    agent_process.start()
    plane.finished(job)
    assert (job.status, job.result["reason"], job.result["outcome_unknown"]) == ("FAILED", "host_rebooted", True)
    assert (starts(path), bytes(job.streams["stdout"].data)) == (1, b"begun\n")
    assert bool(living(MARK)) is lives


def test_a_process_with_the_runners_number_is_not_the_runner(plane, agent_process, tmp_path):
    path, parts = witness(tmp_path, f"sleep {MARK}")
    agent_process.start()
    job = plane.queue(parts)
    plane.wait(lambda: job.streams["stdout"].total)
    agent_process.kill()
    end(signal.SIGKILL, runner_pid(agent_process), *living(MARK))
    rewrite(agent_process.state_dir / "jobs" / job.id / "exec", pid=os.getpid(), cgroup="")
    agent_process.start()
    plane.finished(job)
    assert (job.status, job.result["reason"], starts(path)) == ("FAILED", "runner_killed", 1)


def test_a_job_may_kill_and_restart_its_own_agent(plane, agent_process, tmp_path):
    pid_file, go_on = tmp_path / "pid", tmp_path / "go"
    path, parts = witness(
        tmp_path, f"kill -9 $(cat {pid_file}); while [ ! -e {go_on} ]; do sleep 0.05; done; echo upgraded"
    )
    agent_process.start()
    pid_file.write_text(str(agent_process.process.pid))
    job = plane.queue(parts)
    agent_process.wait_dead()
    agent_process.start()
    go_on.touch()
    plane.finished(job)
    assert (job.status, job.result["exit_code"], starts(path)) == ("SUCCEEDED", 0, 1)
    assert bytes(job.streams["stdout"].data) == b"begun\nupgraded\nended\n"


@pytest.mark.parametrize("record", ["intent", "started", "exec", "result"])
def test_no_record_cut_anywhere_makes_it_run_twice(plane, agent_process, tmp_path, record):
    """A sample of the cuts, with a real agent each; test_records.py cuts at every byte."""
    path, parts = witness(tmp_path)
    plane.claim_lease = 1.0
    for cut in (0, 1, 64, 65, 90):
        agent_process.start()
        job = plane.finished(plane.queue(parts))
        folder = agent_process.state_dir / "jobs" / job.id
        wait_for((folder / "closed").exists)
        agent_process.kill()
        whole = (folder / record).read_bytes()
        (folder / record).write_bytes(whole[:cut])
        for name in ("closed", *(["result"] if record != "result" else [])):
            (folder / name).unlink()
        with plane.changed:
            job.status, job.result = "RUNNING", None
        agent_process.start()
        plane.finished(job)
        assert starts(path) == 1, cut
        assert job.result["outcome_unknown"] is True, cut
        path.unlink()
        agent_process.kill()


@pytest.mark.skipif(not cgroup_mounts(), reason="no cgroup v2 is mounted here")
def test_processes_that_fork_faster_than_one_can_count_are_ended_by_a_cancel(plane, agent_process, tmp_path):
    # Eight lines of processes that live five milliseconds each and leave a successor; they end by themselves.
    forks = (
        f"{sys.executable} -c 'import os, time\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        end = time.monotonic() + 40\n"
        "        while time.monotonic() < end:\n"
        "            if os.fork(): os._exit(0)\n"
        "            time.sleep(0.005)\n"
        "        os._exit(0)\n"
        f"time.sleep(40)' {MARK}"
    )
    agent_process.start()
    job = plane.queue({"apply": f"echo begun; {forks}"})
    plane.wait(lambda: job.streams["stdout"].total)
    wait_for(lambda: living(MARK))
    plane.cancel(job)
    began = time.monotonic()
    plane.finished(job, 35)
    assert job.status == "CANCELLED"
    while time.monotonic() < began + 1:
        assert not living(MARK)
