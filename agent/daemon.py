"""hyprnode: heartbeats, waiting for work, and one delivery per job.

It only dials out. Jobs run in processes of their own (`agent.runner`), so that stopping, upgrading or
killing this one neither ends nor repeats them.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from agent import __version__, config, processes
from agent.client import Backoff, CallFailed, Client
from agent.config import BadSetting, Config
from agent.doctor import beat_once, doctor
from agent.heart import Heart
from agent.journal import JobFolder
from agent.keys import MAX_CLOCK_SKEW_SECONDS
from agent.log import Log, take_over_tracebacks
from agent.state import AlreadyRunning, StateDir
from agent.witness import Witness
from agent.work import Work

STOP_JOBS_SECONDS = 14.0  # below the unit's TimeoutStopSec
STOP_SECONDS = 5.0
WARN_SKEW_SECONDS = 300.0
EXIT_USAGE, EXIT_LOCKED = 64, 75


class Agent:
    def __init__(self, settings: Config) -> None:
        self.settings = settings
        self.log = Log(settings.log_level)
        self.state = StateDir(settings.state_dir)
        self.heart = Heart(settings, self.state)
        self.stop = threading.Event()
        self._clock_is_off = False
        self.work = Work(settings, self.state, self.heart, self.log, self.stop)
        self.witness = Witness(settings.state_dir, self.work.keys, self.log)

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        self.log.info("agent.started", version=__version__, node=self.settings.node_id, url=self.settings.api_url)
        first_beat = threading.Event()
        threading.Thread(target=self.work.run, args=(first_beat,), name="work", daemon=True).start()
        self._beat_until_stopped(first_beat)
        if self.settings.stop_jobs:
            self._stop_jobs()
        self.work.join(STOP_SECONDS)
        self.log.info("agent.stopped", jobs_left_running=sum(1 for _ in self.work.journal.unfinished()))

    def _stop_jobs(self) -> None:
        """Cancel what runs and wait until it is gone: ten seconds of grace, then the runners kill."""
        folders = [
            folder for folder in self.work.journal.unfinished() if folder.may_have_run and not folder.has("result")
        ]
        for folder in folders:
            folder.request_cancel()
        deadline = time.monotonic() + STOP_JOBS_SECONDS
        while time.monotonic() < deadline and any(_has_runner(folder) for folder in folders):
            time.sleep(0.05)

    def _mind_the_clock(self) -> None:
        offset = self.heart.clock_offset
        is_off = abs(offset) > WARN_SKEW_SECONDS
        if is_off and not self._clock_is_off:
            refuses = abs(offset) > MAX_CLOCK_SKEW_SECONDS
            self.log.warning("agent.clock_off", seconds=round(offset), jobs_refused=refuses)
        self._clock_is_off = is_off

    def _beat_until_stopped(self, first_beat: threading.Event) -> None:
        client, backoff = Client(self.settings), Backoff()
        interval = float(self.settings.interval)
        while not self.stop.is_set():
            began = time.monotonic()
            wait = interval
            fork = self.witness.untold()
            try:
                answer = self.heart.beat(client, fork)
                if not first_beat.is_set():
                    self.log.info("agent.first_heartbeat")
                    self.state.note_accepted()
                first_beat.set()
                self._mind_the_clock()
                backoff.succeeded()
                wanted = answer.get("next_interval_seconds")
                interval = float(self.settings.interval)
                if isinstance(wanted, (int, float)) and 1 <= wanted <= 3600:
                    interval = float(wanted)
                wait = interval - (time.monotonic() - began)
                if fork is not None:
                    self.witness.told()
                self.witness.note(answer.get("audit_checkpoint"))
            except CallFailed as error:
                self.log.warning("heartbeat.failed", error=str(error))
                wait = backoff.failed(error)
                if fork is not None and error.status == 400:  # an older server: it must not think that we are dead
                    self.witness.told()
            except Exception as error:  # noqa: BLE001 - a full disk, an odd /proc: silence would look like a dead host
                self.log.error("heartbeat.broken", error=repr(error))
                wait = interval
            self.stop.wait(max(0.05, wait))
        client.close()


def _has_runner(folder: JobFolder) -> bool:
    record = folder.read("exec")
    return record is not None and processes.is_alive(int(record["pid"]), int(record["start_time"]))


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `hyprnode`."""
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    if given["command"] in ("install", "uninstall"):
        return _set_up(given["command"], given["force"])
    try:
        settings = config.load(given["flags"])
        if given["command"] == "doctor":
            return doctor(settings)
        if given["command"] == "once":
            return beat_once(settings)
        take_over_tracebacks(Log(settings.log_level))
        Agent(settings).run()
    except BadSetting as error:
        print(f"hyprnode: {error}", file=sys.stderr)
        return EXIT_USAGE
    except AlreadyRunning as error:
        print(f"hyprnode: {error}", file=sys.stderr)
        return EXIT_LOCKED
    return 0


def _set_up(command: str, force: bool) -> int:
    from agent import installing, removing  # not in the memory of a process that idles for years

    try:
        if command == "install":
            print(f"hyprnode: {installing.install(Path(sys.argv[0]))}")
        else:
            print(f"hyprnode: {removing.uninstall(force=force)}")
    except (BadSetting, installing.CannotInstall) as error:
        print(f"hyprnode: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments(arguments: list[str]) -> dict[str, Any]:
    """Flags override the environment. argparse, because click would cost memory in a process that idles for years."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="hyprnode", description="The HyprBox agent: reports on this server and runs its jobs."
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["run", "doctor", "install", "uninstall"],
        default="run",
        help="run (default); doctor: check the set-up; install, uninstall: put this file on the server, or remove it",
    )
    parser.add_argument("--force", action="store_true", help="uninstall although jobs run")
    parser.add_argument("--once", action="store_true", help="send one heartbeat and end")
    parser.add_argument("--version", action="version", version=f"hyprnode {__version__}")
    for name in config.NAMES:
        flag = "--" + name[len("HYPRBOX_") :].lower().replace("_", "-")
        if name != "HYPRBOX_NODE_TOKEN":  # a secret does not belong where `ps` shows it
            parser.add_argument(flag, dest=name, metavar="VALUE", help=f"instead of {name}")
    parsed = vars(parser.parse_args(arguments))
    command = "once" if parsed.pop("once") else parsed.pop("command")
    parsed.pop("command", None)
    return {"command": command, "force": parsed.pop("force"), "flags": parsed}


if __name__ == "__main__":
    sys.exit(main())
