"""What a heartbeat measures, and what the inventory says of the host."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from agent import __version__

_REAL_FILESYSTEMS = {
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "vfat",
    "overlay",
    "bcachefs",
    "jfs",
    "reiserfs",
}
MAX_DISKS = 16
FAILED_UNITS_SECONDS = 60.0
SHORTEST_READING_SECONDS = 1.0


class Meter:
    """Keeps what rates are computed from between two heartbeats."""

    def __init__(self) -> None:
        self._cpu = psutil.cpu_percent(0.1)  # a reading compares with the one before; the first one needs a moment
        self._at = self._cpu_at = time.monotonic()
        self._net = _net()
        self._disk = _disk_io()
        self._failed: tuple[float, int | None] = (0.0, None)

    def read(self) -> dict[str, Any]:
        """The `metrics` of a heartbeat. What cannot be read is null or absent."""
        now = time.monotonic()
        seconds = max(0.001, now - self._at)
        net, disk = _net(), _disk_io()
        found: dict[str, Any] = {
            "cpu_percent": self._cpu_percent(now),
            **_memory(),
            **_disks(),
            **_load(),
            "uptime_seconds": int(time.time() - psutil.boot_time()),
            "processes": _processes(),
        }
        if net and self._net:
            found["net_rx_bps"] = max(0, round((net[0] - self._net[0]) / seconds))
            found["net_tx_bps"] = max(0, round((net[1] - self._net[1]) / seconds))
        if disk and self._disk:
            found["disk_read_bps"] = max(0, round((disk[0] - self._disk[0]) / seconds))
            found["disk_write_bps"] = max(0, round((disk[1] - self._disk[1]) / seconds))
        failed = self._failed_units(now)
        if failed is not None:
            found["failed_units"] = failed
        self._at, self._net, self._disk = now, net, disk
        return found

    def _cpu_percent(self, now: float) -> float | None:
        """Since the reading before. The kernel counts in hundredths of a second: over less than a second that one stands."""
        if now - self._cpu_at >= SHORTEST_READING_SECONDS:
            self._cpu, self._cpu_at = psutil.cpu_percent(None), now
        return _percent(self._cpu)

    def _failed_units(self, now: float) -> int | None:
        if not Path("/run/systemd/system").is_dir():
            return None
        if now - self._failed[0] > FAILED_UNITS_SECONDS or self._failed[1] is None:
            self._failed = (now, _count_failed_units())
        return self._failed[1]


def _plain(text: str, limit: int = 255) -> str:
    """What this host says of itself, as it can be sent: bytes that are no UTF-8, and what is not printed, are replaced."""
    sound = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "\ufffd" for char in sound)[:limit]


def _percent(value: float) -> float | None:
    return round(min(100.0, max(0.0, value)), 1)


def _memory() -> dict[str, Any]:
    try:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    except (OSError, RuntimeError):
        return {"memory_percent": None}
    return {
        "memory_percent": _percent(memory.percent),
        "memory_total_bytes": memory.total,
        "swap_percent": _percent(swap.percent),
    }


def _disks() -> dict[str, Any]:
    disks: list[dict[str, Any]] = []
    seen = set()
    root: float | None = None
    total: int | None = None
    try:
        root_usage = psutil.disk_usage("/")
        root, total = _percent(root_usage.percent), root_usage.total
    except OSError:
        pass
    for part in psutil.disk_partitions(all=False):
        if part.device in seen or part.fstype not in _REAL_FILESYSTEMS or not os.path.isdir(part.mountpoint):
            continue
        seen.add(part.device)
        try:
            usage = psutil.disk_usage(part.mountpoint)
        except OSError:
            continue
        if usage.total and len(disks) < MAX_DISKS:
            disks.append(
                {"mount": _plain(part.mountpoint), "percent": _percent(usage.percent), "total_bytes": usage.total}
            )
    # The fullest disk is the one that will cause trouble.
    fullest = max([d["percent"] for d in disks] + ([root] if root is not None else []), default=None)
    found: dict[str, Any] = {"disk_percent": fullest, "disks": disks}
    if total is not None:
        found["disk_total_bytes"] = total
    return found


def _load() -> dict[str, float]:
    try:
        one, five, fifteen = os.getloadavg()
    except OSError:
        return {}
    return {"load_1": round(one, 2), "load_5": round(five, 2), "load_15": round(fifteen, 2)}


def _processes() -> int:
    return sum(1 for name in os.listdir("/proc") if name.isdigit())


def _net() -> tuple[int, int] | None:
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    except OSError:
        return None
    received = sent = 0
    for line in lines:
        name, _, rest = line.partition(":")
        if name.strip() != "lo":
            fields = rest.split()
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def _disk_io() -> tuple[int, int] | None:
    try:
        counters = psutil.disk_io_counters()
    except (OSError, RuntimeError, NotImplementedError):
        return None
    return (counters.read_bytes, counters.write_bytes) if counters else None


def _count_failed_units() -> int | None:
    try:
        done = subprocess.run(
            ["systemctl", "list-units", "--state=failed", "--no-legend", "--plain"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return len(done.stdout.splitlines()) if done.returncode == 0 else None


def inventory(region: str) -> dict[str, Any]:
    """What the host is; sent first and whenever it changes."""
    release = _os_release()
    return {
        "hostname": _plain(socket.gethostname()),
        "os": _plain(release.get("NAME", platform.system()), 120),
        "os_version": _plain(release.get("VERSION_ID", release.get("VERSION", "")), 120),
        "kernel": _plain(platform.release(), 120),
        "architecture": _plain(platform.machine(), 60),
        "ip_addresses": _addresses(),
        "region": region,
        "cpu_count": os.cpu_count() or 1,
        "virtualization": _virtualization(),
        "boot_time": datetime.fromtimestamp(psutil.boot_time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "agent_version": __version__,
    }


def _os_release() -> dict[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            lines = Path(path).read_text(errors="replace").splitlines()
        except OSError:
            continue
        pairs = (line.partition("=") for line in lines if "=" in line)
        return {name: value.strip().strip("\"'") for name, _, value in pairs}
    return {}


def _addresses() -> list[str]:
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        if name == "lo":
            continue
        for address in addresses:
            text = address.address.partition("%")[0]
            if address.family in (socket.AF_INET, socket.AF_INET6) and not text.lower().startswith("fe80"):
                found.append(text)
    return sorted(found)[:32]


def _virtualization() -> str:
    if Path("/.dockerenv").exists():
        return "docker"
    try:
        product = Path("/sys/class/dmi/id/product_name").read_text(errors="replace").strip()
    except OSError:
        return ""
    return _plain(product, 60)


def machine_id() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            return Path(path).read_text(errors="replace").strip()[:64]
        except OSError:
            continue
    return ""
