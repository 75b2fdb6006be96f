"""The Debian 12 tree that rooms are copies of: made once by debootstrap, then kept under var/roots.

Packages come from the mirror that this machine's own apt uses. A tree is named after what it is made from, so a change of the lists
below makes a new one, out of the bare system that is kept beside it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
INSTALLED = (
    "cron",
    "init-system-helpers",
    "iproute2",
    "iptables",
    "kmod",
    "logrotate",
    "lsb-release",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "python3-dbus",
    "sudo",
)
"""In every room from the start: what a server has, and what takes long to install."""
DOWNLOADED = ("fail2ban", "nftables", "rsyslog", "ufw", "unattended-upgrades")
"""Lie in apt's cache with all they need, so that a preset really installs them although a room has no network."""

SERVER_INSTALLED = (
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "dbus",
    "udev",
    "curl",
    "openssl",
    "ca-certificates",
    "pebble",
    "wireguard-go",
)
"""What a server has on top of that: a systemd that boots, and the other sides of what presets speak to."""
SERVER_FETCHED = (
    "caddy",
    "certbot",
    "docker.io",
    "nginx",
    "postgresql",
    "prometheus",
    "prometheus-node-exporter",
    "redis-server",
    "restic",
    "iputils-ping",
    "wireguard-tools",
)

FOLDER = Path(__file__).resolve().parents[2] / "var" / "roots"
_FILL = Path(__file__).parent / "room" / "fill.sh"
_MIRROR = re.compile(r"^(?:deb(?:\s+\[[^\]]*\])?|URIs:)\s+(https?://\S+/debian)/?(?:\s|$)", re.MULTILINE)


class NoTemplate(Exception):
    """This machine cannot make the tree; the text says why."""


def ready() -> Path:
    """The tree of rooms, made now if it is not there: that takes a minute and the network. Raises NoTemplate."""
    return _ready(SUITE, INSTALLED, DOWNLOADED, ())


def ready_server() -> Path:
    """The tree of rooms that boot: the same, and more in it. Raises NoTemplate."""
    return _ready(f"{SUITE}-server", (*INSTALLED, *SERVER_INSTALLED), (), SERVER_FETCHED)


def _ready(name: str, installed: tuple[str, ...], downloaded: tuple[str, ...], fetched: tuple[str, ...]) -> Path:
    if os.geteuid() != 0:
        raise NoTemplate("a Debian tree can only be made by root")
    FOLDER.mkdir(parents=True, exist_ok=True)
    bare = FOLDER / f"{SUITE}-bare"
    full = FOLDER / f"{name}-{_digest(_FILL.read_text(), *installed, '+', *downloaded, '+', *fetched)}"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be making it
        if not full.exists():
            if not bare.exists():
                _run("debootstrap", "--variant=minbase", SUITE, str(_half(bare)), _mirror())
                _half(bare).rename(bare)
            _run("cp", "-a", f"{bare}/.", str(_half(full)))
            _run("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", str(_FILL), str(_half(full)),
                 " ".join(installed), " ".join(downloaded), " ".join(fetched))  # fmt: skip
            _half(full).rename(full)
    return full


def _mirror() -> str:
    """The archive of Debian that this machine's own apt uses."""
    folder = Path("/etc/apt")
    for file in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if file.suffix in (".list", ".sources") and file.is_file():
            found = _MIRROR.search(file.read_text())
            if found:
                return found[1]
    raise NoTemplate("the apt sources of this machine name no archive of Debian")


def _half(tree: Path) -> Path:
    """Where it is made: what was interrupted is never taken for whole."""
    return tree.with_suffix(".half")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _run(*command: str) -> None:
    if command[0] in ("debootstrap", "cp"):
        shutil.rmtree(command[3 if command[0] == "debootstrap" else -1], ignore_errors=True)
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise NoTemplate(f"{command[0]} is not installed")
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=900)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")[-3000:]
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{said}")
