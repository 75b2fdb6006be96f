"""The agent's folder: locked, with what it must know after a restart, and whether the disk takes a job."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from agent.config import BadSetting
from agent.journal import JobFolder, Journal, spooled_bytes
from agent.spool import RING
from agent.wire import is_job_id

MIN_FREE_INODES = 64  # a job takes about fifteen
MIN_FREE_BYTES = 200 * 1024 * 1024
JOB_BYTES = 2 * RING + 1024 * 1024  # one job takes this; without it jobs wait rather than fail
MAX_SPOOLED_BYTES = 1024**3
ACCEPTED = "accepted"  # a file: this agent's first heartbeat was


class AlreadyRunning(Exception):
    """Another agent uses this state directory."""


class StateDir:
    """The agent's folder, locked: exactly one agent per host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _open_lock(path / "lock")
        except OSError as error:
            raise BadSetting(f"HYPRBOX_STATE_DIR {path} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Another agent runs with the state directory {path}.") from None
        self._request_is_checked = False
        self._instance = self._beat = ""

    def next_beat(self) -> int:
        """A counter over restarts: two machines with one identity show as beats that go back."""
        last = self._read("beat") or "0"
        number = max(int(last) if last.isdigit() else 0, int(self._beat or 0)) + 1
        self._beat = f"{number:020d}"
        # In place, which a full disk allows: a host with a full disk is not a dead one. The length never changes.
        with contextlib.suppress(OSError):
            handle = os.open(self.path / "beat", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(handle, self._beat.encode(), 0)
            finally:
                os.close(handle)
        return number

    def note_accepted(self) -> None:
        """For an installer that waits."""
        with contextlib.suppress(OSError):
            (self.path / ACCEPTED).touch(mode=0o600)

    def instance_id(self) -> str:
        self._instance = self._read("instance") or self._instance or uuid.uuid4().hex
        if not self._read("instance"):
            with contextlib.suppress(OSError):
                self._write("instance", self._instance)
        return self._instance

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

    def spool_problem(self, waiting: Iterable[JobFolder] = ()) -> str:
        """Why no job can be taken; empty when the disk takes a synced record and has room. `waiting` are not delivered yet."""
        probe = self.path / "jobs" / ".probe"
        try:
            probe.parent.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                probe.unlink()  # a new file, so that a disk without inodes shows
            with open(probe, "xb") as file:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
            probe.unlink()
            facts = os.statvfs(self.path)
        except OSError as error:
            return f"spool_unwritable: {error.strerror}"
        free = facts.f_bavail * facts.f_frsize
        if free < max(JOB_BYTES, min(MIN_FREE_BYTES, facts.f_blocks * facts.f_frsize // 20)):
            return f"spool_unwritable: only {free // 1024 // 1024} MiB free"
        if facts.f_files and facts.f_favail < MIN_FREE_INODES:
            return f"spool_unwritable: only {facts.f_favail} inodes free"
        if spooled_bytes(waiting) > MAX_SPOOLED_BYTES:
            return "spool_unwritable: output that is not delivered yet takes more than 1 GiB"
        return ""


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENOSPC):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # beats go on; the probe says why no job is taken
