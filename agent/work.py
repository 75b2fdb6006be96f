"""Waiting for work: every job is checked and journalled before anything is said about it, then delivered.

One poll at a time and one thread per job. What an earlier agent left is taken up first.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from agent import config, secretrefs
from agent.client import Backoff, CallFailed, Client
from agent.config import BadSetting, Config
from agent.crash import crash_point
from agent.delivery import Delivery
from agent.heart import Heart
from agent.journal import JobFolder, Journal
from agent.keys import KeyRing, KeysUntrusted, Refused
from agent.log import Log
from agent.state import StateDir
from agent.wire import Malformed, Offer, Payload, is_job_id, nothing_ran, parse_claim, parse_offer

WAIT_SECONDS = 25
KEYS_FRESH_SECONDS = 60.0
AGAIN_SECONDS = 2.0


class Work:
    def __init__(self, settings: Config, state: StateDir, heart: Heart, log: Log, stop: threading.Event) -> None:
        self.settings, self.state, self.heart, self.log, self.stop = settings, state, heart, log, stop
        self.journal = Journal(settings.state_dir)
        self.keys = KeyRing(settings.state_dir, settings.keys_sha256)
        self._deliveries: dict[str, Delivery] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._reconcile_next = True

    def join(self, seconds: float) -> None:
        """Wait for the threads of the jobs, which end when the agent stops."""
        for thread in [*self._threads]:
            thread.join(seconds)

    def run(self, first_beat: threading.Event) -> None:
        """Recover what an earlier agent left, then wait for work for ever."""
        left = [folder for folder in self.journal.unfinished() if folder.has("intent")]
        # One without an intent waits for the first answer, which tells its claim; one that did not run yet for the
        # first heartbeat, which tells the time to judge it by.
        for folder in left:
            if folder.may_have_run or folder.has("result"):
                self._guarded(self._deliver, folder)
        while not first_beat.wait(0.2):  # the first heartbeat may have to pin the token
            if self.stop.is_set():
                return
        for folder in left:
            if not (folder.may_have_run or folder.has("result") or folder.job_id in self._deliveries):
                self._guarded(self._deliver, folder)
        client, backoff = Client(self.settings), Backoff(spread=True)
        self._reconcile_next, forget_at = True, 0.0
        while not self.stop.is_set():
            if time.monotonic() > forget_at:
                self._guarded(self.journal.forget_old, time.time() - self.heart.clock_offset)
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
        problem = self.state.spool_problem([delivery.folder for delivery in [*self._deliveries.values()]])
        self.heart.spool_problem = problem.removeprefix("spool_unwritable: ")
        if problem:
            self.log.error("agent.not_taking_jobs", why=problem)
            return 30.0
        if (self._reconcile_next or not self.keys.is_pinned) and not self._look_at_keys(client):
            return 60.0
        request_id = self.state.request_id(self.journal)
        answer = self._poll(client, request_id, self._reconcile_next)
        pause = answer.get("poll_after_ms")
        if self._reconcile_next:
            self._reconcile(_list(answer.get("holding")))
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
            job_id, claim_id = parse_claim(data)
        except Malformed as error:  # nothing that one could answer
            self.log.error("job.malformed", error=str(error))
            return
        if job_id in self._deliveries:
            # On its way already, or under a claim that is about to end: then it is handed out once more.
            self.log.info("job.under_way", job=job_id)
            return
        folder = self.journal.folder(job_id)
        if folder.may_have_run or folder.has("result"):
            self.log.warning("job.seen_before", job=job_id)
            self._answer_seen(folder, job_id, claim_id)
            return
        crash_point("CP05")
        refusal, secrets = self._judge_data(job_id, data)
        folder.create()
        folder.reserve()
        folder.write(
            "intent",
            {
                "claim_id": claim_id,
                "request_id": request_id,
                "payload": data.get("payload"),
                "signature": data.get("signature"),
                "key_id": data.get("key_id"),
                "at": time.time(),
            },
        )
        if refusal:
            folder.write("result", nothing_ran(refusal))
        self._deliver(folder, secrets)

    def _judge_data(self, job_id: str, data: Any) -> tuple[str, dict[str, str]]:
        """The same for what was handed out: what is no offer is refused as a bad signature is, for nobody signed that."""
        try:
            offer = parse_offer(data)
        except Malformed as error:
            self.log.error("job.refused", job=job_id, reason="signature_invalid", why=str(error))
            return "signature_invalid", {}
        return self._judge(offer)

    def _judge(self, offer: Offer) -> tuple[str, dict[str, str]]:
        """Why this job is refused (empty: it may run), and the secrets it needs."""
        try:
            payload = self._checked(offer)
            return "", secretrefs.resolve(payload.secrets, os.environ, env_file=config.ENV_FILE)
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

    def _answer_seen(self, folder: JobFolder, job_id: str, claim_id: str) -> None:
        """What was executed is never executed again, whatever the server says; its own claim hears how it ended."""
        known = folder.read("intent")
        if known is not None and known["claim_id"] == claim_id:
            self._deliver(folder)
            return
        client = Client(self.settings)
        try:
            body = {"claim_id": claim_id, **nothing_ran("signature_invalid")}
            client.post(f"/api/jobs/{job_id}/complete", body)
        except CallFailed as error:  # handed out again, refused again
            self.log.warning("job.refusal_failed", job=job_id, error=str(error))
        finally:
            client.close()

    def _reconcile(self, holding: list[Any]) -> None:
        """Compare what the server thinks we run with what the journal knows."""
        for held in holding:
            if not isinstance(held, dict) or not (is_job_id(held.get("id")) and is_job_id(held.get("claim_id"))):
                self.log.error("agent.held_malformed")
                continue
            if held.get("cancel_requested"):
                self._cancel(held["id"])
            if held.get("status") == "RUNNING" and held["id"] not in self._deliveries:
                self._guarded(self._account_for, self.journal.folder(held["id"]), held["claim_id"])
        for folder in list(self.journal.unfinished()):
            if not folder.has("intent") and folder.job_id not in self._deliveries:
                # A damaged record, and a claim that is over: it is refused, and what may run of it is ended.
                self._guarded(self._deliver, folder)

    def _account_for(self, folder: JobFolder, claim_id: str) -> None:
        """A job that the server thinks we run, and that is not on its way."""
        if folder.may_have_run or folder.has("result"):
            # Delivered, but to a database that was restored since; or the record of its claim is damaged.
            self._deliver(folder, claim_id=claim_id)
        elif folder.has("intent"):
            self._deliver(folder)
        else:  # nobody can say how it ended
            folder.create()
            folder.write("intent", {"claim_id": claim_id, "payload": "", "at": time.time()})
            folder.write("result", {**nothing_ran("agent_error"), "outcome_unknown": True})
            self._deliver(folder)

    def _cancel(self, job_id: str) -> None:
        delivery = self._deliveries.get(job_id)
        if delivery is not None:
            delivery.cancel()

    def _deliver(self, folder: JobFolder, secrets: dict[str, str] | None = None, claim_id: str = "") -> None:
        if secrets is None and not folder.may_have_run and not folder.has("result"):
            refusal, secrets = self._judge_again(folder)
            if refusal:
                folder.write("result", nothing_ran(refusal))

        def new() -> Delivery:
            return Delivery(
                folder,
                Client(self.settings),
                stop=self.stop,
                log=self.log,
                secrets=secrets,
                claim_id=claim_id,
                judge_again=lambda: self._judge_again(folder)[0],
            )

        with self._lock:
            self._deliveries[folder.job_id] = delivery = new()
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._run_delivery, args=(delivery, new), name=f"job-{folder.job_id}")
            thread.daemon = True
            self._threads.append(thread)
        thread.start()

    def _judge_again(self, folder: JobFolder) -> tuple[str, dict[str, str]]:
        """After a restart between intent and run: all of it is checked anew, and the secrets are resolved anew."""
        return self._judge_data(folder.job_id, {"id": folder.job_id, **(folder.read("intent") or {})})

    def _run_delivery(self, delivery: Delivery, new: Callable[[], Delivery]) -> None:
        """Until it is delivered or we stop. A full disk or whatever else breaks it: it is taken up again."""
        self.log.info("job.taken", job=delivery.job_id)
        backoff = Backoff()
        try:
            while True:
                try:
                    delivery.run()
                    break
                except InterruptedError:
                    return  # we stop; the journal has all that the next one needs
                except Exception as error:  # noqa: BLE001 - one broken job must not end the agent
                    self.log.error("job.delivery_failed", job=delivery.job_id, error=repr(error))
                delivery.client.close()
                if self.stop.wait(AGAIN_SECONDS + backoff.failed(CallFailed("broken"))):
                    return
                with self._lock:
                    self._deliveries[delivery.job_id] = delivery = new()
        finally:
            delivery.client.close()
            with self._lock:
                self._deliveries.pop(delivery.job_id, None)
        self.log.info("job.done", job=delivery.job_id)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
