"""The runner with real bash: what a script sees, how it ends, and what is kept of its output."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent.journal import Journal
from agent.spool import SpoolReader
from agent.tests.conftest import ROOT, end_all, living, wait_for
from agent.tests.plane import CAP, encode, make_payload, render

MARK = f"9{os.getpid()}"  # a sleep that only these tests start


class Run:
    """One job given to a real runner."""

    def __init__(self, tmp_path: Path, parts: dict[str, str], *, script: bytes | None = None, **over: Any) -> None:
        body = render(parts) if script is None else script
        options = {name: over.pop(name) for name in ("grace_seconds", "drain_seconds") if name in over}
        self.order = {"secrets": over.pop("resolved", {}), "grace_seconds": 0.5, "drain_seconds": 0.5, **options}
        payload = make_payload("web-1", "0" * 16, body, list(parts), **over)
        self.folder = Journal(tmp_path).folder(payload["job_id"])
        self.folder.create()
        raw = base64.b64encode(encode(payload)).decode()
        self.folder.write("intent", {"claim_id": "c", "payload": raw, "at": 0.0})
        self.command = [sys.executable, "-m", "agent.runner"]
        self.process: subprocess.Popen[bytes] | None = None
        self.took = 0.0

    def start(self, **environment: str) -> Run:
        self.process = subprocess.Popen(
            [*self.command, str(self.folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "SECRET_OF_THE_AGENT": "canary", **environment},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self.order).encode())
        self.process.stdin.close()
        return self

    def finish(self, seconds: float = 30) -> dict[str, Any]:
        if self.process is None:
            self.start()
        assert self.process is not None
        began = time.monotonic()
        self.process.wait(seconds)
        self.took = time.monotonic() - began
        result = self.folder.read("result")
        assert result is not None
        return result

    def output(self, stream: int = 0) -> bytes:
        reader = SpoolReader(self.folder.path)
        total = reader.progress()[0][stream]
        found, at = b"", max(0, total - CAP)
        while at < total:
            start, data = reader.read(stream, at, 1 << 20)
            assert start == at
            found, at = found + data, at + len(data)
        return found


@pytest.fixture
def run(tmp_path):
    started = []

    def make(parts: dict[str, str], **over: Any) -> Run:
        started.append(Run(tmp_path, parts, **over))
        return started[-1]

    yield make
    for job in started:
        if job.process is not None:
            job.process.kill()
            job.process.wait(10)
    end_all(MARK)


# parts (name: exit code), mode -> status, reason, exit code, changed, the phases that ran
TABLE = [
    ({"apply": 0}, "apply", "succeeded", None, 0, True, ["apply"]),
    ({"apply": 3}, "apply", "failed", "exit", 3, None, ["apply"]),
    ({"check": 0, "apply": 0, "verify": 0}, "apply", "succeeded", None, 0, False, ["check"]),
    ({"check": 1, "apply": 0, "verify": 0}, "apply", "succeeded", None, 0, True, ["check", "apply", "verify"]),
    ({"check": 2, "apply": 0, "rollback": 0}, "apply", "failed", "exit", 2, False, ["check"]),
    (
        {"check": 1, "apply": 1, "verify": 0, "rollback": 0},
        "apply",
        "failed",
        "exit",
        1,
        None,
        ["check", "apply", "rollback"],
    ),
    (
        {"apply": 0, "verify": 1, "rollback": 0},
        "apply",
        "failed",
        "verify_failed",
        1,
        None,
        ["apply", "verify", "rollback"],
    ),
    ({"apply": 0, "verify": 7}, "apply", "failed", "verify_failed", 7, None, ["apply", "verify"]),
    ({"apply": 5, "rollback": 9}, "apply", "failed", "exit", 5, None, ["apply", "rollback"]),
    ({"check": 0, "apply": 0}, "check", "succeeded", None, 0, False, ["check"]),
    ({"check": 1, "apply": 0}, "check", "succeeded", None, 1, True, ["check"]),
    ({"check": 4, "apply": 0}, "check", "failed", "exit", 4, False, ["check"]),
]


@pytest.mark.parametrize(("codes", "mode", "status", "reason", "code", "changed", "ran"), TABLE)
def test_the_phase_table(run, codes, mode, status, reason, code, changed, ran):
    job = run({name: f"echo {name}; return {value}" for name, value in codes.items()}, mode=mode)
    result = job.finish()
    assert (result["status"], result["reason"], result["exit_code"], result["changed"]) == (
        status,
        reason,
        code,
        changed,
    )
    assert [phase["name"] for phase in result["phases"]] == list(codes)
    assert [phase["name"] for phase in result["phases"] if not phase["skipped"]] == ran
    assert [phase["exit_code"] for phase in result["phases"] if not phase["skipped"]] == [codes[name] for name in ran]
    assert job.output().decode().split() == ran


def test_death_by_a_signal_is_told_from_an_exit_code(run):
    result = run({"apply": "kill -SEGV $$"}).finish()
    assert (result["status"], result["reason"], result["exit_code"], result["signal"]) == ("failed", "signal", None, 11)
    assert run({"apply": "exit 139"}).finish()["reason"] == "exit"


def test_verify_killed_by_a_signal_rolls_back(run):
    result = run({"apply": "true", "verify": "kill -9 $$", "rollback": "true"}).finish()
    assert (result["reason"], result["signal"]) == ("verify_failed", 9)
    assert result["phases"][2]["exit_code"] == 0


def test_a_timeout_ends_what_ignores_sigterm_and_what_left_the_session(run):
    stubborn = f"trap '' TERM; setsid bash -c 'trap \"\" TERM; sleep {MARK}' & sleep {MARK} & wait; sleep {MARK}"
    job = run({"apply": f"echo begun; {stubborn}", "rollback": "echo never"}, timeout_seconds=1)
    result = job.finish(15)
    assert (result["status"], result["reason"], result["exit_code"], result["signal"]) == ("failed", "timeout", None, 9)
    assert job.took < 8
    assert job.output() == b"begun\n"
    assert not living(MARK)


def test_a_script_that_obeys_sigterm_is_not_waited_for(run):
    job = run({"apply": f"sleep {MARK}"}, timeout_seconds=1, grace_seconds=20)
    assert job.finish()["reason"] == "timeout"
    assert job.took < 6


def test_a_background_child_that_holds_the_output_does_not_hold_the_job(run):
    job = run({"apply": f"setsid sleep {MARK} & echo done"})
    result = job.finish()
    assert (result["status"], result["output_detached"]) == ("succeeded", True)
    assert job.took < 6
    assert job.output() == b"done\n"
    assert not living(MARK)


def test_a_job_may_let_go_on_what_it_leaves_running(run):
    job = run({"apply": f"setsid sleep {MARK} >/dev/null 2>&1 & echo done", "verify": "true"}, allow_background=True)
    result = job.finish()
    assert (result["status"], result["output_detached"], job.output()) == ("succeeded", False, b"done\n")
    assert len(living(MARK)) == 1


def test_then_it_does_not_hold_the_job_by_its_output_either(run):
    job = run({"apply": f"sleep {MARK} & echo done; return 3"}, allow_background=True)
    result = job.finish()
    assert (result["exit_code"], result["output_detached"], job.output()) == (3, True, b"done\n")
    assert job.took < 6 and len(living(MARK)) == 1


@pytest.mark.parametrize("over", [{}, {"timeout_seconds": 5}])
def test_a_cancel_and_a_timeout_end_that_too(run, over):
    parts = {"apply": f"setsid sleep {MARK} >/dev/null 2>&1 &", "verify": f"echo waiting; sleep {MARK}"}
    job = run(parts, allow_background=True, **over).start()
    wait_for(lambda: job.output() == b"waiting\n" and len(living(MARK)) == 2)
    if not over:
        job.folder.request_cancel()
    result = job.finish()
    assert (result["status"], result["reason"]) == (("failed", "timeout") if over else ("cancelled", None))
    assert not living(MARK)


def test_what_a_background_child_writes_in_time_is_kept(run):
    job = run({"apply": "(sleep 0.3; echo late) & echo early"}, drain_seconds=5)
    assert job.finish()["status"] == "succeeded"
    assert job.output() == b"early\nlate\n"


def test_what_was_in_the_pipe_when_the_child_was_ended_is_kept(run):
    job = run({"apply": f"(trap 'echo goodbye; exit' TERM; echo begun; sleep {MARK} & wait) & sleep {MARK}"})
    job.start()
    wait_for(lambda: job.output() == b"begun\n")
    job.folder.request_cancel()
    assert job.finish()["status"] == "cancelled"
    assert job.output() == b"begun\ngoodbye\n"


def test_a_cancel_between_two_phases_starts_nothing_more(run, tmp_path):
    flag = tmp_path / "applied"
    job = run({"check": f"sleep {MARK}; return 1", "apply": f"touch {flag}"})
    job.start()
    wait_for(lambda: living(MARK))
    job.folder.request_cancel()
    end_all(MARK)
    result = job.finish()
    assert result["status"] in ("cancelled", "failed")
    assert not flag.exists()


def test_a_cancel_of_the_rollback_does_not_hide_the_failure(run):
    job = run({"apply": "return 6", "rollback": f"echo rolling; sleep {MARK}"})
    job.start()
    wait_for(lambda: b"rolling" in job.output())
    job.folder.request_cancel()
    result = job.finish()
    assert (result["status"], result["reason"], result["exit_code"]) == ("failed", "exit", 6)
    assert result["phases"][1]["signal"] is not None


def test_the_environment_is_built_from_nothing(run):
    job = run(
        {"apply": "env -0; printf 'LENGTH=%d\\0' ${#PASSWORD}"},
        environment={"SITE": "käse\nzwei"},
        resolved={"PASSWORD": "s3cret"},
    )
    assert job.finish()["status"] == "succeeded"
    seen = dict(item.split("=", 1) for item in job.output().decode().split("\0") if item)
    assert set(seen) <= {
        "PATH", "HOME", "LANG", "LC_ALL", "TERM", "SHELL", "HYPRBOX_JOB_ID", "SITE", "PASSWORD", "PWD", "SHLVL", "_", "OLDPWD",
        "LENGTH",
    }  # fmt: skip
    assert (seen["SITE"], seen["PASSWORD"], seen["TERM"], seen["PWD"]) == ("käse\nzwei", "***", "dumb", "/")
    assert seen["LENGTH"] == str(len("s3cret"))
    assert seen["PATH"].startswith("/usr/local/sbin:") and seen["HYPRBOX_JOB_ID"] == job.folder.job_id


def test_nothing_else_is_inherited(run):
    script = (
        "find /proc/$$/fd -type l -printf 'fd %f %l\\n'; umask; ulimit -c; pwd; "
        "grep -E 'SigIgn|SigBlk' /proc/self/status; cat; echo read $?"
    )
    job = run({"apply": script})
    assert job.finish()["status"] == "succeeded"
    text = job.output().decode()
    lines = text.splitlines()
    handles = {line.split()[1]: line.split()[2] for line in lines if line.startswith("fd ")}
    assert handles.pop("0") == "/dev/null"
    assert set(handles) <= {"1", "2", "255"}, handles
    assert "0077" in lines and "0" in lines and "/" in lines and "read 0" in lines
    assert not int(next(line for line in lines if "SigBlk" in line).split()[1], 16)


def test_a_script_of_200_kb_runs(run):
    body = "\n".join(f": padding {n:060d}" for n in range(3000)) + "\necho end"
    job = run({"apply": body})
    assert job.finish()["status"] == "succeeded"
    assert job.output() == b"end\n"


def test_the_script_cannot_be_changed_while_it_runs(run):
    """bash reads a file as it goes: what it reads is sealed."""
    attack = 'echo \'echo CHANGED\' >> "$0" 2>/dev/null || echo sealed; : > "$0" 2>/dev/null || echo sealed; sleep 0.2'
    job = run({"apply": attack + "; echo end"})
    assert job.finish()["status"] == "succeeded"
    assert job.output() == b"sealed\nsealed\nend\n"


def test_every_byte_arrives_as_it_was_written(run):
    data = bytes(range(256)) * 64 + b"\xff\xfe\xc3" + b"\n" * 1000
    source = base64.b64encode(data).decode()
    job = run({"apply": f"base64 -d <<< '{source}'; base64 -d <<< '{source}' >&2"})
    result = job.finish()
    assert job.output(0) == data and job.output(1) == data
    assert result["stdout_bytes"] == len(data)
    assert result["stdout_sha256"] == result["stderr_sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, CAP - 1, CAP, CAP + 1, CAP + 70_000, 3 * CAP + 17])
def test_the_tail_is_exact(run, size):
    make = (
        f"{sys.executable} -c 'import sys; n={size}; b=bytes(range(251))*4000;"
        "w=sys.stdout.buffer.write; [w(b) for _ in range(n//len(b))]; w(b[:n%len(b)])'"
    )
    pattern = bytes(range(251)) * 4000
    whole = pattern * (size // len(pattern)) + pattern[: size % len(pattern)]
    job = run({"apply": make})
    result = job.finish()
    assert (result["status"], result["stdout_bytes"]) == ("succeeded", size)
    assert result["stdout_sha256"] == hashlib.sha256(whole).hexdigest()
    assert job.output() == whole[-CAP:]


def test_a_flood_is_read_at_full_speed_in_little_memory(run):
    job = run({"apply": "head -c 2000000000 /dev/zero"}).start()
    assert job.process is not None
    peak, first = 0, 0
    began = time.monotonic()
    while job.process.poll() is None:
        try:
            status = Path(f"/proc/{job.process.pid}/status").read_text()
        except OSError:
            break
        lines = [line for line in status.splitlines() if line.startswith("VmRSS")]
        if lines and job.folder.may_have_run:
            size = int(lines[0].split()[1])
            first, peak = first or size, max(peak, size)
        time.sleep(0.02)
    took = time.monotonic() - began
    result = job.finish()
    assert (result["status"], result["stdout_bytes"]) == ("succeeded", 2_000_000_000)
    print(f"flood: {2000 / took:.0f} MB/s, runner grew by {(peak - first) / 1024:.1f} MiB to {peak / 1024:.1f} MiB")
    assert peak - first < 20 * 1024


def test_a_job_that_was_executed_is_not_executed_again(run, tmp_path):
    witness = tmp_path / "witness"
    job = run({"apply": f"echo START >> {witness}"})
    job.finish()
    job.start()
    assert job.process is not None and job.process.wait(10) != 0
    assert witness.read_text() == "START\n"


def test_of_many_runners_for_one_job_one_runs_it(run, tmp_path):
    witness = tmp_path / "witness"
    job = run({"apply": f"echo START >> {witness}; sleep 0.3; echo out"})
    processes = [job.start().process for _ in range(6)]
    for process in processes:
        process.wait(20)
    assert witness.read_text() == "START\n"
    assert job.folder.read("result")["status"] == "succeeded"
    assert job.output() == b"out\n"


def test_a_damaged_record_of_execution_still_counts(run, tmp_path):
    witness = tmp_path / "witness"
    job = run({"apply": f"echo START >> {witness}"})
    (job.folder.path / "exec").write_text("torn")
    job.start()
    assert job.process is not None and job.process.wait(10) != 0
    assert not witness.exists()


def test_sigterm_to_the_runner_does_not_end_the_job(run):
    job = run({"apply": "echo begun; sleep 1; echo ended"}).start()
    wait_for(lambda: job.output() == b"begun\n")
    assert job.process is not None
    job.process.terminate()
    assert job.finish()["status"] == "succeeded"


def test_an_environment_too_large_for_the_kernel_fails_and_says_so(run):
    result = run({"apply": "true"}, environment={"BIG": "x" * 200_000}).finish()
    assert (result["status"], result["reason"]) == ("failed", "agent_error")
