"""hyprnode: heartbeats, waiting for work, and one delivery per job.

It only dials out. Jobs run in processes of their own (`agent.runner`), so that stopping, upgrading or
killing this one neither ends nor repeats them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import __version__, config, processes, secretrefs
from agent.client import Backoff, CallFailed, Client
from agent.config import BadSetting, Config
from agent.crash import crash_point
from agent.delivery import Delivery
from agent.journal import JobFolder, Journal, spooled_bytes
from agent.keys import KeyRing, KeysUntrusted, Refused
from agent.log import Log
from agent.metrics import Meter, inventory, machine_id
from agent.wire import Malformed, Offer, Payload, is_job_id, nothing_ran, now_text, parse_offer, parse_time

WAIT_SECONDS = 25
INVENTORY_SECONDS = 300.0
STOP_JOBS_SECONDS = 14.0  # below the unit's TimeoutStopSec
KEYS_FRESH_SECONDS = 60.0
MIN_FREE_BYTES = 200 * 1024 * 1024
MAX_SPOOLED_BYTES = 1024**3
MAX_CHECKPOINTS = 1000
STOP_SECONDS = 5.0
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
        self._request_is_checked = False

    def next_beat(self) -> int:
        """A counter over restarts: two machines with one identity show as beats that go back."""
        last = self._read("beat")
        number = int(last) + 1 if last.isdigit() else 1
        self._write("beat", str(number))
        return number

    def instance_id(self) -> str:
        found = self._read("instance")
        if not found:
            found = uuid.uuid4().hex
            self._write("instance", found)
        return found

    def request_id(self, journal: Journal) -> str:
        """On disk before it is sent: an agent that dies before it journalled a claim asks for the same one again."""
        found = self._read("request")
        if self._request_is_checked and is_job_id(found):
            return found
        self._request_is_checked = True
        if not is_job_id(found) or journal.knows_request(found):
            return self.renew_request_id()
        return found

    def renew_request_id(self) -> str:
        text = str(uuid.uuid4())
        self._write("request", text, durable=True)
        return text

    def note_checkpoint(self, checkpoint: Any) -> None:
        """We are a witness of the audit chain: the last thousand checkpoints stay here."""
        if not isinstance(checkpoint, dict):
            return
        lines = [*self._read("audit-checkpoints").splitlines(), json.dumps(checkpoint, sort_keys=True)[:4096]]
        self._write("audit-checkpoints", "\n".join(lines[-MAX_CHECKPOINTS:]) + "\n")

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _write(self, name: str, text: str, *, durable: bool = False) -> None:
        temporary = self.path / f".{name}.new"
        with open(temporary, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, self.path / name)

    def spool_problem(self, journal: Journal | None = None) -> str:
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
        if journal is not None and spooled_bytes(journal) > MAX_SPOOLED_BYTES:
            return "spool_unwritable: output that is not delivered yet takes more than 1 GiB"
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
            thread.join(STOP_SECONDS)
        self.log.info("agent.stopped", jobs_left_running=sum(1 for _ in self.journal.unfinished()))

    def _stop_jobs(self) -> None:
        """Cancel what runs and wait until it is gone: ten seconds of grace, then the runners kill."""
        folders = [folder for folder in self.journal.unfinished() if folder.may_have_run and not folder.has("result")]
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
                self.state.note_checkpoint(answer.get("audit_checkpoint"))
            except CallFailed as error:
                self.log.warning("heartbeat.failed", error=str(error))
                wait = backoff.failed(error)
            except Exception as error:  # noqa: BLE001 - a full disk, an odd /proc: silence would look like a dead host
                self.log.error("heartbeat.broken", error=repr(error))
                wait = interval
            self.stop.wait(max(0.05, wait))
        client.close()

    # --- work ---

    def _work(self, first_beat: threading.Event) -> None:
        """Recover what an earlier agent left, then wait for work for ever."""
        for folder in list(self.journal.unfinished()):
            self._guarded(self._deliver, folder)
        while not first_beat.wait(0.2):  # the first heartbeat may have to pin the token
            if self.stop.is_set():
                return
        client, backoff = Client(self.settings), Backoff(spread=True)
        self._reconcile_next, forget_at = True, 0.0
        while not self.stop.is_set():
            if time.monotonic() > forget_at:
                self._guarded(self.journal.forget_old)
                forget_at = time.monotonic() + 3600
            try:
                self.stop.wait(self._one_poll(client))
                backoff.succeeded()
            except CallFailed as error:
                if not backoff.is_failing:
                    self.log.warning("poll.failed", error=str(error))
                self._reconcile_next = True
                self.stop.wait(backoff.failed(error))
            except Exception as error:  # noqa: BLE001 - an agent that takes no jobs any more helps nobody
                self.log.error("agent.poll_broken", error=repr(error))
                self.stop.wait(backoff.failed(CallFailed("broken")))

    def _one_poll(self, client: Client) -> float:
        """One question and what follows from its answer; returns how long to wait. Raises `CallFailed`."""
        if (self._reconcile_next or not self.keys.is_pinned) and not self._look_at_keys(client):
            return 60.0
        problem = self.state.spool_problem(self.journal)
        if problem:
            self.log.error("agent.not_taking_jobs", why=problem)
            return 30.0
        request_id = self.state.request_id(self.journal)
        answer = self._poll(client, request_id, self._reconcile_next)
        pause = answer.get("poll_after_ms")
        if self._reconcile_next:
            self._reconcile(answer.get("holding"))
            self._reconcile_next = False
        for job_id in _list(answer.get("cancel")):
            self._cancel(str(job_id))
        if answer.get("job") is not None:
            self._take(answer["job"], request_id)
            self.state.renew_request_id()
        return min(3600.0, max(0, pause) / 1000) if isinstance(pause, int) else 1.0

    def _look_at_keys(self, client: Client) -> bool:
        """Pin the keys, or take a lawful successor of the pinned set. False when there is nothing to trust."""
        try:
            if self.keys.offer(client.get("/api/agent/keys")):
                self.log.info("agent.keys_pinned")
        except KeysUntrusted as error:
            self.log.error("agent.keys_untrusted", why=str(error))
        return self.keys.is_pinned

    def _guarded(self, act: Callable[..., Any], *arguments: Any) -> None:
        """One damaged folder must not keep the agent from its work."""
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001 - anything: it is said, and the rest goes on
            self.log.error("agent.journal_problem", error=repr(error))

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
        if offer.job_id in self._deliveries:
            # On its way already, or under a claim that is about to end: then it is handed out once more.
            self.log.info("job.under_way", job=offer.job_id)
            return
        folder = self.journal.folder(offer.job_id)
        if folder.may_have_run or folder.has("result"):
            self.log.warning("job.seen_before", job=offer.job_id)
            self._answer_seen(folder, offer)
            return
        crash_point("CP05")
        refusal, secrets = self._judge(offer)
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
            folder.write("result", nothing_ran(refusal))
        self._deliver(folder, secrets)

    def _judge(self, offer: Offer) -> tuple[str, dict[str, str]]:
        """Why this job is refused (empty: it may run), and the secrets it needs."""
        try:
            payload = self._checked(offer)
            return "", secretrefs.resolve(payload.secrets, self._secret_environment())
        except Refused as error:
            self.log.error("job.refused", job=offer.job_id, reason=error.reason, why=str(error))
            return error.reason, {}
        except (secretrefs.Unresolved, BadSetting) as error:
            self.log.error("job.secret_unresolved", job=offer.job_id, why=str(error))
            return "secret_unresolved", {}

    def _checked(self, offer: Offer) -> Payload:
        # A key may have been retired since we last looked, or a new one lawfully added.
        client = Client(self.settings)
        try:
            if self.keys.age_seconds > KEYS_FRESH_SECONDS or not self.keys.knows(offer.key_id):
                self.keys.offer(client.get("/api/agent/keys"))
        except (CallFailed, KeysUntrusted) as error:
            self.log.warning("agent.keys_not_refreshed", why=str(error))  # what is pinned goes on to count
        finally:
            client.close()
        return self._check(offer)

    def _check(self, offer: Offer) -> Payload:
        return self.keys.check(offer, node_id=self.settings.node_id, clock_offset=self.heart.clock_offset)

    def _secret_environment(self) -> dict[str, str]:
        return {**config.read_env_file(config.ENV_FILE), **os.environ}

    def _answer_seen(self, folder: JobFolder, offer: Offer) -> None:
        """What was executed is never executed again, whatever the server says; its own claim hears how it ended."""
        known = folder.read("intent")
        if known is not None and known["claim_id"] == offer.claim_id:
            self._deliver(folder)
            return
        client = Client(self.settings)
        try:
            body = {"claim_id": offer.claim_id, **nothing_ran("signature_invalid")}
            client.post(f"/api/jobs/{offer.job_id}/complete", body)
        except CallFailed as error:
            self.log.warning(
                "job.refusal_failed", job=offer.job_id, error=str(error)
            )  # handed out again, refused again
        finally:
            client.close()

    def _reconcile(self, holding: Any) -> None:
        """Jobs that the server thinks we run but our journal does not know: nobody can say how they ended."""
        for held in _list(holding):
            if not isinstance(held, dict) or not (is_job_id(held.get("id")) and is_job_id(held.get("claim_id"))):
                self.log.error("agent.held_malformed")
                continue
            if held.get("cancel_requested"):
                self._cancel(held["id"])
            folder = self.journal.folder(held["id"])
            if held.get("status") != "RUNNING" or folder.may_have_run or folder.has("intent"):
                continue
            folder.create()
            folder.write("intent", {"claim_id": held["claim_id"], "payload": "", "at": time.time()})
            folder.write("result", {**nothing_ran("agent_error"), "outcome_unknown": True})
            self._deliver(folder)

    def _cancel(self, job_id: str) -> None:
        delivery = self._deliveries.get(job_id)
        if delivery is not None:
            delivery.cancel()

    def _deliver(self, folder: JobFolder, secrets: dict[str, str] | None = None) -> None:
        if secrets is None and not folder.may_have_run and not folder.has("result"):
            refusal, secrets = self._judge_again(folder)
            if refusal:
                folder.write("result", nothing_ran(refusal))
        delivery = Delivery(folder, Client(self.settings), stop=self.stop, log=self.log, secrets=secrets)
        with self._lock:
            self._deliveries[folder.job_id] = delivery
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._run_delivery, args=(delivery,), name=f"job-{folder.job_id}")
            thread.daemon = True
            self._threads.append(thread)
        thread.start()

    def _judge_again(self, folder: JobFolder) -> tuple[str, dict[str, str]]:
        """After a restart between intent and run: all of it is checked anew, and the secrets are resolved anew."""
        intent = folder.read("intent") or {}
        try:
            offer = parse_offer({"id": folder.job_id, **intent})
        except Malformed as error:
            self.log.error("job.malformed", job=folder.job_id, error=str(error))
            return "agent_error", {}
        return self._judge(offer)

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


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def single_heartbeat(settings: Config) -> dict[str, Any]:
    """One without the identity of a running agent, so that it may be sent beside one and looks like no clone."""
    return {
        "node_id": settings.node_id,
        "agent_version": __version__,
        "interval_seconds": settings.interval,
        "metrics": Meter().read(),
        "inventory": inventory(settings.region),
        "sent_at": now_text(),
    }


def beat_once(settings: Config) -> int:
    """`hyprnode --once`: one heartbeat, one line, an exit code."""
    client = Client(settings)
    try:
        client.post("/api/nodes/heartbeat", single_heartbeat(settings))
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
        client.post("/api/nodes/heartbeat", single_heartbeat(settings))  # a poll would claim a job and let it lie
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
