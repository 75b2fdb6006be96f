"""Processes for benchmarks: our web process, peers from npm, each on a core of its own; and many nodes with tokens."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from agent.tests.ports import free_port
from bench.harness import ROOT, Context
from hyprbox.lib import seals

PEERS = ROOT / "bench" / "peers"
START_SECONDS = 30.0
# The server that is measured has one core; the database and whoever loads it share the others.
SERVER_CORES = {min(os.sched_getaffinity(0))}
OTHER_CORES = (os.sched_getaffinity(0) - SERVER_CORES) or SERVER_CORES


@dataclass(frozen=True)
class Server:
    url: str
    pid: int


def install_peers() -> None:
    """The peers' packages, once for each list of them. Raises `RuntimeError` where there is no Node."""
    if not shutil.which("npm"):
        raise RuntimeError("the peers of this benchmark need Node.js with npm")
    wanted = json.loads((PEERS / "package.json").read_text())["dependencies"]
    if not all((PEERS / "node_modules" / name).is_dir() for name in wanted):
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=PEERS, check=True, stdout=subprocess.DEVNULL)


def pin_postgres(context: Context) -> None:
    """The database off the server's core. Connections made from now on follow their postmaster."""
    pid = int((context.postgres.place.data / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in [pid, *map(int, children)]:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(process, OTHER_CORES)


@contextlib.contextmanager
def web(context: Context, url: str, **environment: str) -> Iterator[Server]:
    """One web process as production runs it."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "hyprbox.asgi:application", "--host", "127.0.0.1", "--port", str(port),
        "--http", "hyprbox.lib.protocol:Protocol", "--ws", "none", "--no-access-log", "--no-server-header", "--no-proxy-headers", "--log-level", "warning", "--backlog", "2048", "--timeout-graceful-shutdown", "2",
    ]  # fmt: skip
    more = {"HYPRBOX_PORT": str(port), "HYPRBOX_LOG_LEVEL": "WARNING", **environment}
    with _process(command, context.environment(url, **more)) as pid:
        server = Server(f"http://127.0.0.1:{port}", pid)
        _wait_until_up(f"{server.url}/healthz")
        yield server


@contextlib.contextmanager
def peer(script: str, **environment: str) -> Iterator[Server]:
    """A peer of `bench/peers`."""
    port = free_port()
    command = ["node", str(PEERS / script)]
    with _process(command, {**os.environ, "NODE_ENV": "production", "PORT": str(port), **environment}) as pid:
        _wait_until_up(f"http://127.0.0.1:{port}/healthz")
        yield Server(f"http://127.0.0.1:{port}", pid)


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, SERVER_CORES)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing answers at {url}")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class BenchNode:
    pk: uuid.UUID
    node_id: str
    token: str

    def heartbeat(self, **over: Any) -> str:
        """The body of a heartbeat as hyprnode sends it."""
        metrics = {
            "cpu_percent": 12.5, "memory_percent": 34.2, "disk_percent": 56.1, "load_1": 0.5, "load_5": 0.4, "load_15": 0.3,
            "swap_percent": 0, "memory_total_bytes": 17179869184, "disk_total_bytes": 214748364800, "net_rx_bps": 1234,
            "net_tx_bps": 2345, "disk_read_bps": 0, "disk_write_bps": 1000, "processes": 200, "uptime_seconds": 123456,
        }  # fmt: skip
        return json.dumps(
            {
                "node_id": self.node_id, "agent_version": "0.1.0", "interval_seconds": 10,
                "metrics": {**metrics, **over}, "sent_at": "2026-01-01T00:00:00.000000Z", "machine_id": self.pk.hex,
                "instance_id": self.pk.hex[::-1], "beat": 17,
            },
            separators=(",", ":"),
        )  # fmt: skip


def _token_row(node: BenchNode, key: bytes) -> tuple[Any, ...]:
    """The columns of a pinned token, and its seal."""
    pk, prefix, digest = uuid.uuid4(), node.token[5:13], hashlib.sha256(node.token.encode()).digest()
    fields = {"prefix": prefix, "digest": digest, "node_id": node.node_id, "node_pk": node.pk}
    fields |= {"expires_at": None, "revoked_at": None}
    return pk, prefix, digest, node.node_id, node.pk, seals.mac(key, "tokens_nodetoken", pk, 1, fields)


def make_fleet(folder: Path, url: str, number: int, *, first: int = 0) -> list[BenchNode]:
    """That many nodes that were seen before, each with a pinned token. `folder` is the var folder, with the seals' key."""
    letters = string.ascii_lowercase + string.digits
    key = bytes.fromhex((folder / "mac.key").read_text())
    fleet = []
    for index in range(first, first + number):
        prefix = "".join(secrets.choice(letters) for _ in range(8))
        fleet.append(BenchNode(uuid.uuid4(), f"node-{index:05d}", f"hbnt_{prefix}{secrets.token_urlsafe(32)}"))
    inventory = json.dumps({"hostname": "node", "os": "Debian GNU/Linux", "os_version": "13", "kernel": "6.12.0"})
    with psycopg.connect(url, autocommit=True) as conn, conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO nodes_node (id, node_id, display_name, "group", tags, notes, concurrency, region, agent_version,
                interval_seconds, first_seen_at, last_seen_at, metrics, inventory, machine_id, instance_id, announced_status)
            VALUES (%s, %s, '', '', '{}', '', 1, '', '', 60, now() - interval '8 days', now(), '{}', %s, %s, %s, 'ONLINE')
            """,
            [(node.pk, node.node_id, inventory, node.pk.hex, node.pk.hex[::-1]) for node in fleet],
        )
        cursor.executemany(
            """
            INSERT INTO tokens_nodetoken
                (id, name, prefix, digest, node_id, node_pk, created_by, mac, row_version)
            VALUES (%s, 'bench', %s, %s, %s, %s, 'bench', %s, 1)
            """,
            [_token_row(node, key) for node in fleet],
        )
        cursor.execute(
            """
            INSERT INTO audit_event
                (action, actor_kind, actor_id, actor_name, target, detail, ip, request_id, subject, subject_version, canonical)
            SELECT 'token.created', 'system', '', 'bench', 'token', '{}', '', '', 'tokens_nodetoken:' || id, 1, ''
            FROM tokens_nodetoken
            """
        )
    with psycopg.connect(url.replace("//hyprbox@", "//hyprbox_owner@"), autocommit=True) as owner:
        owner.execute("VACUUM ANALYZE nodes_node, tokens_nodetoken")
    return fleet
