"""Clocks that are wrong or step: they warn, they refuse, and never change a running job."""

from __future__ import annotations

import base64
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent import heart as heart_module
from agent.config import load
from agent.heart import Heart
from agent.keys import KeyRing, Refused
from agent.state import StateDir
from agent.tests.conftest import living, wait_for
from agent.tests.plane import TOKEN, Signer, encode, iso, key_set, make_payload, render
from agent.tests.test_runner import MARK, Run
from agent.wire import Offer


class Server:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)

    def post(self, path: str, body: dict) -> dict:
        return {"server_time": iso(self.now)}


@pytest.fixture
def clocks(tmp_path, monkeypatch):
    """`(heart, wall)`: a heart that beats against a server, and a wall clock that the test sets."""
    server, wall = Server(), [0.0]
    wall[0] = server.now.timestamp()
    monkeypatch.setattr(time, "time", lambda: wall[0])
    monkeypatch.setattr(heart_module, "boottime", lambda: 5000.0)
    names = {"HYPRBOX_API_URL": "http://127.0.0.1", "HYPRBOX_NODE_ID": "web-1", "HYPRBOX_NODE_TOKEN": TOKEN}
    heart = Heart(load({}, names, Path("/no")), StateDir(tmp_path))
    heart.beat(server)
    return heart, wall


@pytest.mark.parametrize("step", [-7200.0, -240.0, 0.0, 240.0, 7200.0])
def test_a_step_shows_before_the_next_beat(clocks, step):
    heart, wall = clocks
    wall[0] += step
    assert heart.clock_offset == pytest.approx(step, abs=0.01)


def checked(tmp_path: Path, offset: float, created: float, expires: float) -> None:
    """A job made and expiring so many seconds from the true now, on a host whose clock is `offset` ahead."""
    signer = Signer()
    folder = tmp_path / signer.key_id
    folder.mkdir()
    ring = KeyRing(folder)
    ring.offer(key_set(1, [signer.entry()], signer))
    true_now = datetime.now(timezone.utc) - timedelta(seconds=offset)
    times = {
        "created_at": iso(true_now + timedelta(seconds=created)),
        "expires_at": iso(true_now + timedelta(seconds=expires)),
    }
    payload = make_payload("web-1", signer.key_id, render({"apply": "true"}), ["apply"], **times)
    raw = encode(payload)
    signature = base64.b64decode(signer.sign(b"hyprbox-job-v1\0" + raw))
    ring.check(Offer(payload["job_id"], "c", raw, signature, signer.key_id), node_id="web-1", clock_offset=offset)


@pytest.mark.parametrize("offset", [-3500.0, -240.0, 0.0, 240.0, 3500.0])
def test_a_jobs_validity_is_by_the_servers_clock(tmp_path, offset):
    checked(tmp_path, offset, -10, 10)
    checked(tmp_path, offset, -600, -290)  # five minutes of tolerance
    checked(tmp_path, offset, 290, 600)
    with pytest.raises(Refused, match="expired"):
        checked(tmp_path, offset, -600, -310)
    with pytest.raises(Refused, match="future"):
        checked(tmp_path, offset, 310, 600)


@pytest.mark.parametrize("offset", [-7200.0, -3610.0, 3610.0, 7200.0])
def test_more_than_an_hour_refuses_whatever_the_job_says(tmp_path, offset):
    with pytest.raises(Refused) as caught:
        checked(tmp_path, offset, -10, 10)
    assert caught.value.reason == "clock_skew"


@pytest.mark.parametrize(("minutes", "warns"), [(4, False), (-4, False), (6, True), (-6, True)])
def test_minutes_of_skew_work_and_more_than_five_warn(plane, agent_process, minutes, warns):
    plane.clock_shift = timedelta(minutes=minutes)  # the server's true time, seen from a host that is off by as much
    shifted = datetime.now(timezone.utc) + plane.clock_shift
    agent_process.start()
    plane.wait(lambda: plane.heartbeats)
    times = {"created_at": iso(shifted), "expires_at": iso(shifted + timedelta(minutes=1))}
    assert plane.finished(plane.queue({"apply": "true"}, **times)).status == "SUCCEEDED"
    assert ("agent.clock_off" in agent_process.log) is warns


@pytest.mark.parametrize("hours", [2, -2])
def test_two_hours_of_skew_refuse_and_say_so(plane, agent_process, hours):
    plane.clock_shift = timedelta(hours=hours)
    agent_process.start()
    job = plane.finished(plane.queue({"apply": "echo ran"}))
    assert (job.result["reason"], job.streams["stdout"].total) == ("clock_skew", 0)
    assert '"jobs_refused": true' in agent_process.log


@pytest.fixture
def set_clock(agent_process, tmp_path):
    """Starts the agent, and its runners, where the test sets the clock."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    agent_process.command = lambda *arguments: [
        sys.executable, "-m", "agent.tests.stepping", str(clock), "daemon", *arguments,
    ]  # fmt: skip
    agent_process.start()
    return lambda seconds: clock.write_text(str(seconds))


@pytest.mark.slow
@pytest.mark.parametrize("step", [-7200, 7200])
def test_a_step_during_a_job_ends_no_job_and_refuses_the_next(plane, agent_process, set_clock, step):
    job = plane.queue({"apply": "echo begun; sleep 2; echo ended"}, timeout_seconds=60)
    plane.wait(lambda: job.streams["stdout"].total)
    set_clock(step)
    plane.finished(job)
    assert (job.status, job.result["exit_code"]) == ("SUCCEEDED", 0)
    assert bytes(job.streams["stdout"].data) == b"begun\nended\n"
    assert wait_for(lambda: "agent.clock_off" in agent_process.log)
    times = {"created_at": iso(datetime.now(timezone.utc) + timedelta(seconds=step))}
    refused = plane.finished(plane.queue({"apply": "echo ran"}, **times))
    assert refused.result["reason"] == "clock_skew"
    set_clock(0)
    assert plane.finished(plane.queue({"apply": "true"})).status == "SUCCEEDED"


@pytest.mark.parametrize("step", [-7200, 7200])
def test_a_step_during_a_job_neither_shortens_nor_prolongs_its_time_out(tmp_path, step):
    clock = tmp_path / "clock"
    clock.write_text("0")
    job = Run(tmp_path, {"apply": f"echo begun; sleep {MARK}"}, timeout_seconds=3)
    job.command = [sys.executable, "-m", "agent.tests.stepping", str(clock), "runner"]
    began = time.monotonic()
    job.start()
    wait_for(lambda: job.output() == b"begun\n")
    clock.write_text(str(step))
    assert job.finish()["reason"] == "timeout"
    assert 2.9 < time.monotonic() - began < 12
    assert not living(MARK)
