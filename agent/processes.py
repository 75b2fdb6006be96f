"""Finding and ending processes on Linux: by pid and start time, by cgroup, or as descendants of a subreaper."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 10.0
KILL_SECONDS = 5.0
SCRIPTS = "scripts"
_OCTAL = re.compile(r"\\([0-7]{3})")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boottime() -> float:
    """Seconds that go on while the host sleeps, and that no clock change touches."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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


def command_lines() -> Iterator[str]:
    """Of all processes, their arguments separated by spaces."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`."""
    children, found, queue = _tree(), [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def end_all(
    living: Callable[[], list[int]],
    *,
    grace: float = GRACE_SECONDS,
    meanwhile: Callable[[], None] = lambda: time.sleep(0.02),
    cgroup: Path | None = None,
) -> None:
    """SIGTERM to all, `grace` seconds, then SIGKILL until nothing is left, or what is left is stuck in the kernel.

    `cgroup` holds the same processes, and not us: the kernel ends all that is in it, however fast it forks.
    """
    signal_all(living(), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and living():
        meanwhile()
    deadline = time.monotonic() + KILL_SECONDS
    while (pids := living()) and time.monotonic() < deadline:
        if cgroup is not None and os.getpid() not in cgroup_members(cgroup):
            kill_cgroup(cgroup)
        signal_all(pids, signal.SIGSTOP)  # so that nobody forks ahead of us
        signal_all(living(), signal.SIGKILL)
        meanwhile()


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal; processes that are gone do not matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def cgroup_mounts(mountinfo: str = "") -> list[Path]:
    """Where cgroup v2 is mounted, from mountinfo; it need not be /sys/fs/cgroup."""
    try:
        text = mountinfo or Path("/proc/self/mountinfo").read_text()
    except OSError:
        return []
    split = [line.partition(" - ") for line in text.splitlines()]
    found = [before.split()[4] for before, _, after in split if after.startswith("cgroup2 ")]
    return [Path(_OCTAL.sub(lambda match: chr(int(match.group(1), 8)), name)) for name in found]


def make_cgroup(name: str) -> Path | None:
    """A cgroup of the job's own with us in it, and one below for its scripts; None where we may not make one."""
    for mount in cgroup_mounts():
        path = mount / "hyprbox" / name
        try:
            (path / SCRIPTS).mkdir(parents=True, exist_ok=True)
            enter_cgroup(path)
        except OSError:
            remove_cgroup(path)
            continue
        return path
    return None


def enter_cgroup(path: Path) -> None:
    (path / "cgroup.procs").write_text(str(os.getpid()))


@contextlib.contextmanager
def forking_into(path: Path | None) -> Iterator[None]:
    """What is started meanwhile is in this cgroup from its first instruction on; we are not, afterwards."""
    if path is None:
        yield
        return
    with contextlib.suppress(OSError):
        enter_cgroup(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            enter_cgroup(path.parent)


def cgroup_members(path: Path, *, but: tuple[int, ...] = ()) -> list[int]:
    """Those in the groups below it as well."""
    found: set[int] = set()
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError, ValueError):
            found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    return sorted(found - set(but))


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
    """Living processes that were started with `name=value`, and what they started.

    It is how a killed runner's script is found without a cgroup.
    """
    wanted = f"{name}={value}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and start_time(int(entry)) is not None:
            found.append(int(entry))
    return sorted({*found, *(below for pid in found for below in descendants(pid))} - {os.getpid()})
