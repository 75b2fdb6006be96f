"""hyprnode: heartbeats, waiting for work, and one delivery per job.

It only dials out. Jobs run in processes of their own (`agent.runner`), so that stopping, upgrading or
killing this one neither ends nor repeats them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from agent import __version__, config, processes, secretrefs
from agent.client import Backoff, CallFailed, Client
from agent.config import BadSetting, Config
from agent.crash import crash_point
from agent.delivery import Delivery, end_without_run
from agent.journal import JobFolder, Journal
from agent.keys import KeyRing, KeysUntrusted, Refused
from agent.log import Log
from agent.metrics import Meter, inventory, machine_id
from agent.wire import Malformed, Offer, now_text, parse_offer, parse_time

WAIT_SECONDS = 25
SPREAD_SECONDS = 30.0
INVENTORY_SECONDS = 300.0
STOP_JOBS_SECONDS = 14.0  # below the unit's TimeoutStopSec
MIN_FREE_BYTES = 200 * 1024 * 1024
EXIT_USAGE, EXIT_UNREACHABLE, EXIT_LOCKED = 64, 69, 75


class AlreadyRunning(Exception):
    """Another agent uses this state directory."""


class StateDir:
    """The agent's folder, locked: exactly one agent per host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadSetting(f"HYPRBOX_STATE_DIR {path} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Another agent runs with the state directory {path}.") from None

    def next_beat(self) -> int:
        """A counter over restarts: two machines with one identity show as beats that go back."""
        path = self.path / "beat"
        try:
            last = int(path.read_text())
        except (OSError, ValueError):
            last = 0
        temporary = path.with_suffix(".new")
        temporary.write_text(str(last + 1))
        os.rename(temporary, path)
        return last + 1

    def instance_id(self) -> str:
        path = self.path / "instance"
        try:
            return path.read_text().strip()
        except OSError:
            text = uuid.uuid4().hex
            path.write_text(text)
            return text

    def spool_problem(self) -> str:
        """Why no job can be taken; empty when the disk takes a synced record and has room."""
        probe = self.path / "probe"
        try:
            with open(probe, "wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            facts = os.statvfs(self.path)
        except OSError as error:
            return f"spool_unwritable: {error.strerror}"
        free = facts.f_bavail * facts.f_frsize
        if free < min(MIN_FREE_BYTES, facts.f_blocks * facts.f_frsize // 20):
            return f"spool_unwritable: only {free // 1024 // 1024} MiB free"
        return ""


class Heart:
    """Heartbeats: metrics every interval, the inventory first and when it changes."""

    def __init__(self, settings: Config, state: StateDir) -> None:
        self._settings, self._state = settings, state
        self._meter = Meter()
        self._machine_id = machine_id()
        self._instance_id = state.instance_id()
        self._sent_inventory: dict[str, Any] | None = None
        self._looked_at = 0.0
        self.clock_offset = 0.0

    def beat(self, client: Client) -> dict[str, Any]:
        """Send one. Raises `CallFailed`."""
        body: dict[str, Any] = {
            "node_id": self._settings.node_id,
            "agent_version": __version__,
            "interval_seconds": self._settings.interval,
            "metrics": self._meter.read(),
            "sent_at": now_text(),
            "machine_id": self._machine_id,
            "instance_id": self._instance_id,
            "beat": self._state.next_beat(),
        }
        fresh = self._changed_inventory()
        if fresh is not None:
            body["inventory"] = fresh
        sent = time.time()
        answer = client.post("/api/nodes/heartbeat", body)
        self._note_clock(answer.get("server_time"), sent, time.time())
        if fresh is not None:
            self._sent_inventory = fresh
        return answer

    def _changed_inventory(self) -> dict[str, Any] | None:
        now = time.monotonic()
        if self._sent_inventory is not None and now - self._looked_at < INVENTORY_SECONDS:
            return None
        self._looked_at = now
        found = inventory(self._settings.region)
        return None if found == self._sent_inventory else found

    def _note_clock(self, server_time: Any, sent: float, received: float) -> None:
        with contextlib.suppress(Malformed):  # an older server: no judgement about the clock
            self.clock_offset = (sent + received) / 2 - parse_time(server_time).timestamp()


class Agent:
    def __init__(self, settings: Config) -> None:
        self.settings = settings
        self.log = Log(settings.log_level)
        self.state = StateDir(settings.state_dir)
        self.journal = Journal(settings.state_dir)
        self.keys = KeyRing(settings.state_dir, settings.keys_sha256)
        self.heart = Heart(settings, self.state)
        self.stop = threading.Event()
        self._deliveries: dict[str, Delivery] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._reconcile_next = True
        self._request_id = ""

    # --- life ---

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        self.log.info("agent.started", version=__version__, node=self.settings.node_id, url=self.settings.api_url)
        first_beat = threading.Event()
        work = threading.Thread(target=self._work, args=(first_beat,), name="work", daemon=True)
        work.start()
        self._beat_until_stopped(first_beat)
        if self.settings.stop_jobs:
            self._stop_jobs()
        for thread in [*self._threads]:
            thread.join(5.0)
        self.log.info("agent.stopped", jobs_left_running=sum(1 for _ in self.journal.unfinished()))

    def _stop_jobs(self) -> None:
        """Cancel what runs and wait until it is gone: ten seconds of grace, then the runners kill."""
        folders = [folder for folder in self.journal.unfinished() if folder.has("exec") and not folder.has("result")]
        for folder in folders:
            folder.request_cancel()
        deadline = time.monotonic() + STOP_JOBS_SECONDS
        while time.monotonic() < deadline and any(_has_runner(folder) for folder in folders):
            time.sleep(0.05)

    def _beat_until_stopped(self, first_beat: threading.Event) -> None:
        client, backoff = Client(self.settings), Backoff()
        interval = float(self.settings.interval)
        while not self.stop.is_set():
            began = time.monotonic()
            wait = interval
            try:
                answer = self.heart.beat(client)
                if not first_beat.is_set():
                    self.log.info("agent.first_heartbeat")
                first_beat.set()
                backoff.succeeded()
                wanted = answer.get("next_interval_seconds")
                interval = float(self.settings.interval)
                if isinstance(wanted, (int, float)) and 1 <= wanted <= 3600:
                    interval = float(wanted)
                wait = interval - (time.monotonic() - began)
            except CallFailed as error:
                self.log.warning("heartbeat.failed", error=str(error))
                wait = backoff.failed(error)
            self.stop.wait(max(0.05, wait))
        client.close()

    # --- work ---

    def _work(self, first_beat: threading.Event) -> None:
        """Recover what an earlier agent left, then wait for work for ever."""
        for folder in list(self.journal.unfinished()):
            self._deliver(folder)
        self.journal.forget_old()
        client, backoff = Client(self.settings), Backoff()
        while not first_beat.wait(0.2):  # the first heartbeat may have to pin the token
            if self.stop.is_set():
                return
        self._reconcile_next, self._request_id, forget_at = True, str(uuid.uuid4()), time.monotonic() + 3600
        while not self.stop.is_set():
            pause = 1.0
            try:
                pause = self._one_poll(client)
                backoff.succeeded()
            except CallFailed as error:
                if not backoff.is_failing:
                    self.log.warning("poll.failed", error=str(error))
                self._reconcile_next = True
                pause = backoff.failed(error)
                if error.status == 0 or error.status >= 500:
                    # After an outage everybody comes back: not all in the same second.
                    pause += random.uniform(0, min(SPREAD_SECONDS, pause))
            except Exception as error:  # noqa: BLE001 - nonsense from the server must not end the agent
                self.log.error("poll.nonsense", error=repr(error))
            if time.monotonic() > forget_at:
                self.journal.forget_old()
                forget_at = time.monotonic() + 3600
            self.stop.wait(pause)

    def _one_poll(self, client: Client) -> float:
        """One question and what follows from its answer; returns how long to wait. Raises `CallFailed`."""
        reconcile = self._reconcile_next
        if (reconcile or not self.keys.is_pinned) and not self._look_at_keys(client):
            return 60.0
        problem = self.state.spool_problem() if reconcile else ""
        if problem:
            self.log.error("agent.not_taking_jobs", why=problem)
            return 30.0
        answer = self._poll(client, self._request_id, reconcile)
        if reconcile:
            self._reconcile(answer.get("holding") or [])
            self._reconcile_next = False
        for job_id in answer.get("cancel") or []:
            self._cancel(str(job_id))
        if answer.get("job") is not None:
            self._take(answer["job"], self._request_id)
            self._request_id = str(uuid.uuid4())
        return min(60.0, max(0, int(answer.get("poll_after_ms") or 0)) / 1000)

    def _look_at_keys(self, client: Client) -> bool:
        """Pin the keys, or take a lawful successor of the pinned set. False when there is nothing to trust."""
        try:
            if self.keys.offer(client.get("/api/agent/keys")):
                self.log.info("agent.keys_pinned")
        except KeysUntrusted as error:
            self.log.error("agent.keys_untrusted", why=str(error))
        return self.keys.is_pinned

    def _poll(self, client: Client, request_id: str, reconcile: bool) -> dict[str, Any]:
        query = {
            "node_id": self.settings.node_id,
            "request_id": request_id,
            "wait": 0 if reconcile else WAIT_SECONDS,
            "reconcile": int(reconcile),
        }
        return client.get("/api/jobs/pending", query, timeout=WAIT_SECONDS + 10.0)

    def _take(self, data: Any, request_id: str) -> None:
        """Check a job that was handed out; journal it before anything is said about it."""
        try:
            offer = parse_offer(data)
        except Malformed as error:
            self.log.error("job.malformed", error=str(error))
            return
        folder = self.journal.folder(offer.job_id)
        known = folder.read("intent")
        if folder.has("exec") or folder.has("closed") or (known is not None and known["claim_id"] == offer.claim_id):
            self.log.warning("job.seen_before", job=offer.job_id)
            self._answer_seen(folder, offer, known)
            return
        crash_point("CP05")
        try:
            payload = self._checked(offer)
            secrets = secretrefs.resolve(payload.secrets, self._secret_environment())
            refusal = ""
        except Refused as error:
            self.log.error("job.refused", job=offer.job_id, reason=error.reason, why=str(error))
            refusal, secrets = error.reason, {}
        except secretrefs.Unresolved as error:
            self.log.error("job.secret_unresolved", job=offer.job_id, why=str(error))
            refusal, secrets = "secret_unresolved", {}
        folder.create()
        folder.write(
            "intent",
            {
                "claim_id": offer.claim_id,
                "request_id": request_id,
                "payload": data["payload"],
                "signature": data["signature"],
                "key_id": offer.key_id,
                "at": time.time(),
            },
        )
        if refusal:
            folder.write("result", end_without_run(refusal))
        self._deliver(folder, secrets)

    def _checked(self, offer: Offer) -> Any:
        try:
            return self._check(offer)
        except Refused as error:
            if error.reason != "signature_invalid":
                raise
            # The key may have been rotated lawfully since we pinned ours.
            client = Client(self.settings)
            try:
                if not self.keys.offer(client.get("/api/agent/keys")):
                    raise
            except (CallFailed, KeysUntrusted):
                raise error from None
            finally:
                client.close()
            return self._check(offer)

    def _check(self, offer: Offer) -> Any:
        return self.keys.check(offer, node_id=self.settings.node_id, clock_offset=self.heart.clock_offset)

    def _secret_environment(self) -> dict[str, str]:
        return {**config.read_env_file(config.ENV_FILE), **os.environ}

    def _answer_seen(self, folder: JobFolder, offer: Offer, known: dict[str, Any] | None) -> None:
        """A job that was executed is never executed again, whatever the server says; it hears how it ended."""
        if offer.job_id in self._deliveries:
            return
        if known is not None and known["claim_id"] == offer.claim_id:
            self._deliver(folder)
            return
        other = self.journal.folder(offer.job_id)
        client = Client(self.settings)
        try:
            body = {"claim_id": offer.claim_id, **end_without_run("signature_invalid")}
            client.post(f"/api/jobs/{other.job_id}/complete", body)
        except CallFailed as error:
            self.log.warning("job.refusal_failed", job=offer.job_id, error=str(error))
        finally:
            client.close()

    def _reconcile(self, holding: list[Any]) -> None:
        """Jobs that the server thinks we run but our journal does not know: nobody can say how they ended."""
        for held in holding:
            job_id = str(held.get("id"))
            if held.get("cancel_requested"):
                self._cancel(job_id)
            folder = self.journal.folder(job_id)
            if held.get("status") != "RUNNING" or folder.has("intent"):
                continue
            folder.create()
            folder.write("intent", {"claim_id": str(held.get("claim_id")), "payload": "", "at": time.time()})
            folder.write("result", {**end_without_run("agent_error"), "outcome_unknown": True})
            self._deliver(folder)

    def _cancel(self, job_id: str) -> None:
        delivery = self._deliveries.get(job_id)
        if delivery is not None:
            delivery.cancel()

    def _deliver(self, folder: JobFolder, secrets: dict[str, str] | None = None) -> None:
        if secrets is None and not folder.has("exec") and not folder.has("result"):
            secrets = self._secrets_again(folder)
            if secrets is None:
                folder.write("result", end_without_run("secret_unresolved"))
        delivery = Delivery(folder, Client(self.settings), stop=self.stop, log=self.log, secrets=secrets)
        with self._lock:
            self._deliveries[folder.job_id] = delivery
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._run_delivery, args=(delivery,), name=f"job-{folder.job_id}")
            thread.daemon = True
            self._threads.append(thread)
        thread.start()

    def _secrets_again(self, folder: JobFolder) -> dict[str, str] | None:
        """After a restart between intent and start: the pointers are resolved anew."""
        intent = folder.read("intent") or {}
        try:
            offer = parse_offer(
                {
                    "id": folder.job_id,
                    "claim_id": intent.get("claim_id"),
                    "payload": intent.get("payload"),
                    "signature": intent.get("signature"),
                    "key_id": intent.get("key_id"),
                }
            )
            payload = self._check(offer)
            return secretrefs.resolve(payload.secrets, self._secret_environment())
        except (Malformed, Refused, secretrefs.Unresolved) as error:
            self.log.error("job.cannot_start", job=folder.job_id, why=str(error))
            return None

    def _run_delivery(self, delivery: Delivery) -> None:
        self.log.info("job.taken", job=delivery.job_id)
        try:
            delivery.run()
        except Exception as error:  # noqa: BLE001 - one broken job must not end the agent; the next start resumes it
            self.log.error("job.delivery_failed", job=delivery.job_id, error=repr(error))
        finally:
            delivery.client.close()
            with self._lock:
                self._deliveries.pop(delivery.job_id, None)
        self.log.info("job.done", job=delivery.job_id)


def _has_runner(folder: JobFolder) -> bool:
    record = folder.read("exec")
    return record is not None and processes.is_alive(int(record["pid"]), int(record["start_time"]))


def beat_once(settings: Config) -> int:
    """`hyprnode --once`: one heartbeat, one line, an exit code."""
    client = Client(settings)
    try:
        Heart(settings, StateDir(settings.state_dir)).beat(client)
    except CallFailed as error:
        print(f"hyprnode: the heartbeat was not accepted: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE if error.status == 0 or error.status >= 500 else 1
    print(f"hyprnode: heartbeat of {settings.node_id} accepted by {settings.api_url}.")
    return 0


def doctor(settings: Config) -> int:
    """`hyprnode doctor`: can this agent do its work? One line each, exit 1 when something cannot."""
    client = Client(settings)
    problems = 0

    def line(ok: bool, text: str) -> None:
        nonlocal problems
        problems += not ok
        print(("ok    " if ok else "FAIL  ") + text)

    line(True, f"settings: {settings.node_id} at {settings.api_url}, every {settings.interval} s")
    line(os.geteuid() == 0, "runs as root" if os.geteuid() == 0 else "not root: most presets need it")
    try:
        state: StateDir | None = StateDir(settings.state_dir)
        problem = state.spool_problem() if state else ""
        line(not problem, problem or f"state directory {settings.state_dir} is writable")
    except AlreadyRunning:
        line(True, f"an agent runs with {settings.state_dir}")
    except BadSetting as error:
        line(False, str(error))
    line(Path("/bin/bash").exists(), "/bin/bash is there")
    try:
        answer = client.get("/api/agent/keys")
        line(True, f"the control plane answers, key set version {answer.get('version')}")
        try:
            KeyRing(settings.state_dir, settings.keys_sha256).offer(answer)
            line(True, "its keys are the trusted ones")
        except (KeysUntrusted, OSError) as error:
            line(False, f"its keys: {error}")
        query = {"node_id": settings.node_id, "request_id": str(uuid.uuid4()), "wait": 0}
        client.get("/api/jobs/pending", {**query, "reconcile": 1})
        line(True, "the token is valid for this node")
    except CallFailed as error:
        line(False, str(error))
    return 1 if problems else 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `hyprnode`."""
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        settings = config.load(given["flags"])
        if given["command"] == "doctor":
            return doctor(settings)
        if given["command"] == "once":
            return beat_once(settings)
        Agent(settings).run()
    except BadSetting as error:
        print(f"hyprnode: {error}", file=sys.stderr)
        return EXIT_USAGE
    except AlreadyRunning as error:
        print(f"hyprnode: {error}", file=sys.stderr)
        return EXIT_LOCKED
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
        choices=["run", "doctor"],
        default="run",
        help="run (default), or doctor: check the set-up",
    )
    parser.add_argument("--once", action="store_true", help="send one heartbeat and end")
    parser.add_argument("--version", action="version", version=f"hyprnode {__version__}")
    for name in config.NAMES:
        flag = "--" + name[len("HYPRBOX_") :].lower().replace("_", "-")
        if name != "HYPRBOX_NODE_TOKEN":  # a secret does not belong where `ps` shows it
            parser.add_argument(flag, dest=name, metavar="VALUE", help=f"instead of {name}")
    parsed = vars(parser.parse_args(arguments))
    command = "once" if parsed.pop("once") else parsed.pop("command")
    parsed.pop("command", None)
    return {"command": command, "flags": parsed}


if __name__ == "__main__":
    sys.exit(main())
