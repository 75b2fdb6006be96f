"""One bash at a time: the sealed script, its output into the spool, and the end of everything it started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent import processes
from agent.crash import crash_point, planted
from agent.journal import JobFolder
from agent.masking import Masker
from agent.spool import BLOCK, SpoolWriter
from agent.wire import Payload

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
TICK_SECONDS = 0.1
PIPE_BYTES = 1024 * 1024  # what a script may write ahead of us
_SETPIPE_SZ = 1031
_MFD_NOEXEC_SEAL = 0x8
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # no more seals, no shrinking, no growing, no writing
_ADD_SEALS = 1033


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


class Bash:
    def __init__(self, folder: JobFolder, payload: Payload, order: Mapping[str, Any], cgroup: Path | None) -> None:
        self._folder = folder
        self._environment = {
            **BASE_ENVIRONMENT,
            **payload.environment,
            **order["secrets"],
            "HYPRBOX_JOB_ID": payload.job_id,
        }
        self.spool = SpoolWriter(folder.path)
        self._maskers = [Masker(order["secrets"].values()) for _ in range(2)] if order["secrets"] else []
        self._script = sealed_script(payload.script)
        self._cgroup = cgroup
        self._scripts = None if cgroup is None else cgroup / processes.SCRIPTS
        self._keeps_leftovers = payload.allow_background
        self.detached = False
        # Shorter in tests only.
        self._grace_seconds = float(order.get("grace_seconds", processes.GRACE_SECONDS))
        self._drain_seconds = float(order.get("drain_seconds", DRAIN_SECONDS))
        self._deadline = processes.boottime() + payload.timeout_seconds
        self.last_signal: int | None = None
        self._last_cancel_look = 0.0

    def run(self, phase: str) -> int:
        """The exit code, or minus the signal. Raises `Stopped` after everything was ended."""
        crash_point("CP09")
        # The path goes through our own /proc entry: bash opens it for itself and inherits nothing of ours.
        path = f"/proc/{os.getpid()}/fd/{self._script}"
        with processes.as_killable_as_anyone(), processes.forking_into(self._scripts):
            bash = subprocess.Popen(
                ["/bin/bash", path, phase],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd="/",
                start_new_session=True,
                close_fds=True,
            )
        if planted("double_fork"):
            subprocess.Popen(["/bin/bash", path, phase], env=self._environment, cwd="/", start_new_session=True)
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
                    drain_until = time.monotonic() + self._drain_seconds
                elif stop == "" and (stop := self.should_stop()):
                    exit_status = self._reap(bash.pid)  # ended in this very moment: then that is what happened
                    if exit_status is not None:
                        stop, drain_until = "", time.monotonic() + self._drain_seconds
                        continue
                    self.end_all(self._grace_seconds, lambda: self._read(pipes))
                    stuck_until = time.monotonic() + processes.KILL_SECONDS
                elif stop and time.monotonic() > stuck_until:
                    exit_status = -signal.SIGKILL  # killed, but stuck in the kernel: the job must end all the same
            elif time.monotonic() > drain_until:
                self.detached = self.detached or bool(pipes)
                break
        bash.returncode = exit_status  # it was reaped here, not by Popen
        if self.living() and not self._keeps_leftovers:  # what a phase left behind ends with it
            self.end_all(LEFTOVER_SECONDS, self._reap_all)
        self._empty(pipes)
        for stream, masker in enumerate(self._maskers):
            self._write(stream, masker.finish())
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
                self._keep(pipes[handle], data)
            else:
                del pipes[handle]

    def _keep(self, stream: int, data: bytes) -> None:
        self._write(stream, self._maskers[stream].feed(data) if self._maskers else data)

    def _write(self, stream: int, data: bytes) -> None:
        for at in range(0, len(data), BLOCK):
            self.spool.write(stream, data[at : at + BLOCK])

    def _empty(self, pipes: dict[int, int]) -> None:
        """What processes had written before they were ended; nobody is left to write more."""
        for handle, stream in pipes.items():
            with contextlib.suppress(BlockingIOError):
                for _ in range(2 * PIPE_BYTES // BLOCK):
                    data = os.read(handle, BLOCK)
                    if not data:
                        break
                    self._keep(stream, data)

    def end_all(self, grace: float, meanwhile: Callable[[], None] | None = None) -> None:
        processes.end_all(self.living, grace=grace, meanwhile=meanwhile or self._reap_all, cgroup=self._scripts)

    def _reap_all(self) -> None:
        self._reap(-1)
        time.sleep(0.02)

    def _crash_here(self, pipes: dict[int, int]) -> None:
        if os.environ.get("HYPRBOX_TEST") == "1" and os.environ.get("HBX_CRASH_AT") in ("CP11", "CP12"):
            time.sleep(0.3)  # let the script write something
            self._read(pipes)
            if os.environ["HBX_CRASH_AT"] == "CP12":
                processes.signal_all([*self.living(), os.getppid()], signal.SIGKILL)
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

    def should_stop(self, *, at_once: bool = False) -> str:
        if processes.boottime() > self._deadline:
            return "timeout"
        now = time.monotonic()
        if at_once or now - self._last_cancel_look >= TICK_SECONDS:
            self._last_cancel_look = now
            if self._folder.cancel_requested:
                return "cancel"
        return ""

    def living(self) -> list[int]:
        me = os.getpid()
        found = processes.descendants(me)
        if self._cgroup is not None:
            found = sorted({*found, *processes.cgroup_members(self._cgroup, but=(me,))})
        return found
