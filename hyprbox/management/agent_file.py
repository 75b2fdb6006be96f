"""The agent as one file: `dist/hyprnode.pyz`, which the control plane serves and `install.sh` puts on servers.

    script/build-agent

One file for every server: pure Python packages once, and what is compiled for each machine in `machine/<name>/`,
for all Pythons in `PYTHONS` side by side (their names differ by version). The same input makes the same bytes.
Knows nothing of Django, so that an image or a package can be built without settings.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyprbox.management.options import BASE_DIR

FOLDER = BASE_DIR / "dist"
PATH = FOLDER / "hyprnode.pyz"
PARENT = "HYPRBOX_PACKS_FOR"
_MADE_OF = FOLDER / "hyprnode.made-of"
LOCK = BASE_DIR / "requirements" / "agent-file.txt"
UNIT = BASE_DIR / "deploy" / "systemd" / "hyprnode.service"
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
_GLIBC = ("manylinux2014_{}", "manylinux_2_17_{}", "manylinux_2_26_{}", "manylinux_2_28_{}")
_FOR_EVERY_PYTHON = ("pynacl", "psutil")  # their wheels use the stable ABI
_FOR_ONE_PYTHON = ("cffi",)
_WITHOUT_SPEEDUPS = ("pyyaml",)  # works without its compiled part, and has no wheel without it
_NOT_FOR_NODES = {"django", "rest_framework", "procrastinate", "drf_spectacular", "structlog", "msgspec", "psycopg"}
_NOT_FOR_NODES |= {"hyprbox", "audit", "accounts", "tokens", "nodes", "jobs"}

PREAMBLE = """
import os, sys
def _problem():
    machine, found = os.uname().machine, "%d.%d" % sys.version_info[:2]
    if sys.platform != "linux" or machine not in {machines!r} or sys.maxsize < 2**32:
        return "runs on 64-bit Linux on " + " or ".join({machines!r}) + "; this is " + sys.platform + " on " + machine
    if sys.implementation.name != "cpython" or found not in {pythons!r} or "t" in sys.abiflags:
        return "needs CPython {pythons[0]} to {pythons[1]}; this is " + sys.implementation.name + " " + found + sys.abiflags
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        libc = None
    return "" if libc else "needs a system with the GNU C library, such as Debian or Ubuntu"
"""


class CannotBuild(Exception):
    """The agent's file cannot be built; the message is one sentence for the person at the terminal."""


def sources() -> list[tuple[str, Path]]:
    """(name in the file, path) of what is ours: the agent, the pure modules of presets, and the unit."""
    found = [("agent/hyprnode.service", UNIT)]
    for package in ("agent", "presets"):
        for path in sorted((BASE_DIR / package).rglob("*")):
            name = path.relative_to(BASE_DIR)
            if not path.is_file() or {"tests", "migrations", "__pycache__"} & set(name.parts):
                continue
            if path.suffix in (".py", ".yaml") and not _needs_the_server(path):
                found.append((str(name), path))
    return found


def _needs_the_server(path: Path) -> bool:
    if path.suffix != ".py":
        return False
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return any(name.partition(".")[0] in _NOT_FOR_NODES for name in names)


def made_of() -> str:
    """A hash of everything that the file is made from."""
    digest = hashlib.sha256()
    for name, path in [*sources(), ("lock", LOCK), ("builder", Path(__file__))]:
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def is_current() -> bool:
    """Whether the file is there and was made from this checkout."""
    try:
        return PATH.is_file() and _MADE_OF.read_text() == f"{made_of()} {_sha256(PATH)}\n"
    except OSError:
        return False


def build() -> bool:
    """Make the file unless it is current; False when there was nothing to do. Raises `CannotBuild`."""
    try:
        FOLDER.mkdir(exist_ok=True)
        with _alone():
            if is_current():
                return False
            for left in FOLDER.glob(".agent-*"):  # by a build that was killed
                shutil.rmtree(left)
            origin = made_of()
            with tempfile.TemporaryDirectory(prefix=".agent-", dir=FOLDER) as scratch:
                made = _make(Path(scratch))
                os.chmod(made, 0o644)
                sha256 = _sha256(made)
                made.replace(PATH)
            _MADE_OF.write_text(f"{origin} {sha256}\n")
            return True
    except OSError as error:
        raise CannotBuild(f"{error.filename or FOLDER} cannot be written: {error.strerror}.") from error


@contextmanager
def _alone() -> Iterator[None]:
    """Of several that build at once, one does it and the others find it done."""
    with (FOLDER / ".agent.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(scratch: Path) -> Path:
    tree = scratch / "tree"
    tree.mkdir()
    _unpack_packages(tree, scratch / "wheels")
    for name, path in sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tree / name)
    return pack(tree, scratch)


def pack(tree: Path, scratch: Path) -> Path:
    """One file out of what is in `tree`: the same bytes for the same names and contents. Raises `CannotBuild`."""
    _same_modes(tree)
    preamble = scratch / "preamble.py"
    preamble.write_text(_preamble())
    preamble.chmod(0o755)
    made = scratch / "hyprnode.pyz"
    shiv = [sys.executable, "-W", "ignore", "-c", "from shiv.cli import main; main()"]
    flags = ["--reproducible", "--entry-point", "agent.daemon:main", "--preamble", str(preamble)]
    _run([*shiv, *flags, "--site-packages", str(tree), "--output-file", str(made)], "shiv could not pack the file")
    return made


def _unpack_packages(tree: Path, wheels: Path) -> None:
    pins = _pins()
    compiled = {*_FOR_EVERY_PYTHON, *_FOR_ONE_PYTHON, *_WITHOUT_SPEEDUPS}
    pure = [pin for name, pin in pins.items() if name not in compiled]
    _fetch(pure, wheels / "any", ["any"], "3.9")
    _fetch([pins[name] for name in _WITHOUT_SPEEDUPS], wheels / "any", _platforms(MACHINES[0]), "3.9")
    _unpack(wheels / "any", tree, speedups=False)
    for machine in MACHINES:
        folder = wheels / machine
        _fetch([pins[name] for name in _FOR_EVERY_PYTHON], folder, _platforms(machine), "3.9")
        for python in PYTHONS:
            _fetch([pins[name] for name in _FOR_ONE_PYTHON], folder, _platforms(machine), python)
        _unpack(folder, tree / "machine" / machine, speedups=True)


def _pins() -> dict[str, str]:
    """The lock's requirements with their hashes, by name."""
    blocks = re.split(r"\n(?=\w)", LOCK.read_text().strip())
    return {block.partition("==")[0].lower(): block for block in blocks}


def _platforms(machine: str) -> list[str]:
    return [name.format(machine) for name in _GLIBC]


def _fetch(pins: Sequence[str], folder: Path, platforms: Sequence[str], python: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder.parent / "wanted.txt"
    wanted.write_text("\n".join(pins) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--python-version", python]
    for platform in platforms:
        command += ["--platform", platform]
    _run([*command, "--dest", str(folder), "--requirement", str(wanted)], "pip could not fetch the agent's packages")


def _unpack(wheels: Path, tree: Path, *, speedups: bool) -> None:
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                is_needless = name.endswith("/RECORD") or ".data/" in name or "/tests/" in name
                if not is_needless and (speedups or not name.endswith(".so")):
                    archive.extract(name, tree)


def _same_modes(tree: Path) -> None:
    """The account that builds must not show in the bytes."""
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _preamble() -> str:
    """What runs before the agent: refuses where it cannot work, and finds what was compiled for this machine."""
    text = PREAMBLE.replace("{machines!r}", repr(MACHINES)).replace("{pythons!r}", repr(PYTHONS))
    text = text.replace("{pythons[0]}", PYTHONS[0]).replace("{pythons[1]}", PYTHONS[-1])
    text += "if _problem():\n    sys.exit('hyprnode: HyprBox ' + _problem() + '.')\n"
    return text + "sys.path.insert(0, str(site_packages / 'machine' / os.uname().machine))\n"


def _run(command: Sequence[str], complaint: str) -> None:
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        lines = [line for line in answer.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise CannotBuild(f"{complaint}: {lines[-1].strip() if lines else 'it does not say why'}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _end_with(parent: int) -> None:
    """End this process and all that it started as soon as `parent` is not its parent any more."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)  # the file is replaced at the very end, so nothing is half done


def main() -> int:
    if parent := os.environ.get(PARENT):  # in a session of its own, by `manage.py up`
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    try:
        was_made = build()
    except CannotBuild as error:
        print(f"script/build-agent: {error}", file=sys.stderr)
        return 1
    size = PATH.stat().st_size / 1024 / 1024
    print(f"{PATH}  {size:.1f} MiB  SHA-256 {_sha256(PATH)}{'' if was_made else '  (is current)'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
