"""Packs the agent's file beside a running `up`, so that a newcomer can enrol a second server without a further step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from hyprbox.management import agent_file
from hyprbox.management.options import BASE_DIR
from hyprbox.management.supervisor import Say

_GONE_SECONDS = 2  # how long an end may take: where nobody reaps orphans, one would stay for ever


class Packing:
    """One run of script/build-agent at the lowest priority: it fetches packages, and a start must not wait for it."""

    def __init__(self, log: Path, say: Say) -> None:
        self._log = log
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Nothing to do when the file is there and was made from this checkout."""
        if agent_file.is_current():
            return
        self._say("Packing the agent for other servers in the background …")
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                ["nice", "-n", "19", sys.executable, "-m", "hyprbox.management.agent_file"],
                cwd=BASE_DIR,
                env={**os.environ, agent_file.PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def look(self) -> None:
        """Say how it ended, once."""
        if self._process is None or self._process.poll() is None:
            return
        if self._process.returncode == 0:
            self._say("The agent is packed: the command of a new token enrols a server.")
        else:
            self._say(f"The agent could not be packed, see {self._log}; script/build-agent tries again.")
        self._process = None

    def stop(self) -> None:
        """The file is replaced at the very end, so ending it at any moment does no harm."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            deadline = time.monotonic() + _GONE_SECONDS
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, 0)  # raises when the last one of the group, such as pip, is gone as well
                time.sleep(0.01)
