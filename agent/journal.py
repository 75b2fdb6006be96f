"""What the agent knows of a job, on disk before it acts on it.

One folder per job, 0700. Each record is written to a temporary file, synced, renamed, and the folder is
synced; a record whose checksum is wrong was torn and counts as absent. One exception: an `exec` that is there
in whatever state means that the script may have run.

    intent     the claim and its payload, before `start` is sent
    started    the server acknowledged `start`
    exec       the runner is about to fork bash: from here on the job counts as executed
    result     how it ended
    closed     the server knows, or does not want to know
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.processes import remove_cgroup
from agent.wire import is_job_id

_RESERVE = "reserve"
KEEP_SECONDS = 30 * 86400
KEEP_EXPIRED_SECONDS = 7 * 86400
RESERVE_BYTES = 64 * 1024
SWEEP_SECONDS = 3600.0
RECORDS = ("intent", "started", "exec", "result", "closed")


class JobFolder:
    """The records and the spool of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cancel_heard = False

    @property
    def job_id(self) -> str:
        return self.path.name

    def create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(self.path.parent)

    def reserve(self) -> None:
        """Room for the result, taken before anything runs: a disk that is full by then must not lose it."""
        handle = os.open(self.path / _RESERVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, RESERVE_BYTES)
        finally:
            os.close(handle)

    def write(self, record: str, data: dict[str, Any]) -> None:
        """Durable when this returns. Raises `OSError` when the disk refuses."""
        try:
            self._write(record, data)
        except OSError as error:
            if record not in ("result", "closed") or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.free_reserve()
            self._write(record, data)

    def free_reserve(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.path / _RESERVE).unlink()

    def _write(self, record: str, data: dict[str, Any]) -> None:
        os.rename(self._write_aside(record, data), self.path / record)
        sync_folder(self.path)

    def claim_exec(self, data: dict[str, Any]) -> bool:
        """Write `exec`, for good: of all runners that ever try, in whatever order, one gets True."""
        temporary = self._write_aside("exec", data)
        try:
            os.link(temporary, self.path / "exec")
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        sync_folder(self.path)
        return True

    def _write_aside(self, record: str, data: dict[str, Any]) -> Path:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        temporary = self.path / f".{record}.{os.getpid()}"
        with open(temporary, "w", opener=_private) as file:
            file.write(hashlib.sha256(text.encode()).hexdigest() + "\n" + text)
            file.flush()
            os.fsync(file.fileno())
        return temporary

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

    @property
    def may_have_run(self) -> bool:
        """True as soon as a runner was about to fork bash, even if the record of it was damaged since."""
        return (self.path / "exec").exists()

    def forget(self) -> None:
        """As if we had never been given it: for a job that did not run and may be handed out again."""
        # All at once: a runner of an earlier agent that comes late finds no folder, instead of half of one.
        aside = self.path.with_name(f".{self.path.name}.forgotten")
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, aside)
        shutil.rmtree(aside, ignore_errors=True)

    def request_cancel(self) -> None:
        """Told to the runner by a file that it looks for. Raises `OSError` when the disk refuses."""
        (self.path / "cancel").touch(mode=0o600)

    @property
    def cancel_requested(self) -> bool:
        return self._cancel_heard or (self.path / "cancel").exists()

    def note_cancel(self) -> None:
        """The runner heard it by a signal, because the disk took no file."""
        self._cancel_heard = True


class Journal:
    """All jobs this host has seen in the last 30 days."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir / "jobs"
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, job_id: str) -> JobFolder:
        """Raises `ValueError` for what is no job id: it would name a file elsewhere."""
        if not is_job_id(job_id):
            raise ValueError("not a job id")
        return JobFolder(self.root / job_id)

    def folders(self) -> Iterator[JobFolder]:
        for path in sorted(self.root.iterdir()):
            if is_job_id(path.name) and path.is_dir():
                yield JobFolder(path)

    def knows_request(self, request_id: str) -> bool:
        return any((folder.read("intent") or {}).get("request_id") == request_id for folder in self.folders())

    def unfinished(self) -> Iterator[JobFolder]:
        return (
            folder
            for folder in self.folders()
            if not folder.has("closed") and (folder.has("intent") or folder.may_have_run)
        )

    def forget_old(self, now: float | None = None) -> int:
        """Remove closed jobs after 30 days, or a week after they expired if that is later.

        Until then the server cannot make us run one again; the spools go as soon as a job is closed. `now` is
        the server's time: a clock that jumped ahead forgets nothing.
        """
        removed, now = 0, time.time() if now is None else now
        for folder in list(self.folders()):
            closed = folder.read("closed")
            if closed is None:
                continue
            if now - float(closed["at"]) > SWEEP_SECONDS:
                remove_spool(folder.path)  # of an agent that died between the two
            if cgroup := (folder.read("exec") or {}).get("cgroup"):
                remove_cgroup(Path(cgroup))  # somebody was in it when the job ended
            keep_until = max(
                float(closed["at"]) + KEEP_SECONDS, float(closed.get("expires_at", 0)) + KEEP_EXPIRED_SECONDS
            )
            if now > keep_until:
                shutil.rmtree(folder.path, ignore_errors=True)
                removed += 1
        return removed


def spooled_bytes(folders: Iterable[JobFolder]) -> int:
    """What their output takes on disk."""
    total = 0
    for folder in folders:
        for path in folder.path.glob("*.ring"):
            try:
                total += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def remove_spool(path: Path) -> None:
    for spooled in (*path.glob("*.ring"), path / "progress", path / _RESERVE):
        with contextlib.suppress(FileNotFoundError):
            spooled.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
