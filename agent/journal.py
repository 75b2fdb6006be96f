"""What the agent knows of a job, on disk before it acts on it.

One folder per job, 0700. Each record is written to a temporary file, synced, renamed, and the folder is
synced; a record whose checksum is wrong was torn and counts as absent.

    intent     the claim and its payload, before `start` is sent
    started    the server acknowledged `start`
    exec       the runner is about to fork bash: from here on the job counts as executed
    result     how it ended
    closed     the server knows, or does not want to know
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEEP_SECONDS = 30 * 86400
RECORDS = ("intent", "started", "exec", "result", "closed")


class JobFolder:
    """The records and the spool of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def job_id(self) -> str:
        return self.path.name

    def create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_folder(self.path.parent)

    def write(self, record: str, data: dict[str, Any]) -> None:
        """Durable when this returns. Raises `OSError` when the disk refuses."""
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        body = hashlib.sha256(text.encode()).hexdigest() + "\n" + text
        temporary = self.path / f".{record}.{os.getpid()}"
        with open(temporary, "w", opener=_private) as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self.path / record)
        _sync_folder(self.path)

    def read(self, record: str) -> dict[str, Any] | None:
        """None for a record that is absent or torn."""
        try:
            digest, _, text = (self.path / record).read_text().partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            return None
        data = json.loads(text)
        return data if isinstance(data, dict) else None

    def has(self, record: str) -> bool:
        return self.read(record) is not None

    def request_cancel(self) -> None:
        """Told to the runner by a file that it looks for."""
        (self.path / "cancel").touch(mode=0o600)

    @property
    def cancel_requested(self) -> bool:
        return (self.path / "cancel").exists()


class Journal:
    """All jobs this host has seen in the last 30 days."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir / "jobs"
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.root / job_id)

    def folders(self) -> Iterator[JobFolder]:
        for path in sorted(self.root.iterdir()):
            if path.is_dir():
                yield JobFolder(path)

    def unfinished(self) -> Iterator[JobFolder]:
        return (folder for folder in self.folders() if folder.has("intent") and not folder.has("closed"))

    def forget_old(self, now: float | None = None) -> int:
        """Remove closed jobs after 30 days; their spools go as soon as they are closed."""
        removed = 0
        for folder in list(self.folders()):
            closed = folder.read("closed")
            if closed is not None and (now or time.time()) - float(closed["at"]) > KEEP_SECONDS:
                shutil.rmtree(folder.path, ignore_errors=True)
                removed += 1
        return removed


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
