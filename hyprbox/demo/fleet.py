"""Who and what there is: the people, and the servers with their systems, loads and troubles."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from nodes.models import Node, StatusFlip
from nodes.status import Status

PEOPLE = (("mara", "Mara Lindqvist", "admin"), ("jonas", "Jonas Weber", "operator"), ("elif", "Elif Kaya", "operator"))
DOMAIN = "example.com"
GIB = 1024**3
_SYSTEMS = {
    "debian": ("Debian GNU/Linux", "12", "6.1.0-28-amd64"),
    "ubuntu": ("Ubuntu", "24.04", "6.8.0-51-generic"),
    "old": ("Debian GNU/Linux", "11", "5.10.0-33-amd64"),
}


@dataclass(frozen=True, slots=True)
class Host:
    """One server. `cpu`, `memory` and `disk` are usual percentages; `busy` is how much the day shows in them."""

    node_id: str
    group: str
    tags: tuple[str, ...]
    system: str
    cpus: int
    cpu: float
    memory: float
    disk: float
    busy: float = 1.0
    silent: timedelta | None = None  # for how long it has not been heard of
    is_new: bool = False  # has a token, and was never heard of
    age: timedelta | None = None  # since it was enrolled; without one it is weeks


HOSTS = (
    Host("edge-1", "nordwind", ("edge", "nginx"), "debian", 4, 24, 41, 38, 1.6),
    Host("edge-2", "nordwind", ("edge", "nginx"), "debian", 4, 22, 43, 37, 1.6),
    Host("shop-1", "nordwind", ("web", "php"), "ubuntu", 8, 38, 57, 52, 1.9),
    Host("shop-2", "nordwind", ("web", "php"), "ubuntu", 8, 36, 55, 51, 1.9),
    Host("shop-db-1", "nordwind", ("db", "postgres"), "debian", 16, 31, 72, 66, 1.3),
    Host("shop-db-2", "nordwind", ("db", "postgres", "standby"), "debian", 16, 9, 64, 66, 0.5),
    Host("search-1", "nordwind", ("search",), "ubuntu", 8, 44, 91.5, 58, 1.1),
    Host("cms-1", "atelier-roth", ("web",), "debian", 2, 12, 48, 44),
    Host("cms-db", "atelier-roth", ("db", "mariadb"), "debian", 2, 8, 61, 87.4, 0.7),
    Host("mail-1", "atelier-roth", ("mail",), "debian", 4, 14, 52, 71, 0.9),
    Host("files-1", "atelier-roth", ("storage",), "old", 4, 6, 35, 79, 0.6),
    Host("app-1", "helios", ("web", "python"), "ubuntu", 4, 29, 49, 33, 1.4),
    Host("app-2", "helios", ("web", "python"), "ubuntu", 4, 27, 50, 34, 1.4),
    Host("app-3", "helios", ("web", "python", "canary"), "ubuntu", 4, 33, 53, 34, 1.4),
    Host("queue-1", "helios", ("worker",), "debian", 4, 51, 46, 29, 0.8),
    Host("helios-db", "helios", ("db", "postgres"), "debian", 8, 26, 69, 61, 1.2),
    Host("lab-gpu", "helios", ("lab",), "ubuntu", 32, 98.2, 67, 48, 0.05),
    Host("monitor-1", "internal", ("internal",), "debian", 2, 11, 44, 57, 0.3),
    Host("git-1", "internal", ("internal", "git"), "debian", 4, 16, 58, 63),
    Host("backup-1", "internal", ("internal", "storage"), "debian", 4, 7, 28, 74, 0.4),
    Host("vpn-1", "internal", ("internal", "edge"), "debian", 1, 4, 31, 22, 0.5),
    Host("staging-1", "internal", ("staging",), "ubuntu", 2, 5, 39, 41, 0.6, timedelta(hours=3, minutes=12)),
    Host("build-2", "internal", ("staging", "worker"), "old", 8, 0, 0, 0, is_new=True),
)
MOST = 5_000
_SITES = ("kestrel", "lumen", "brauhaus", "ostwind", "meridian", "tannhof", "viktoria", "quarz")
_KINDS = (
    ("web", ("web", "nginx"), "debian", 4, 26.0, 47.0, 41.0, 1.5),
    ("app", ("web", "python"), "ubuntu", 8, 34.0, 55.0, 36.0, 1.4),
    ("db", ("db", "postgres"), "debian", 16, 24.0, 71.0, 63.0, 1.1),
    ("cache", ("cache",), "debian", 2, 9.0, 76.0, 18.0, 0.8),
    ("worker", ("worker",), "ubuntu", 4, 52.0, 44.0, 31.0, 0.9),
    ("till", ("edge",), "old", 1, 6.0, 38.0, 55.0, 1.2),
)


def hosts(count: int) -> tuple[Host, ...]:
    """So many servers, always the same ones: those above, then others that were enrolled yesterday."""
    dice = random.Random(4711)
    numbers: Counter[str] = Counter()
    return HOSTS + tuple(_another(dice, numbers) for _ in range(count - len(HOSTS)))


def _another(dice: random.Random, numbers: Counter[str]) -> Host:
    """One in thirty is in some trouble."""
    [site] = dice.choices(_SITES, (9, 7, 5, 4, 3, 2, 2, 1))
    kind, tags, system, cpus, cpu, memory, disk, busy = dice.choice(_KINDS)
    numbers[f"{site}-{kind}"] += 1
    cpu, memory, disk = (max(2.0, value + dice.gauss(0, 5)) for value in (cpu, memory, disk))
    roll, hours = dice.random(), dice.uniform(0.4, 20)
    if roll < 0.006:
        disk = 97.5
    elif roll < 0.02:
        memory, busy = 93.0, 0.5
    return Host(
        f"{site}-{kind}-{numbers[f'{site}-{kind}']:02d}", site, tags, system, cpus, cpu, min(memory, 93), disk, busy,
        silent=timedelta(hours=hours) if 0.02 <= roll < 0.028 else None,
        is_new=0.028 <= roll < 0.031,
        age=timedelta(hours=dice.uniform(26, 40)),
    )  # fmt: skip


def make_node(host: Host, dice: random.Random, now: datetime) -> Node:
    """The row of a server that was enrolled some time ago."""
    created = now - (host.age or timedelta(days=dice.uniform(33, 40)))
    node = Node(
        id=uuid.UUID(int=dice.getrandbits(128), version=4),
        node_id=host.node_id,
        group=host.group,
        tags=list(host.tags),
        created_at=created,
        announced_status=Status.UNKNOWN,
        announced_at=created,
    )
    if host.is_new:
        node.created_at = node.announced_at = now - timedelta(minutes=26)
        return node
    node.first_seen_at = created + timedelta(minutes=2)
    node.last_seen_at = now - (host.silent or timedelta(seconds=dice.uniform(2, 50)))
    node.agent_version, node.interval_seconds, node.region = "0.1.0", 60, dice.choice(("fsn1", "nbg1", "hel1"))
    node.announced_status, node.announced_at = _announced(host, node.first_seen_at, now)
    node.inventory, node.inventory_at = _inventory(host, node.region, dice, now), node.first_seen_at
    node.clock_offset_seconds = round(dice.gauss(0, 0.02), 3)
    node.machine_id = f"{dice.getrandbits(128):032x}"
    return node


def _announced(host: Host, first: datetime, now: datetime) -> tuple[Status, datetime]:
    if host.silent:
        return Status.OFFLINE, now - host.silent + timedelta(minutes=10)
    match _reason(host).get("status"):
        case "CRITICAL":
            return Status.CRITICAL, now - timedelta(minutes=41)
        case "WARNING":
            return Status.WARNING, now - timedelta(hours=5, minutes=18)
    return Status.ONLINE, first


def _inventory(host: Host, region: str, dice: random.Random, now: datetime) -> dict[str, Any]:
    name, version, kernel = _SYSTEMS[host.system]
    boot = now - timedelta(days=dice.uniform(2, 60))
    return {
        "hostname": host.node_id,
        "os": name,
        "os_version": version,
        "kernel": kernel,
        "architecture": "x86_64",
        "ip_addresses": [f"10.{20 + dice.randrange(4)}.{dice.randrange(8)}.{dice.randrange(10, 250)}"],
        "region": region,
        "cpu_count": host.cpus,
        "virtualization": "kvm",
        "boot_time": f"{boot:%Y-%m-%dT%H:%M:%SZ}",
        "agent_version": "0.1.0",
    }


def make_flips(node: Node, host: Host, dice: random.Random, now: datetime) -> list[StatusFlip]:
    """Changes of status over the last weeks, each back again, and the one that holds now."""
    if node.first_seen_at is None:
        return []
    flips = [_flip(node, node.first_seen_at, Status.UNKNOWN, Status.ONLINE)]
    for _ in range(0 if host.age else dice.randrange(1, 4)):
        at = now - timedelta(days=dice.uniform(1, 30))
        if dice.random() < 0.4:
            worse, why = Status.OFFLINE, {"code": "silent", "status": "OFFLINE", "message": "No heartbeat for 10 min."}
        else:
            message = f"CPU is at {dice.randrange(91, 96)} %."
            worse, why = Status.WARNING, {"code": "cpu_percent", "status": "WARNING", "message": message}
        flips.append(_flip(node, at, Status.ONLINE, worse, why))
        flips.append(_flip(node, at + timedelta(minutes=dice.uniform(4, 50)), worse, Status.ONLINE))
    if node.announced_status != Status.ONLINE:
        flips.append(_flip(node, node.announced_at, Status.ONLINE, Status(node.announced_status), _reason(host)))
    return sorted(flips, key=lambda flip: flip.at)


def _reason(host: Host) -> dict[str, str]:
    if host.silent:
        return {"code": "silent", "status": "OFFLINE", "message": "No heartbeat for 10 min."}
    for code, value, limits, label in (
        ("cpu_percent", host.cpu, (90, 97), "CPU"),
        ("memory_percent", host.memory, (90, 97), "Memory"),
        ("disk_percent", host.disk, (85, 95), "Disk"),
    ):
        if value >= limits[0]:
            status = "CRITICAL" if value >= limits[1] else "WARNING"
            return {"code": code, "status": status, "message": f"{label} is at {value:.0f} %."}
    return {}


def _flip(node: Node, at: datetime, before: Status, after: Status, *reasons: dict[str, str]) -> StatusFlip:
    return StatusFlip(node=node, at=at, before=before, after=after, reasons=list(reasons))
