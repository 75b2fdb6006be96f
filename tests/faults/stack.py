"""All of HyprBox as real processes that a test kills, cuts off and brings back: PostgreSQL, web, worker, agents."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from agent.tests.ports import free_port
from hyprbox.lib.postgres import EmbeddedPostgres
from tests.faults.child import Child, commands
from tests.faults.client import People
from tests.faults.proxy import Proxy
from tests.faults.witness_preset import ROOT_VARIABLE
from tests.folders import open_folder
from tests.house import EMAIL, PASSWORD, ROOT, clean_environment, wait_for


@dataclass
class Stack:
    root: Path
    nodes: tuple[str, ...] = ("north", "south")
    concurrency: int = 1
    seed: int = 0
    planted_bug: str = ""
    through_proxy: bool = True
    second_web: bool = False  # another web process on the same database; the proxy takes turns
    kills: Counter[str] = field(default_factory=Counter)
    killed_runners: set[str] = field(
        default_factory=set
    )  # the jobs whose runner we killed: nobody knows how they ended
    unasked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_token, self.secret_key = secrets.token_urlsafe(20), secrets.token_urlsafe(50)
        for name in ("var", "log", "hosts", "witness"):
            (self.root / name).mkdir()
        self.postgres = EmbeddedPostgres(self.root / "var")
        self.second_port = free_port() if self.second_web else 0
        self.proxy = Proxy(self.port, seed=self.seed, second_port=self.second_port)
        self.people = People(self.url)
        self.tokens: dict[str, str] = {}
        self.children: dict[str, Child] = {}

    # --- life ---

    def start(self) -> Stack:
        self.database_url = self.postgres.start()
        made = self._prepare()
        self.tokens = made["tokens"]
        self.proxy.start()
        self._add("web", ["-m", "uvicorn", "tests.faults.witness_preset:application", *_WEB, str(self.port)])
        if self.second_web:
            web = ["-m", "uvicorn", "tests.faults.witness_preset:application", *_WEB, str(self.second_port)]
            self._add("web-2", web)
        self._add("worker", ["manage.py", "worker"])
        if self.second_web:
            self._add("worker-2", ["manage.py", "worker"])
        for node in self.nodes:
            self._add(node, ["-m", "tests.faults.host"], self._agent_environment(node, made["keys_sha256"]))
        for child in self.children.values():
            child.start()
        self.wait_ready()
        return self

    def close(self) -> None:
        self.people.close()
        for child in reversed(self.children.values()):
            child.end()
        self.proxy.stop()
        for pid in [*self.runners().values(), *self.job_processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.postgres.destroy()

    def environment(self, **more: str) -> dict[str, str]:
        ours = {
            "HYPRBOX_VAR_DIR": str(self.root / "var"),
            "HYPRBOX_PORT": str(self.port),
            "DATABASE_URL": self.database_url,
            "DJANGO_SETTINGS_MODULE": "hyprbox.settings",
            "HYPRBOX_ADMIN_EMAIL": EMAIL,
            "HYPRBOX_ADMIN_PASSWORD": PASSWORD,
            "HYPRBOX_METRICS_TOKEN": self.metrics_token,
            "HYPRBOX_SECRET_KEY": self.secret_key,
            ROOT_VARIABLE: str(self.root),
        }
        return clean_environment(**ours, **self._test_switches(), **more)

    def _test_switches(self) -> dict[str, str]:
        return {"HYPRBOX_TEST": "1", **({"HYPRBOX_PLANTED_BUG": self.planted_bug} if self.planted_bug else {})}

    def _agent_environment(self, node: str, keys_sha256: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HYPRBOX_API_URL": self.proxy.url if self.through_proxy else self.url,
            "HYPRBOX_NODE_ID": node,
            "HYPRBOX_NODE_TOKEN": self.tokens[node],
            "HYPRBOX_KEYS_SHA256": keys_sha256,
            "HYPRBOX_INTERVAL": "1s",
            "HYPRBOX_STATE_DIR": str(self.state_dir(node)),
            "HYPRBOX_LOG_LEVEL": "DEBUG",
            **self._test_switches(),
        }

    def _prepare(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.faults.prepare", str(self.concurrency), *self.nodes]
        done = subprocess.run(command, env=self.environment(), cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return made

    def _add(self, name: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
        log = self.root / "log" / f"{name}.log"
        given = self.environment() if environment is None else environment
        self.children[name] = Child(name, [sys.executable, *arguments], given, log)

    def wait_ready(self, seconds: float = 60) -> None:
        wait_for(self.is_ready, seconds=seconds, why=f"the web process is ready\n{self.last_words()}")

    def is_ready(self) -> bool:
        ports = [port for port in (self.port, self.second_port) if port]
        with suppress(httpx.HTTPError):
            return all(httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200 for port in ports)
        return False

    # --- killing and bringing back ---

    def kill(self, name: str) -> None:
        """SIGKILL to web, worker or an agent."""
        if self.children[name].end(signal.SIGKILL) is not None:
            self.kills["agent" if name in self.nodes else name] += 1

    def crash(self, name: str, point: str, **more: str) -> None:
        """Start `name` again so that it dies at `point`."""
        self.children[name].end(signal.SIGKILL)
        self.children[name].start(HBX_CRASH_AT=point, **more)

    def crashed(self, name: str, seconds: float = 30) -> None:
        """It did die there; bring it back as it was."""
        code = self.children[name].wait_dead(seconds)
        assert code == -signal.SIGKILL, f"{name} ended with {code} and not at its crash point\n{self.last_words()}"
        self.kills["agent" if name in self.nodes else name] += 1
        self.children[name].start()

    def restart(self, name: str) -> None:
        self.children[name].end()
        self.children[name].start()

    def kill_postgres(self) -> None:
        """SIGKILL to the postmaster; `bring_back` starts it again."""
        pid = int((self.postgres.place.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        self.kills["postgres"] += 1

    def bring_back(self) -> None:
        """Start whoever is not there, as a supervisor does; who died by itself is noted."""
        if self.postgres.has_died():
            self.postgres.start()
        for child in self.children.values():
            if not child.is_alive:
                if child.died_unasked:
                    self.unasked.append(child.died_unasked)
                child.process = None
                child.start()

    def kill_runner(self, job_id: str) -> bool:
        pid = self.runners().get(job_id)
        if pid is None:
            return False
        self.killed_runners.add(job_id)  # before: the job may end in this very moment
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills["runner"] += 1
        return True

    def kill_host(self, node: str) -> None:
        """All of one host at once: its agent, its runners and what they started."""
        self.kill(node)
        folder = f"{self.state_dir(node)}/jobs/"
        running = {job_id: pid for job_id, pid in self.runners().items() if Path(folder, job_id).exists()}
        self.killed_runners |= set(running)
        for pid in [*running.values(), *self.job_processes(set(running))]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills["runner"] += len(running)

    # --- looking ---

    def state_dir(self, node: str) -> Path:
        return self.root / "hosts" / node / "state"

    def runners(self) -> dict[str, int]:
        """Living runners of ours by job."""
        found = {}
        for pid, command in commands():
            if command[-1].startswith(f"{self.root}/hosts/") and any("agent.runner" in part for part in command):
                found[Path(command[-1]).name] = pid
        return found

    def job_processes(self, job_ids: set[str] | None = None) -> list[int]:
        """Living processes that a job of ours started (or one of `job_ids`), by what their environment says."""
        wanted = job_ids if job_ids is not None else self.all_job_ids()
        marks = {f"HYPRBOX_JOB_ID={job_id}".encode() for job_id in wanted}
        found = []
        for pid, _ in commands():
            with suppress(OSError):
                if marks & set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                    found.append(pid)
        return found

    def all_job_ids(self) -> set[str]:
        known = {asked.job_id for asked in self.people.asked.values() if asked.job_id}
        return known | {path.name for path in self.root.glob("hosts/*/state/jobs/*")}

    def sql(self, statement: str, *values: Any, as_owner: bool = False) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.owner_url if as_owner else self.database_url, autocommit=True) as conn:
            cursor = conn.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def last_words(self) -> str:
        logs = sorted((self.root / "log").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2500:]}" for log in logs)


_WEB = [
    "--host",
    "127.0.0.1",
    "--ws",
    "none",
    "--no-access-log",
    "--no-proxy-headers",
    "--timeout-graceful-shutdown",
    "2",
    "--port",
]


@contextmanager
def stack(**options: Any) -> Iterator[Stack]:
    """Started; whatever happens, nothing of it is left at the end."""
    with open_folder("faults") as folder:
        made = Stack(folder, **options)
        try:
            yield made.start()
        finally:
            made.close()


def settled(made: Stack, *, seconds: float = 90) -> None:
    """Wait until every job that is known has ended; what has not by then is the checker's to find."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(psycopg.Error):
            if not made.sql("SELECT 1 FROM jobs_job WHERE status IN ('QUEUED', 'RUNNING') LIMIT 1"):
                break
        time.sleep(0.2)
