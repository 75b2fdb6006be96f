"""The var folder of one installation: who uses it, which processes it left behind, which secrets it keeps."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from hyprbox.lib import processes
from hyprbox.lib.processes import ProcessMark
from hyprbox.management.options import CannotStart, UpOptions


def prepare(options: UpOptions) -> None:
    """Make the folders and the secret key. Raises CannotStart when that is not allowed."""
    try:
        if not options.var_dir.exists():
            options.var_dir.mkdir(parents=True)
            options.var_dir.chmod(0o755)  # PostgreSQL's account has to pass; each secret in it is closed by itself
        (options.var_dir / "static").mkdir(exist_ok=True)  # where collectstatic would put files; looked for either way
        for folder in (options.run_dir, options.log_dir, options.agent_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
            _probe(folder)
        keep_secret(options.var_dir / "secret.key", lambda: secrets.token_urlsafe(50))
    except OSError as error:
        raise CannotStart(f"Cannot write to {error.filename or options.var_dir}: {error.strerror}.") from error


def _probe(folder: Path) -> None:
    probe = folder / ".probe"
    probe.write_text("")
    probe.unlink()


def keep_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret kept in this file (0600); made, and on disk, before it is first returned."""
    try:
        if kept := path.read_text().strip():
            return kept
    except FileNotFoundError:
        pass
    value = make()
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return value


def claim(options: UpOptions) -> int:
    """Be the only `up` on this folder until we end, however we end; returns the lock's handle, to be kept open."""
    path = options.run_dir / "up.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(handle, 200).decode().strip() or "another process"
        os.close(handle)
        raise CannotStart(f"HyprBox already runs on {options.var_dir} ({who}).") from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()}, {options.url}\n".encode(), 0)
    return handle


def last_port(var_dir: Path) -> str:
    """Where the `up` that has this folder listens, or the last one listened; "" when there was none."""
    try:
        noted = (var_dir / "run" / "up.lock").read_text()
    except OSError:
        return ""
    return noted.strip().rpartition(":")[2]


class ChildRecord:
    """Pid and start time of each child, on disk, for the next start after we were killed."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "children.json"
        self._marks: dict[str, ProcessMark] = {}

    def note(self, name: str, mark: ProcessMark | None) -> None:
        if mark is None:
            self._marks.pop(name, None)
        else:
            self._marks[name] = mark
        text = json.dumps({name: [mark.pid, mark.started] for name, mark in self._marks.items()})
        fresh = self._path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._path)

    def end_leftovers(self) -> list[str]:
        """End what an earlier run left; returns the names of those that were still alive."""
        try:
            kept = json.loads(self._path.read_text())
            marks = {str(name): ProcessMark(int(pid), str(started)) for name, (pid, started) in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            marks = {}  # none, or torn by a crash: the port check tells if someone is still there
        alive = {name: mark for name, mark in marks.items() if mark.is_alive()}
        processes.end(alive.values(), grace_seconds=10)
        self._path.unlink(missing_ok=True)
        return sorted(alive)
