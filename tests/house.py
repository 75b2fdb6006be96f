"""All of HyprBox as real processes, for tests: `manage.py up` on a folder and a port of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from agent.tests.ports import free_port
from hyprbox.lib.postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery staple"
EMAIL = "ada@example.com"
SEEN = ("ONLINE", "WARNING", "CRITICAL")  # a machine that runs tests may well be short of CPU


def wait_for(what: Callable[[], object], *, seconds: float = 30, why: str = "") -> None:
    """Poll until `what()` is true. Raises AssertionError after the given time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s: {why or what}"
        time.sleep(0.05)


def clean_environment(**more: str) -> dict[str, str]:
    """This process' environment without what conftest set for the test run's own database."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("HYPRBOX_", "DJANGO_"))}
    mine.pop("DATABASE_URL", None)
    return {**mine, **more}


class House:
    """One `up` on one folder. Started and stopped at will; `close()` leaves nothing."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output: list[str] = []
        self._flags = flags
        ours = {"HYPRBOX_ADMIN_EMAIL": EMAIL, "HYPRBOX_ADMIN_PASSWORD": PASSWORD, "HYPRBOX_INTERVAL": "1s"}
        self._environment = clean_environment(**{**ours, **environment})
        self.process: subprocess.Popen[str] | None = None

    def environment(self) -> dict[str, str]:
        """For management commands and scripts beside the running house."""
        postgres = EmbeddedPostgres(self.folder)
        settings = {"HYPRBOX_VAR_DIR": str(self.folder), "HYPRBOX_PORT": str(self.port), "DATABASE_URL": postgres.url}
        return clean_environment(**settings, DJANGO_SETTINGS_MODULE="hyprbox.settings")

    def launch(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(self.port), "--var", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, *self._flags],
            env=self._environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = []
        threading.Thread(target=self._read, args=(self.process, self.output), daemon=True).start()
        return self.process

    @staticmethod
    def _read(process: subprocess.Popen[str], output: list[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            output.extend(iter(lines.readline, ""))

    def start(self) -> House:
        """Launch, and wait until it says that it is ready."""
        process = self.launch()
        wait_for(lambda: self.said("HyprBox is ready") or process.poll() is not None, seconds=90)
        assert process.poll() is None, self.text
        return self

    def end(self, number: int = signal.SIGINT) -> int:
        """Ask it to stop; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    @property
    def text(self) -> str:
        return "".join(self.output)

    def said(self, words: str) -> bool:
        return words in self.text

    def is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def processes(self) -> list[psutil.Process]:
        """All that belongs to this folder, whoever its parent is by now."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        # Newest psutil raises for what ends meanwhile, and for zombies, which are nobody's business here.
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                return False
            if Path(process.cwd()).is_relative_to(self.folder):
                return True
            return process.environ().get("HYPRBOX_VAR_DIR") == str(self.folder) or str(self.folder) in process.cmdline()
        return False

    def matching(self, pattern: str) -> list[psutil.Process]:
        """The processes of this house whose command line matches."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):  # it has ended since
                if re.search(pattern, " ".join(process.cmdline())):
                    found.append(process)
        return found

    def has(self, pattern: str) -> bool:
        return bool(self.matching(pattern))

    def last_words(self) -> str:
        """The ends of all logs, for the report of a test that failed."""
        logs = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def find(self, pattern: str) -> psutil.Process:
        """The one process that matches."""
        found = self.matching(pattern)
        assert len(found) == 1, [process.cmdline() for process in found]
        return found[0]

    def kill_everything(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process:
            self.process.wait(timeout=10)
        wait_for(lambda: not self.processes(), seconds=10)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.end(signal.SIGTERM)
        self.kill_everything()

    @contextmanager
    def api(self, *, password: str = PASSWORD) -> Iterator[httpx.Client]:
        """An API client of the admin."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            given = {"email": EMAIL, "password": password}
            answer = client.post("/api/auth/login", json=given)
            if answer.status_code == 429:  # ten a minute: quick tests that share a house ask more often
                time.sleep(int(answer.headers["Retry-After"]) + 1)
                answer = client.post("/api/auth/login", json=given)
            assert answer.status_code == 200, answer.text
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {answer.json()['access']}"
            yield client


@contextmanager
def house(folder: Path, *flags: str, **environment: str) -> Iterator[House]:
    """Not started yet; whatever happens, nothing of it is left at the end."""
    made = House(folder, *flags, **environment)
    try:
        yield made
    finally:
        made.close()
