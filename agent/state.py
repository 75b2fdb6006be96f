"""The agent's folder: locked, with what it must know after a restart, and whether the disk takes a job."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from pathlib import Path
from typing import Any

from agent.config import BadSetting
from agent.journal import Journal, spooled_bytes
from agent.wire import is_job_id

MIN_FREE_BYTES = 200 * 1024 * 1024
MAX_SPOOLED_BYTES = 1024**3
MAX_CHECKPOINTS = 1000


class AlreadyRunning(Exception):
    """Another agent uses this state directory."""


class StateDir:
    """The agent's folder, locked: exactly one agent per host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadSetting(f"HYPRBOX_STATE_DIR {path} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Another agent runs with the state directory {path}.") from None
        self._request_is_checked = False

    def next_beat(self) -> int:
        """A counter over restarts: two machines with one identity show as beats that go back."""
        last = self._read("beat")
        number = int(last) + 1 if last.isdigit() else 1
        self._write("beat", str(number))
        return number

    def instance_id(self) -> str:
        found = self._read("instance")
        if not found:
            found = uuid.uuid4().hex
            self._write("instance", found)
        return found

    def request_id(self, journal: Journal) -> str:
        """On disk before it is sent: an agent that dies before it journalled a claim asks for the same one again."""
        found = self._read("request")
        if self._request_is_checked and is_job_id(found):
            return found
        self._request_is_checked = True
        if not is_job_id(found) or journal.knows_request(found):
            return self.renew_request_id()
        return found

    def renew_request_id(self) -> str:
        text = str(uuid.uuid4())
        self._write("request", text, durable=True)
        return text

    def note_checkpoint(self, checkpoint: Any) -> None:
        """We are a witness of the audit chain: the last thousand checkpoints stay here."""
        if not isinstance(checkpoint, dict):
            return
        lines = [*self._read("audit-checkpoints").splitlines(), json.dumps(checkpoint, sort_keys=True)[:4096]]
        self._write("audit-checkpoints", "\n".join(lines[-MAX_CHECKPOINTS:]) + "\n")

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _write(self, name: str, text: str, *, durable: bool = False) -> None:
        temporary = self.path / f".{name}.new"
        with open(temporary, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, self.path / name)

    def spool_problem(self, journal: Journal | None = None) -> str:
        """Why no job can be taken; empty when the disk takes a synced record and has room."""
        probe = self.path / "probe"
        try:
            with open(probe, "wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            facts = os.statvfs(self.path)
        except OSError as error:
            return f"spool_unwritable: {error.strerror}"
        free = facts.f_bavail * facts.f_frsize
        if free < min(MIN_FREE_BYTES, facts.f_blocks * facts.f_frsize // 20):
            return f"spool_unwritable: only {free // 1024 // 1024} MiB free"
        if journal is not None and spooled_bytes(journal) > MAX_SPOOLED_BYTES:
            return "spool_unwritable: output that is not delivered yet takes more than 1 GiB"
        return ""
