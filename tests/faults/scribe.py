"""What every job of the fault tests runs: it testifies that it ran, and writes bytes that are known beforehand.

    python -I -S scribe.py ROOT NONCE SEED STDOUT_BYTES STDERR_BYTES EXIT_CODE TENTHS LEFTOVER

The witness file of the host that really ran it gets `START job nonce boot at pid sha256` and, at the end,
`END job nonce code at`, each line appended and synced before anything else happens. `at` is in nanoseconds since boot.
Only the standard library: it runs as a job does, in an environment built from nothing.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PIECES = 20
SLEEPER = 3600


def stream(seed: int, name: str, length: int) -> bytes:
    """The first `length` bytes of a stream without end: all byte values, so also NUL and invalid UTF-8."""
    return hashlib.shake_256(f"{name} {seed}".encode()).digest(length)


def testify(path: Path, line: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{line}\n".encode())
    os.fsync(handle)
    os.close(handle)


def ancestry() -> list[list[str]]:
    """The command lines of our ancestors, the nearest first."""
    found, pid = [], os.getppid()
    while pid > 1:
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(status[status.rindex(")") + 2 :].split()[1])
    return found


def host_of(root: Path, commands: list[list[str]]) -> str:
    """Whose runner we descend from: its command line names the state folder. Empty when it died already."""
    for command in commands:
        for argument in command:
            if argument.startswith(f"{root}/hosts/"):
                return Path(argument).relative_to(root / "hosts").parts[0]
    return ""


def script_sha256(commands: list[list[str]]) -> str:
    """Of the bytes that the bash above us reads."""
    for command in commands[:1]:
        try:
            return hashlib.sha256(Path(command[1]).read_bytes()).hexdigest()
        except (OSError, IndexError):
            break
    return "-"


def write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def main(arguments: list[str]) -> int:
    commands = ancestry()  # first of all: a killed runner is not our ancestor any more
    root, nonce = Path(arguments[0]), arguments[1]
    seed, out, err, code, tenths, leftover = (int(text) for text in arguments[2:8])
    job, boot = os.environ["HYPRBOX_JOB_ID"], Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    witness = root / "witness" / (host_of(root, commands) or "unknown")
    sha256 = script_sha256(commands)
    testify(witness, f"START {job} {nonce} {boot} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)} {os.getpid()} {sha256}")
    if leftover:  # in a session of its own, deaf to SIGTERM: what a job must not leave behind
        nowhere = subprocess.DEVNULL
        ignore = [sys.executable, "-I", "-S", "-c", f"import signal, time; signal.signal({signal.SIGTERM:d}, signal.SIG_IGN); time.sleep({SLEEPER})"]  # fmt: skip
        subprocess.Popen(ignore, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    streams = ((1, stream(seed, "stdout", out)), (2, stream(seed, "stderr", err)))
    for piece in range(PIECES):
        for handle, data in streams:
            write(handle, data[len(data) * piece // PIECES : len(data) * (piece + 1) // PIECES])
        time.sleep(tenths / 10 / PIECES)
    testify(witness, f"END {job} {nonce} {code} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
