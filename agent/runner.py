"""One job's runner: a process of its own that outlives the agent.

    python -m agent.runner JOB_FOLDER

It executes the sealed script once per phase, keeps output and result on disk, and never speaks to the
network. The daemon watches the folder, and finds it again after a restart.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import processes
from agent.bash import Bash, Stopped
from agent.crash import crash_point
from agent.journal import JobFolder
from agent.spool import SpoolWriter
from agent.wire import Payload, nothing_ran, now_text, parse_payload, strict_base64

SYNC_SECONDS = 2.0


@dataclass
class PhaseReport:
    name: str
    exit_code: int | None
    signal: int | None
    duration_ms: int
    skipped: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "duration_ms": self.duration_ms,
            "skipped": self.skipped,
        }


@dataclass
class Outcome:
    """What the phases add up to."""

    status: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    changed: bool | None = None
    phases: list[PhaseReport] = field(default_factory=list)


class Runner:
    def __init__(self, payload: Payload, bash: Bash) -> None:
        self.payload = payload
        self.bash = bash

    def run(self) -> Outcome:
        """All phases, by the table of the contract."""
        return self._with_skipped(self._run())

    def _run(self) -> Outcome:
        done: list[PhaseReport] = []
        parts, mode = self.payload.parts, self.payload.mode
        try:
            if "check" in parts:
                check = self._phase("check", done)
                if check.exit_code == 0:
                    return self._succeeded(done, changed=False)
                if check.exit_code != 1:
                    return self._failed(check, done)
                if mode == "check":
                    return Outcome("succeeded", exit_code=1, changed=True, phases=done)
            apply = self._phase("apply", done)
            if apply.exit_code != 0:
                return self._failed(apply, done, roll_back=True)
            if "verify" in parts:
                verify = self._phase("verify", done)
                if verify.exit_code != 0:
                    return self._failed(verify, done, roll_back=True, reason="verify_failed")
            return self._succeeded(done, changed=True)
        except Stopped as stop:
            return self._stopped(str(stop), done)

    def _with_skipped(self, outcome: Outcome) -> Outcome:
        """Every part of the job appears once; those that did not run say so."""
        ran = {phase.name: phase for phase in outcome.phases}
        outcome.phases = [ran.get(name, PhaseReport(name, None, None, 0, skipped=True)) for name in self.payload.parts]
        return outcome

    def _succeeded(self, done: list[PhaseReport], *, changed: bool) -> Outcome:
        return Outcome("succeeded", exit_code=0, changed=changed, phases=done)

    def _failed(
        self, phase: PhaseReport, done: list[PhaseReport], *, roll_back: bool = False, reason: str = ""
    ) -> Outcome:
        if roll_back and "rollback" in self.payload.parts:
            # A rollback that is cancelled or takes too long does not change why the job failed.
            with contextlib.suppress(Stopped):
                self._phase("rollback", done)
        why = reason or ("signal" if phase.signal is not None else "exit")
        changed = False if phase.name == "check" else None
        return Outcome("failed", why, phase.exit_code, phase.signal, changed, done)

    def _stopped(self, why: str, done: list[PhaseReport]) -> Outcome:
        if why == "cancel":
            return Outcome("cancelled", "", None, self.bash.last_signal, None, done)
        return Outcome("failed", "timeout", None, self.bash.last_signal or int(signal.SIGTERM), None, done)

    def _phase(self, name: str, done: list[PhaseReport]) -> PhaseReport:
        self.bash.last_signal = None
        stop = self.bash.should_stop(at_once=True)
        if stop:
            raise Stopped(stop)
        began = time.monotonic()
        self.bash.spool.enter(name)
        report = PhaseReport(name, None, None, 0)
        done.append(report)
        try:
            code = self.bash.run(name)
        finally:
            report.duration_ms = int((time.monotonic() - began) * 1000)
            report.signal = self.bash.last_signal
        report.exit_code, report.signal = (code, None) if code >= 0 else (None, -code)
        return report


def _quiet_self(folder: JobFolder) -> None:
    """Nothing of the agent's world reaches the script."""
    os.umask(0o077)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGUSR1, lambda *_: folder.note_cancel())
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _not_for_us)  # not SIG_IGN: the script would inherit that
    processes.become_subreaper()


def _not_for_us(_number: int, _frame: Any) -> None:
    """A runner ends with its job. Whoever wants to end the job asks for a cancel."""


def _result(bash: Bash, outcome: Outcome, began_at: str) -> dict[str, Any]:
    totals: tuple[int, int] = bash.spool.totals()
    digests = bash.spool.digests()
    return {
        "status": outcome.status,
        "reason": outcome.reason or None,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "phases": [phase.as_dict() for phase in outcome.phases],
        "changed": outcome.changed,
        "outcome_unknown": False,
        "stdout_bytes": totals[0],
        "stderr_bytes": totals[1],
        "stdout_sha256": digests[0],
        "stderr_sha256": digests[1],
        "started_at": began_at,
        "finished_at": now_text(),
    }


def sync_for_ever(spool: SpoolWriter) -> None:
    """What a power cut may take of the output: the last seconds."""
    while True:
        time.sleep(SYNC_SECONDS)
        spool.sync()


def main(arguments: list[str]) -> int:
    folder = JobFolder(Path(arguments[0]))
    order = json.loads(sys.stdin.buffer.read())
    intent = folder.read("intent")
    if intent is None or folder.may_have_run:
        return errno.EEXIST  # nothing to run, or it ran: never twice
    payload = parse_payload(strict_base64(intent["payload"]))
    _quiet_self(folder)
    crash_point("CP08")
    began_at = now_text()
    cgroup = processes.make_cgroup(payload.job_id)
    record = {
        "pid": os.getpid(),
        "start_time": processes.start_time(os.getpid()),
        "boot_id": processes.boot_id(),
        "cgroup": str(cgroup or ""),
        "began_at": began_at,
    }
    # Two runners may have come this far, of two lives of the agent: one of them goes on. Only that one
    # touches the spool.
    if not folder.claim_exec(record):
        return errno.EEXIST
    try:
        bash = Bash(folder, payload, order, cgroup)
    except OSError as error:
        print(f"no room for the job: {error}", file=sys.stderr)
        folder.write("result", {**nothing_ran("agent_error"), "started_at": began_at})
        return errno.ENOSPC
    threading.Thread(target=sync_for_ever, args=(bash.spool,), daemon=True).start()
    try:
        outcome = Runner(payload, bash).run()
        unknown = False
    except Exception:  # noqa: BLE001 - whatever it was: the job must end, and say that it may have run
        traceback.print_exc()
        bash.end_all(grace=0.0)
        outcome, unknown = Outcome("failed", "agent_error"), True
    bash.spool.sync()
    crash_point("CP13")
    result = {**_result(bash, outcome, began_at), "outcome_unknown": unknown}
    folder.write("result", {**result, "output_detached": bash.detached})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
