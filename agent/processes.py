"""Finding and ending processes on Linux: by pid and start time, by cgroup, or as descendants of a subreaper."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 10.0
KILL_SECONDS = 5.0


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process began; None when it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process still runs: pids are reused, start times are not."""
    return start_time(pid) == started


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return text[text.rindex(")") + 2 :].split()


def become_subreaper() -> None:
    """Orphaned descendants, `setsid` ones too, become our children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _tree() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None and fields[0] not in ("Z", "X"):
                children.setdefault(int(fields[1]), []).append(int(entry))
    return children


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`."""
    children, found, queue = _tree(), [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def session_members(session: int) -> list[int]:
    """Living processes of a session: what is left when a runner was killed."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None and fields[0] not in ("Z", "X") and int(fields[3]) == session:
                found.append(int(entry))
    return found


def end_all(
    living: Callable[[], list[int]],
    *,
    grace: float = GRACE_SECONDS,
    meanwhile: Callable[[], None] = lambda: time.sleep(0.02),
) -> None:
    """SIGTERM to all, `grace` seconds, then SIGKILL until nothing is left, or what is left is stuck in the kernel."""
    signal_all(living(), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and living():
        meanwhile()
    deadline = time.monotonic() + KILL_SECONDS
    while (pids := living()) and time.monotonic() < deadline:
        signal_all(pids, signal.SIGSTOP)  # so that nobody forks ahead of us
        signal_all(living(), signal.SIGKILL)
        meanwhile()


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal; processes that are gone do not matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def cgroup_mount() -> Path | None:
    """Where cgroup v2 is mounted, from mountinfo; it need not be /sys/fs/cgroup."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def make_cgroup(name: str) -> Path | None:
    """A cgroup of the job's own with us in it, or None where we may not make one."""
    mount = cgroup_mount()
    if mount is None:
        return None
    path = mount / "hyprbox" / name
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        with contextlib.suppress(OSError):
            path.rmdir()
        return None
    return path


def cgroup_members(path: Path, *, but: tuple[int, ...] = ()) -> list[int]:
    try:
        return [int(pid) for pid in (path / "cgroup.procs").read_text().split() if int(pid) not in but]
    except (OSError, ValueError):
        return []


def kill_cgroup(path: Path) -> None:
    try:
        (path / "cgroup.kill").write_text("1")
    except OSError:
        signal_all(cgroup_members(path), signal.SIGKILL)


def remove_cgroup(path: Path) -> None:
    """Once nobody is in it any more; groups that the script made below go too."""
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


@contextlib.contextmanager
def as_killable_as_anyone() -> Iterator[None]:
    """The agent may be protected from the OOM killer; what is started meanwhile is not."""
    path, before = Path("/proc/self/oom_score_adj"), 0
    with contextlib.suppress(OSError, ValueError):
        before = int(path.read_text())
        if before < 0:
            path.write_text("0")
    try:
        yield
    finally:
        if before < 0:
            with contextlib.suppress(OSError):
                path.write_text(str(before))


def with_environment(name: str, value: str) -> list[int]:
    """Living processes that were started with `name=value`: how a killed runner's script is found without a cgroup."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and start_time(int(entry)) is not None:
            found.append(int(entry))
    return found
