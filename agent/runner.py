"""One job's runner: a process of its own that outlives the agent.

    python -m agent.runner JOB_FOLDER

It executes the sealed script once per phase, keeps output and result on disk, and never speaks to the
network. The daemon watches the folder, and finds it again after a restart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import processes
from agent.crash import crash_point, planted
from agent.journal import JobFolder
from agent.spool import BLOCK, SpoolWriter
from agent.wire import Payload, nothing_ran, now_text, parse_payload, strict_base64

BASE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "SHELL": "/bin/bash",
}
DRAIN_SECONDS = 5.0  # for a background child that holds the output open
LEFTOVER_SECONDS = 1.0
SYNC_SECONDS = 2.0
TICK_SECONDS = 0.1
PIPE_BYTES = 1024 * 1024  # what a script may write ahead of us
_SETPIPE_SZ = 1031
_MFD_NOEXEC_SEAL = 0x8
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # no more seals, no shrinking, no growing, no writing
_ADD_SEALS = 1033


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


def sealed_script(script: bytes) -> int:
    """A memfd with the script that nobody can change any more: the verified bytes are the bytes bash reads."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        handle = os.memfd_create("hyprbox-job", flags)
    except PermissionError:  # sysctl vm.memfd_noexec=2: only such ones; bash reads it and needs no more
        handle = os.memfd_create("hyprbox-job", flags | _MFD_NOEXEC_SEAL)
    view = memoryview(script)
    while view:
        view = view[os.write(handle, view) :]
    fcntl.fcntl(handle, _ADD_SEALS, _SEALS)
    return handle


class Stopped(Exception):
    """The job was cancelled or timed out; the argument says which."""


class Runner:
    def __init__(self, folder: JobFolder, payload: Payload, order: Mapping[str, Any]) -> None:
        self.folder = folder
        self.payload = payload
        self.environment = {
            **BASE_ENVIRONMENT,
            **payload.environment,
            **order["secrets"],
            "HYPRBOX_JOB_ID": payload.job_id,
        }
        self.spool = SpoolWriter(folder.path)
        self.script = sealed_script(payload.script)
        self.cgroup: Path | None = None
        self.detached = False
        # Shorter in tests only.
        self.grace_seconds = float(order.get("grace_seconds", processes.GRACE_SECONDS))
        self.drain_seconds = float(order.get("drain_seconds", DRAIN_SECONDS))
        self.deadline = _boottime() + payload.timeout_seconds
        self.last_signal: int | None = None
        self._last_cancel_look = 0.0

    # --- the phases ---

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
            return Outcome("cancelled", "", None, self.last_signal, None, done)
        return Outcome("failed", "timeout", None, self.last_signal or int(signal.SIGTERM), None, done)

    def _phase(self, name: str, done: list[PhaseReport]) -> PhaseReport:
        self.last_signal = None
        stop = self._should_stop(at_once=True)
        if stop:
            raise Stopped(stop)
        began = time.monotonic()
        self.spool.enter(name)
        report = PhaseReport(name, None, None, 0)
        done.append(report)
        try:
            code = self._bash(name)
        finally:
            report.duration_ms = int((time.monotonic() - began) * 1000)
            report.signal = self.last_signal
        report.exit_code, report.signal = (code, None) if code >= 0 else (None, -code)
        return report

    # --- one bash ---

    def _bash(self, phase: str) -> int:
        """The exit code, or minus the signal. Raises `Stopped` after everything was ended."""
        crash_point("CP09")
        # The path goes through our own /proc entry: bash opens it for itself and inherits nothing of ours.
        path = f"/proc/{os.getpid()}/fd/{self.script}"
        with processes.as_killable_as_anyone():
            bash = subprocess.Popen(
                ["/bin/bash", path, phase],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
                cwd="/",
                start_new_session=True,
                close_fds=True,
            )
        if planted("double_fork"):
            subprocess.Popen(["/bin/bash", path, phase], env=self.environment, cwd="/", start_new_session=True)
        assert bash.stdout is not None and bash.stderr is not None
        pipes = {bash.stdout.fileno(): 0, bash.stderr.fileno(): 1}
        for handle in pipes:
            os.set_blocking(handle, False)
            with contextlib.suppress(OSError):
                fcntl.fcntl(handle, _SETPIPE_SZ, PIPE_BYTES)
        self._crash_here(pipes)
        stop = ""
        exit_status: int | None = None
        drain_until = stuck_until = 0.0
        while pipes or exit_status is None:
            self._read(pipes)
            if exit_status is None:
                exit_status = self._reap(bash.pid)
                if exit_status is not None:
                    drain_until = time.monotonic() + self.drain_seconds
                elif stop == "" and (stop := self._should_stop()):
                    processes.end_all(self._living, grace=self.grace_seconds, meanwhile=lambda: self._read(pipes))
                    stuck_until = time.monotonic() + processes.KILL_SECONDS
                elif stop and time.monotonic() > stuck_until:
                    exit_status = -signal.SIGKILL  # killed, but stuck in the kernel: the job must end all the same
            elif time.monotonic() > drain_until:
                self.detached = self.detached or bool(pipes)
                break
        bash.returncode = exit_status  # it was reaped here, not by Popen
        if self._living():  # what a phase left behind ends with it
            processes.end_all(self._living, grace=LEFTOVER_SECONDS, meanwhile=self._reap_all)
        self._empty(pipes)
        bash.stdout.close()
        bash.stderr.close()
        if stop:
            self.last_signal = -exit_status if exit_status < 0 else None
            raise Stopped(stop)
        return exit_status

    def _read(self, pipes: dict[int, int]) -> None:
        """Wait a tick for output and take it: a script never blocks on us for longer than a disk write."""
        if not pipes:
            time.sleep(0.01)
            return
        ready, _, _ = select.select(list(pipes), [], [], TICK_SECONDS)
        for handle in ready:
            try:
                data = os.read(handle, BLOCK)
            except BlockingIOError:
                continue
            if data:
                self.spool.write(pipes[handle], data)
            else:
                del pipes[handle]

    def _empty(self, pipes: dict[int, int]) -> None:
        """What processes had written before they were ended; nobody is left to write more."""
        for handle, stream in pipes.items():
            with contextlib.suppress(BlockingIOError):
                for _ in range(2 * PIPE_BYTES // BLOCK):
                    data = os.read(handle, BLOCK)
                    if not data:
                        break
                    self.spool.write(stream, data)

    def _reap_all(self) -> None:
        self._reap(-1)
        time.sleep(0.02)

    def _crash_here(self, pipes: dict[int, int]) -> None:
        if os.environ.get("HBX_CRASH_AT") in ("CP11", "CP12"):
            time.sleep(0.3)  # let the script write something
            self._read(pipes)
            if os.environ["HBX_CRASH_AT"] == "CP12":
                processes.signal_all([*self._living(), os.getppid()], signal.SIGKILL)
        crash_point("CP11")
        crash_point("CP12")

    def _reap(self, pid: int) -> int | None:
        """Collect every child that ended: bash's status if it did, and orphans that came to us."""
        status: int | None = None
        while True:
            try:
                ended, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if ended == 0:
                return status
            if ended == pid:
                status = -os.WTERMSIG(raw) if os.WIFSIGNALED(raw) else os.WEXITSTATUS(raw)

    def _should_stop(self, *, at_once: bool = False) -> str:
        if _boottime() > self.deadline:
            return "timeout"
        now = time.monotonic()
        if at_once or now - self._last_cancel_look >= TICK_SECONDS:
            self._last_cancel_look = now
            if self.folder.cancel_requested:
                return "cancel"
        return ""

    # --- ending ---

    def _living(self) -> list[int]:
        me = os.getpid()
        found = processes.descendants(me)
        if self.cgroup is not None:
            found = sorted({*found, *processes.cgroup_members(self.cgroup, but=(me,))})
        return found


def _boottime() -> float:
    """Seconds that go on while the host sleeps, and that no clock change touches."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _quiet_self() -> None:
    """Nothing of the agent's world reaches the script."""
    os.umask(0o077)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _not_for_us)  # not SIG_IGN: the script would inherit that
    processes.become_subreaper()


def _not_for_us(_number: int, _frame: Any) -> None:
    """A runner ends with its job. Whoever wants to end the job asks for a cancel."""


def _result(runner: Runner, outcome: Outcome, began_at: str) -> dict[str, Any]:
    totals: tuple[int, int] = runner.spool.totals()
    digests = runner.spool.digests()
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
    _quiet_self()
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
        runner = Runner(folder, payload, order)
    except OSError as error:
        print(f"no room for the job: {error}", file=sys.stderr)
        folder.write("result", {**nothing_ran("agent_error"), "started_at": began_at})
        return errno.ENOSPC
    runner.cgroup = cgroup
    threading.Thread(target=sync_for_ever, args=(runner.spool,), daemon=True).start()
    try:
        outcome = runner.run()
        unknown = False
    except Exception:  # noqa: BLE001 - whatever it was: the job must end, and say that it may have run
        traceback.print_exc()
        processes.end_all(runner._living, grace=0.0, meanwhile=runner._reap_all)
        outcome, unknown = Outcome("failed", "agent_error"), True
    runner.spool.sync()
    crash_point("CP13")
    result = {**_result(runner, outcome, began_at), "outcome_unknown": unknown}
    folder.write("result", {**result, "output_detached": runner.detached})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
