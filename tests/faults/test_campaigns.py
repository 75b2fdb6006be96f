"""Everything dies and everything is cut, at random, for a while: and every invariant holds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from functools import partial

import pytest

from tests.faults import prove
from tests.faults.campaign import LOSSY, WAITING, Campaign
from tests.faults.proxy import Rates
from tests.faults.stack import stack
from tests.house import ROOT, wait_for

pytestmark = pytest.mark.faults
SEED = 20


def test_killing_one_after_the_other_loses_and_doubles_nothing() -> None:
    with stack(nodes=("north", "south"), concurrency=2, seed=SEED) as up:
        verdict = Campaign(up, SEED, rates=Rates(), kill_every=(0.5, 2.0)).run(seconds=30)
        assert verdict.violations == [], f"{verdict.text()}\n{up.last_words()}"
        assert verdict.jobs >= 20
        assert sum(verdict.kills.values()) >= 10


def test_a_network_that_loses_every_fifth_answer_loses_and_doubles_nothing() -> None:
    with stack(nodes=("north", "south", "west"), concurrency=2, seed=SEED) as up:
        verdict = Campaign(up, SEED, targets=(), rates=LOSSY, with_backlog=True).run(jobs=60)
        assert verdict.violations == [], f"{verdict.text()}\n{up.last_words()}"
        assert verdict.drain is not None and verdict.drain.waiting == WAITING
        assert verdict.jobs == 60 + WAITING + verdict.drain.arrived
        assert min(verdict.faults[kind] for kind in ("drop", "duplicate", "cut", "delay", "truncate")) >= 3
        assert verdict.kills == {}


def test_two_web_processes_and_two_workers_on_one_database_are_like_one() -> None:
    """Either of them may die or be restarted: nothing that counts is in the memory of one."""
    with stack(nodes=("north", "south"), concurrency=2, seed=SEED, second_web=True) as up:
        targets = ("web", "web-2", "worker", "worker-2", "rolling", "agent")
        verdict = Campaign(up, SEED, targets=targets, rates=Rates(), kill_every=(0.5, 2.0)).run(seconds=15)
        assert verdict.violations == [], f"{verdict.text()}\n{up.last_words()}"
        assert verdict.jobs >= 10
        assert verdict.kills.keys() & {"web", "web-2", "rolling"}


def test_prove_runs_for_a_while_and_gives_its_verdict() -> None:
    done = subprocess.run(
        [ROOT / "script/prove", "--seed", "7", "--minutes", "0.5", "--values", "1000"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    told = dict(re.findall(r"^(\w+) {2,}(\S+)", done.stdout, re.MULTILINE))
    assert done.returncode == 0, _verdict_first(done.stdout + done.stderr)
    assert (told["seed"], told["violations"]) == ("7", "0")
    assert re.search(r"^1,000 values .*: 0 violations", done.stdout, re.MULTILINE)
    assert int(told["jobs"]) > 20
    assert int(told["kills"]) > 3
    assert int(told["faults"]) > 10
    assert "3/N" in done.stdout


def test_prove_stops_on_ctrl_c_with_a_verdict_and_leaves_nothing() -> None:
    process = subprocess.Popen(
        [ROOT / "script/prove", "--seed", "8", "--minutes", "30", "--values", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "Seed 8" in process.stdout.readline()
        time.sleep(12)  # by now it has started, and there are jobs
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(120) == 0, _verdict_first(rest)
        assert "violations  0" in rest
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    wait_for(lambda: not _left_behind(process.pid), seconds=10, why="nothing of it is left")


def test_prove_tells_a_violation_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prove, "stack", partial(stack, planted_bug="text_output"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert prove.main(["--seed", "9", "--minutes", "0.1", "--values", "0"]) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    told = capsys.readouterr().out
    assert re.search(r"^violations  [1-9]", told, re.MULTILINE)
    assert "I7: stdout of job" in told
    assert "bound" not in told


def _verdict_first(told: str) -> str:
    """What prove said, without the logs between: a report that is cut off still tells what was violated."""
    said, _, logs = told.partition("\n--- ")
    return f"{said[-4000:]}\n\nThe logs begin and end with:\n{logs[:3000]}\n...\n{logs[-3000:]}"


def _left_behind(session: int) -> list[str]:
    """Processes that prove's own process started and that still run."""
    listed = subprocess.run(["ps", "-eo", "sid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split(maxsplit=1)[0] == str(session)]
