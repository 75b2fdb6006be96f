"""Disks that are full, read-only, without inodes: nothing is lost, nothing runs twice, and the agent says why."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from agent.journal import Journal
from agent.state import StateDir
from agent.tests.conftest import wait_for
from agent.tests.test_crash import starts, witness
from agent.tests.test_records import JOB

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def mount(path: Path, options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")


@pytest.fixture
def disk(agent_process):
    """A small disk for the agent's state alone; gives a function that mounts it."""
    path = agent_process.state_dir
    path.mkdir()
    mounted = []

    def make(options: str = "size=24m") -> Path:
        mount(path, options)
        mounted.append(path)
        return path

    yield make
    if agent_process.process is not None:
        agent_process.process.kill()
        agent_process.process.wait(10)
    for at in mounted:
        subprocess.run(["umount", "-l", str(at)], check=False)


def fill(disk: Path, leave: int = 0) -> Path:
    """All but `leave` bytes; to the last block otherwise."""
    path = disk / "filler"
    with path.open("ab", buffering=0) as file:
        facts = os.statvfs(disk)
        try:
            left = facts.f_bavail * facts.f_frsize - leave
            while left > 0 or not leave:
                left -= file.write(b"\0" * min(65536, left if leave else 65536)) or 1
        except OSError as error:
            assert error.errno == errno.ENOSPC
        if not leave:
            try:
                while True:
                    file.write(b"\0" * 512)
            except OSError:
                pass
    return path


def test_a_full_disk_takes_no_job_and_stops_no_heartbeat(plane, agent_process, disk):
    filler = fill(disk())
    agent_process.start()
    plane.wait(lambda: len(plane.heartbeats) >= 3)
    job = plane.queue({"apply": "echo ran"})
    wait_for(lambda: "spool_unwritable" in agent_process.log)
    wait_for(lambda: "space" in plane.heartbeats[-1]["metrics"].get("spool_unwritable", ""))
    beats = [beat["beat"] for beat in plane.heartbeats]
    assert beats == sorted(set(beats))
    assert (job.status, job.claim_id) == ("QUEUED", None)
    filler.unlink()
    assert plane.finished(job, 60).status == "SUCCEEDED"
    wait_for(lambda: "spool_unwritable" not in plane.heartbeats[-1]["metrics"])


def test_a_disk_that_has_no_room_for_a_job_lets_it_wait(plane, agent_process, disk):
    disk("size=8m")
    agent_process.start()
    job = plane.queue({"apply": "echo ran"})
    wait_for(lambda: "MiB free" in agent_process.log)
    assert (job.status, job.claim_id) == ("QUEUED", None)


def test_a_disk_without_inodes_takes_no_job(plane, agent_process, disk):
    disk("size=24m,nr_inodes=40")
    agent_process.start()
    job = plane.queue({"apply": "echo ran"})
    wait_for(lambda: "inodes free" in agent_process.log)
    assert (job.status, job.claim_id) == ("QUEUED", None)


def test_a_disk_that_turns_read_only_takes_no_job_and_the_agent_starts_on_it(plane, agent_process, disk):
    path = disk()
    agent_process.start()
    assert plane.finished(plane.queue({"apply": "true"})).status == "SUCCEEDED"
    agent_process.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
    count = len(plane.heartbeats)
    agent_process.start()
    plane.wait(lambda: len(plane.heartbeats) >= count + 2)
    job = plane.queue({"apply": "true"})
    wait_for(lambda: "spool_unwritable: Read-only" in agent_process.log)
    assert agent_process.run().returncode == 75
    time.sleep(0.5)
    assert job.status == "QUEUED"


@pytest.mark.parametrize("moment", range(10))
def test_a_disk_that_fills_at_any_moment_of_a_job_loses_nothing(plane, agent_process, disk, tmp_path, moment):
    """The script goes on, the result is the true one, the output is all there."""
    path, parts = witness(tmp_path, "for n in $(seq 200); do echo line $n; sleep 0.005; done")
    small = disk()
    plane.claim_lease = 2.0
    agent_process.start()
    plane.wait(lambda: ("pending", 200) in plane.calls)
    job = plane.queue(parts)
    if moment:
        plane.wait(lambda: ("start", 200) in plane.calls)
        if moment >= 5:
            wait_for(lambda: starts(path))
        time.sleep((moment - (5 if moment >= 5 else 1)) * 0.15)
    filler = fill(small)
    if moment >= 5:
        assert plane.finished(job, 30).status == "SUCCEEDED"  # while it is full
    else:
        time.sleep(2)
        filler.unlink()
        plane.finished(job, 60)
    assert starts(path) == int(job.status == "SUCCEEDED")
    if job.status != "SUCCEEDED":
        assert (job.result["reason"], job.result["outcome_unknown"]) == ("agent_error", False)
    else:
        expected = "begun\n" + "".join(f"line {n}\n" for n in range(1, 201)) + "ended\n"
        assert bytes(job.streams["stdout"].data).decode() == expected


def test_a_cancel_reaches_the_script_though_the_disk_takes_no_file(plane, agent_process, disk):
    small = disk("size=24m,nr_inodes=150")
    agent_process.start()
    job = plane.queue({"apply": "echo begun; sleep 300"})
    plane.wait(lambda: job.streams["stdout"].total)
    for number in range(150):
        try:
            (small / f"inode-{number}").touch()
        except OSError as error:
            assert error.errno == errno.ENOSPC
            break
    plane.cancel(job)
    wait_for(lambda: "job.cancel_by_signal" in agent_process.log)
    for path in small.glob("inode-*"):
        path.unlink()  # the reserve of the result takes one inode, its temporary file another
    plane.finished(job, 30)
    assert job.status == "CANCELLED"
    assert "job.cancel_by_signal" in agent_process.log


def test_the_reserve_takes_the_result_when_nothing_else_does(tmp_path, monkeypatch):
    folder = Journal(tmp_path).folder(JOB)
    folder.create()
    folder.reserve()
    real = folder._write

    def full(record: str, data: dict) -> None:
        if (folder.path / "reserve").exists():
            raise OSError(errno.ENOSPC, "full")
        real(record, data)

    monkeypatch.setattr(folder, "_write", full)
    with pytest.raises(OSError, match="full"):
        folder.write("started", {})
    folder.write("result", {"status": "succeeded"})
    assert folder.read("result") == {"status": "succeeded"}


def test_output_that_waits_stops_further_jobs_at_its_limit(tmp_path, monkeypatch):
    state, journal, waiting = StateDir(tmp_path), Journal(tmp_path), []
    monkeypatch.setattr("agent.state.MAX_SPOOLED_BYTES", 2 * 1024 * 1024)
    for number in range(3):
        assert state.spool_problem(waiting) == ""
        folder = journal.folder(f"{number:08x}-2222-4333-8444-55555555cafe")
        folder.create()
        (folder.path / "stdout.ring").write_bytes(b"x" * 1024 * 1024)
        waiting.append(folder)
    assert "not delivered yet" in state.spool_problem(waiting)
