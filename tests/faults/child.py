"""Processes: ours, which a test kills and brings back, and all others of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.house import ROOT

STOP_SECONDS = 20.0


@dataclass
class Child:
    """One process of ours. It dies by our hand or it is a finding."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    given: dict[str, str] = field(default_factory=dict)  # what it was started with this time alone

    def start(self, **more: str) -> Child:
        assert not self.is_alive, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**self.environment, **more},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.starts += 1
        self.given = more
        return self

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def died_unasked(self) -> str:
        """How it ended although nobody wanted it to; empty while it runs."""
        code = self.process.poll() if self.process is not None else None
        return "" if code is None else f"{self.name} ended with {code}"

    def wait_dead(self, seconds: float = 30.0) -> int:
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        return code

    def end(self, number: int = signal.SIGTERM) -> int | None:
        """None when it was not there."""
        if not self.is_alive or self.process is None:
            self.process = None
            return None
        self.process.send_signal(number)
        try:
            return self.wait_dead(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.wait_dead()


def commands() -> Iterator[tuple[int, list[str]]]:
    """Every living process but this one, with its command line."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with suppress(OSError):
                raw = Path(f"/proc/{entry}/cmdline").read_bytes()
                if raw:
                    yield int(entry), raw.decode(errors="replace").rstrip("\0").split("\0")
