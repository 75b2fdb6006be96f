"""Keeps the processes of `up` running: starts them, brings back those that die, ends them all at the end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hyprbox.lib import processes
from hyprbox.lib.processes import ProcessMark
from hyprbox.management.folder import ChildRecord
from hyprbox.management.options import BASE_DIR

_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0  # whoever ran this long has earned a quick restart again

Say = Callable[[str], None]


@dataclass
class Child:
    """One supervised process and its luck so far."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    stop_seconds: float = 10.0
    process: subprocess.Popen[bytes] | None = None
    mark: ProcessMark | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    pause_seconds: float = field(default=_FIRST_PAUSE_SECONDS)
    deaths: int = 0

    def start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=BASE_DIR,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we end the others in order
            )
        self.mark = ProcessMark.of(self.process.pid)
        self.started_at = time.monotonic()

    def how_it_ended(self) -> str:
        """ "" while it runs, else words for how it ended."""
        code = self.process.poll() if self.process else None
        if code is None:
            return ""
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def last_words(self, lines: int = 12) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


class Supervisor:
    """Not more than the newcomer's `up` needs: a real installation has systemd for this."""

    def __init__(self, record: ChildRecord, say: Say) -> None:
        self._record = record
        self._say = say
        self._children: list[Child] = []

    def add(self, child: Child) -> None:
        self._children.append(child)
        self._start(child)

    def look(self) -> None:
        """Bring back who died, each after its pause. To be called about twice a second."""
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.restart_at:
                    self._start(child)
            elif ending := child.how_it_ended():
                self._note_death(child, ending, now)

    def most_deaths(self) -> Child:
        return max(self._children, key=lambda child: child.deaths)

    def stop(self) -> None:
        """End all, the last started first. Those that do not go in time are killed."""
        for child in reversed(self._children):
            if child.process and child.mark and child.process.poll() is None:
                processes.end([child.mark], grace_seconds=child.stop_seconds)
                child.process.wait()
            self._record.note(child.name, None)

    def _start(self, child: Child) -> None:
        child.start()
        self._record.note(child.name, child.mark)

    def _note_death(self, child: Child, ending: str, now: float) -> None:
        if now - child.started_at > _STEADY_SECONDS:
            child.pause_seconds = _FIRST_PAUSE_SECONDS
        child.deaths += 1
        child.process = child.mark = None
        child.restart_at = now + child.pause_seconds
        self._record.note(child.name, None)
        self._say(f"The {child.name} {ending}; starting it again in {child.pause_seconds:g} s. Its log: {child.log}")
        child.pause_seconds = min(child.pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
