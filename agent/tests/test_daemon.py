"""Heartbeats, `--once`, `doctor`, a flood on its way to the server, and what the agent costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.tests.conftest import ROOT, wait_for
from agent.tests.plane import CAP
from agent.tests.test_witness import checkpoint

pytestmark = pytest.mark.slow


def test_a_heartbeat_says_what_the_contract_names(plane, agent_process):
    agent_process.start(HYPRBOX_REGION="eu")
    plane.wait(lambda: len(plane.heartbeats) >= 3)
    first, second = plane.heartbeats[:2]
    assert set(first) == {
        "node_id", "agent_version", "interval_seconds", "metrics", "inventory", "sent_at", "machine_id", "instance_id", "beat",
    }  # fmt: skip
    assert "inventory" not in second
    assert (first["node_id"], first["interval_seconds"], first["inventory"]["region"]) == ("web-1", 1, "eu")
    for name in ("cpu_percent", "memory_percent", "disk_percent"):
        assert 0 <= first["metrics"][name] <= 100
    assert second["beat"] == first["beat"] + 1 and second["instance_id"] == first["instance_id"]


def test_beats_go_on_after_a_restart_and_the_inventory_comes_again(plane, agent_process):
    agent_process.start()
    plane.wait(lambda: len(plane.heartbeats) >= 2)
    agent_process.kill()
    count = len(plane.heartbeats)
    agent_process.start()
    plane.wait(lambda: len(plane.heartbeats) > count)
    assert plane.heartbeats[count]["beat"] > plane.heartbeats[count - 1]["beat"]
    assert "inventory" in plane.heartbeats[count]


def test_the_server_sets_the_pace_and_keeps_its_checkpoints_with_us(plane, agent_process):
    kept = agent_process.state_dir / "audit-checkpoints"
    plane.extra["heartbeat"] = {"audit_checkpoint": checkpoint(plane.signer, 7, "ab")}
    agent_process.start()
    plane.wait(lambda: kept.exists() and '"n": 7' in kept.read_text())  # once the keys are pinned
    plane.extra["heartbeat"] = {"next_interval_seconds": 30}
    count = len(plane.heartbeats)
    plane.wait(lambda: len(plane.heartbeats) > count)
    count = len(plane.heartbeats)
    time.sleep(2.5)
    assert len(plane.heartbeats) <= count + 1


@pytest.mark.parametrize("does_server_know", [True, False])
def test_a_fork_goes_with_one_heartbeat_and_never_silences_the_agent(plane, agent_process, does_server_know):
    kept, other = (checkpoint(plane.signer, 7, letter * 64) for letter in "ab")
    forks = agent_process.state_dir / "audit-forks-untold"
    forks.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    forks.write_text(json.dumps({"kept": kept, "refused": other}) + "\n")
    if not does_server_know:
        plane.unknown_fields = {"audit_fork"}
    agent_process.start()
    plane.wait(lambda: len(plane.heartbeats) >= 2)
    first, second = plane.heartbeats[:2]
    assert ("audit_fork" in first) is does_server_know and "audit_fork" not in second
    if does_server_know:
        assert first["audit_fork"] == {"kept": kept, "refused": other}
    assert forks.read_text() == ""


def test_an_agent_survives_a_server_that_comes_late(plane, agent_process):
    plane.stop()
    agent_process.start()
    time.sleep(1.0)
    plane.start()
    plane.wait(lambda: plane.heartbeats, 20)


def test_once_sends_one_heartbeat_and_says_so(plane, agent_process):
    done = agent_process.run("--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "web-1" in done.stdout
    assert len(plane.heartbeats) == 1 and "beat" not in plane.heartbeats[0]


def test_once_works_beside_a_running_agent(plane, agent_process):
    agent_process.start()
    plane.wait(lambda: plane.heartbeats)
    assert agent_process.run("--once").returncode == 0


@pytest.mark.parametrize(
    ("over", "code", "word"),
    [
        ({"HYPRBOX_NODE_TOKEN": "hbnt_" + "z" * 51}, 1, "401"),
        ({"HYPRBOX_API_URL": "http://127.0.0.1:9"}, 69, "refused"),
        ({"HYPRBOX_API_URL": "http://hyprbox.example"}, 64, "https"),
        ({"HYPRBOX_INTERVAL": "soon"}, 64, "soon"),
        ({"HYPRBOX_NODE_TOKEN": ""}, 64, "HYPRBOX_NODE_TOKEN"),
    ],
)
def test_once_fails_with_one_sentence_and_a_code(plane, agent_process, over, code, word):
    done = agent_process.run("--once", **over)
    assert (done.returncode, done.stdout) == (code, "")
    assert word in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_redirect_is_not_followed(plane, agent_process):
    plane.fault = lambda verb: "302"
    plane.extra["headers"] = {"Location": "http://127.0.0.1:1/"}
    done = agent_process.run("--once")
    assert done.returncode == 1 and "302" in done.stderr
    assert plane.heartbeats == []


def test_a_netrc_does_not_replace_the_token(plane, agent_process, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert agent_process.run("--once", HOME=str(tmp_path)).returncode == 0


def test_doctor_takes_no_job(plane, agent_process):
    job = plane.queue({"apply": "true"})
    done = agent_process.run("doctor")
    assert "FAIL" not in done.stdout.replace("FAIL  not root", ""), done.stdout
    assert (job.status, job.claim_id) == ("QUEUED", None)


def test_doctor_names_what_is_wrong(plane, agent_process):
    done = agent_process.run("doctor", HYPRBOX_NODE_TOKEN="hbnt_" + "z" * 51)
    assert done.returncode == 1 and "FAIL" in done.stdout and "401" in done.stdout


def test_a_flood_arrives_as_its_exact_tail_and_never_blocks_the_script(plane, agent_process):
    size = 40 * 1024 * 1024 + 12345
    make = (
        f"{sys.executable} -c 'import sys; n={size}; b=bytes(range(251))*4000;"
        "w=sys.stdout.buffer.write; [w(b) for _ in range(n//len(b))]; w(b[:n%len(b)])'"
    )
    agent_process.start()
    job = plane.queue({"apply": f"{make}; sleep 1; {make}; {make}"})
    plane.finished(job, 60)
    pattern = bytes(range(251)) * 4000
    once = pattern * (size // len(pattern)) + pattern[: size % len(pattern)]
    stored = job.streams["stdout"]
    assert (job.status, stored.total) == ("SUCCEEDED", 3 * size)
    assert bytes(stored.data) == (once * 3)[-CAP:]


def test_a_server_that_asks_for_patience_gets_it(plane, agent_process):
    plane.send_after_ms = 4000
    agent_process.start()
    job = plane.queue({"apply": "for n in $(seq 12); do echo $n; sleep 0.25; done"})
    plane.finished(job, 30)
    assert job.output_calls <= 4


def test_django_is_not_needed():
    code = "import sys, agent.daemon, agent.runner, agent.cli; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_idle_agent_is_small(plane, agent_process):
    """What it costs in CPU is measured by `script/bench agent`."""
    agent_process.start(HYPRBOX_INTERVAL="10s")
    plane.finished(plane.queue({"apply": "true"}))
    wait_for(lambda: '"job.done"' in agent_process.log)
    assert agent_process.process is not None
    status = Path(f"/proc/{agent_process.process.pid}/status").read_text()
    rss = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
    print(f"idle: {rss:.1f} MiB resident")
    assert rss <= 40


FAILING = """
import threading
from agent import daemon

def fail(self, *arguments):
    raise RuntimeError("cannot reach https://agent:hunter2@plane")  # password=hunter3

def run(self):
    thread = threading.Thread(target=fail, args=(self,), name="work")
    thread.start()
    thread.join()
    fail(self)

daemon.Agent.run = run
daemon.main([])
"""


def test_what_nobody_caught_is_a_line_of_the_log_without_secrets(plane, agent_process, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "failing.py")],
        env=agent_process.environment(PYTHONPATH=str(ROOT)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in told] == ["agent.thread_failed", "agent.failed"]
    for line in told:
        assert "in fail" in line["traceback"] and "https://[hidden]@plane" in line["traceback"]
        assert "# password=[hidden]" in line["traceback"]  # the line of the source as well
    assert "hunter" not in done.stderr
