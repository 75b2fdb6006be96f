"""What the agent's tests share. They run where Django is not installed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.tests import cli_plane as cli_plane_module
from agent.tests.clirun import Run
from agent.tests.plane import Plane

ROOT = Path(__file__).resolve().parents[2]


class AgentProcess:
    """A real `hyprnode` against the small control plane."""

    def __init__(self, plane: Plane, folder: Path) -> None:
        self.plane = plane
        self.state_dir = folder / "state"
        self.log_path = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self, **over: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HYPRBOX_API_URL": self.plane.url,
            "HYPRBOX_NODE_ID": self.plane.node_id,
            "HYPRBOX_NODE_TOKEN": self.plane.token,
            "HYPRBOX_KEYS_SHA256": self.plane.keys_sha256,
            "HYPRBOX_INTERVAL": "1s",
            "HYPRBOX_STATE_DIR": str(self.state_dir),
            "HYPRBOX_LOG_LEVEL": "DEBUG",
            "HYPRBOX_TEST": "1",
            **over,
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "agent.daemon", *arguments]

    def start(self, **over: str) -> AgentProcess:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.environment(**over), cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        return self

    def run(self, *arguments: str, **over: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**over),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def kill(self) -> None:
        """As by power cut: no chance to say good-bye."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def wait_dead(self, seconds: float = 15.0) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane()
    yield plane
    plane.stop()


@pytest.fixture
def agent_process(plane: Plane, tmp_path: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(plane, tmp_path)
    yield agent
    if agent.process is not None:
        if agent.process.poll() is None:
            agent.process.kill()
        agent.process.wait(10)
    end_all(str(agent.state_dir))


def living(text: str) -> list[int]:
    """Processes with `text` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def end_all(text: str) -> None:
    """Kill processes with `text` in their command line; one may end by itself meanwhile."""
    for pid in living(text):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(condition: Any, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return value


@pytest.fixture
def cli_plane() -> Iterator[cli_plane_module.Plane]:
    made = cli_plane_module.Plane()
    yield made
    made.stop()


@pytest.fixture
def shell(cli_plane: cli_plane_module.Plane, tmp_path: Path) -> cli_plane_module.Shell:
    """Someone who is logged in."""
    made = cli_plane_module.Shell(cli_plane, tmp_path)
    made.save_login()
    return made


@pytest.fixture
def run(shell: cli_plane_module.Shell, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Run:
    return Run(shell, monkeypatch, capfdbinary)
