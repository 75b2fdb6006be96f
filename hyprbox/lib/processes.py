"""Which process is which: a pid alone lies, because numbers are used again and the dead linger as zombies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessMark:
    """A process, told apart from any other that ever has or will have its pid."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """The mark of a living process; None when there is none, or only its zombie."""
        started = _start_of(pid)
        return cls(pid, started) if started else None

    def is_alive(self) -> bool:
        return _start_of(self.pid) == self.started

    def send(self, number: int) -> None:
        """Signal the process if it is still this one. Silent when it has gone."""
        if self.is_alive():
            _signal(self.pid, number)


def end(marks: Iterable[ProcessMark], *, grace_seconds: float) -> None:
    """SIGTERM to all, then SIGKILL to whoever is left after the grace time."""
    pending = [mark for mark in marks if mark.is_alive()]
    for mark in pending:
        mark.send(signal.SIGTERM)
    pending = wait_until_gone(pending, seconds=grace_seconds)
    for mark in pending:
        mark.send(signal.SIGKILL)
    wait_until_gone(pending, seconds=5)


def wait_until_gone(marks: Iterable[ProcessMark], *, seconds: float) -> list[ProcessMark]:
    """Wait for the processes to end; returns those that did not."""
    deadline = time.monotonic() + seconds
    pending = list(marks)
    while pending := [mark for mark in pending if mark.is_alive()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return pending


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it may end between the look and the signal
        os.kill(pid, number)


def _start_of(pid: int) -> str:
    """When the process started, as text to compare: "" for none and for a zombie.

    On Linux from the kernel's own tick count and boot id: psutil's wall-clock time moves when the clock is set.
    """
    if not _PROC.joinpath("self/stat").exists():
        return _start_by_psutil(pid)
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    if fields[0] in "ZX":
        return ""
    return f"{_boot_id()}/{fields[19]}"


def _start_by_psutil(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return ""


def _boot_id() -> str:
    try:
        return _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown-boot"
