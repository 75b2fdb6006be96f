"""A job in words and shapes: its look, one sentence, its phases. Pure; pages and live fragments share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hyprbox.lib import words
from jobs.batches import MOST_WITHOUT_STEP_UP
from jobs.models import Batch, Job
from jobs.selectors import Wave
from jobs.states import Mode, Reason, Status

WHY: Mapping[str, str] = {
    Reason.EXIT: "The script ended with an error",
    Reason.SIGNAL: "The script was ended by a signal",
    Reason.TIMEOUT: "The script took longer than it was allowed",
    Reason.VERIFY_FAILED: "Verify failed",
    Reason.EXPIRED: "The node did not come for it in time, nothing ran",
    Reason.SIGNATURE_INVALID: "The agent could not verify the signature, nothing ran",
    Reason.SECRET_UNRESOLVED: "A secret was not found on the node, nothing ran",
    Reason.CLOCK_SKEW: "The node’s clock is too far off, nothing ran",
    Reason.REFUSED: "The agent refused it, nothing ran",
    Reason.LOST: "The node never reported the outcome",
    Reason.HOST_REBOOTED: "The node rebooted while it ran",
    Reason.RUNNER_KILLED: "Its runner was killed",
    Reason.AGENT_ERROR: "The agent failed",
}
_TITLES = {"check": "Check", "apply": "Apply", "verify": "Verify", "rollback": "Rollback"}


@dataclass(frozen=True, slots=True)
class Step:
    """One phase of the stepper."""

    label: str
    tone: str
    icon: str
    note: str
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """A job for a page. Templates read the row itself through `job`."""

    job: Job
    now: datetime

    @property
    def look(self) -> str:
        """A key of the looks in the template tags."""
        job = self.job
        if job.outcome_unknown:
            return "OUTCOME_UNKNOWN"
        if job.status == Status.FAILED and self.was_rolled_back:
            return "ROLLED_BACK"
        if job.status == Status.RUNNING and job.cancel_requested_at is not None:
            return "CANCELLING"
        return str(job.status)

    @property
    def was_rolled_back(self) -> bool:
        return any(phase.get("name") == "rollback" and phase.get("exit_code") == 0 for phase in self.phases)

    @property
    def phases(self) -> list[dict[str, Any]]:
        return [phase for phase in self.job.phases if not phase.get("skipped")]

    @property
    def took_seconds(self) -> float | None:
        job = self.job
        if job.started_at is None:
            return None
        return ((job.finished_at or self.now) - job.started_at).total_seconds()

    @property
    def result(self) -> str:
        """A few words below the state in lists: `exit 1`, `waits for the node`, `verify failed`."""
        job = self.job
        if job.status == Status.QUEUED:
            return "handed to the node" if job.claim_id else self.waits_for
        if job.status == Status.SUCCEEDED:
            return "nothing to change" if job.changed is False and job.mode == Mode.APPLY else ""
        if job.status != Status.FAILED:
            return ""
        if job.reason == Reason.EXIT and job.exit_code is not None:
            return f"exit {job.exit_code}"
        if job.reason == Reason.SIGNAL and job.signal is not None:
            return f"signal {job.signal}"
        return str(job.reason).replace("_", " ")

    @property
    def waits_for(self) -> str:
        return f"waits for wave {self.job.wave + 1}" if self.job.held else "waits for the node"

    @property
    def sentence(self) -> str:
        """What happens or happened, in one sentence that ends with a full stop."""
        teller = {
            Status.QUEUED: self._queued,
            Status.RUNNING: self._running,
            Status.SUCCEEDED: self._succeeded,
            Status.FAILED: self._failed,
            Status.CANCELLED: self._cancelled,
        }
        return teller[Status(self.job.status)]()

    def _queued(self) -> str:
        if self.job.claim_id:
            return "The node has it and is about to start it."
        if self.job.held:
            return f"It waits for wave {self.job.wave + 1} of its batch."
        if self.job.node_id is not None and self.job.node.clone_suspected_at is not None:
            return "Two machines seem to report as its node: it is handed out when someone has settled that."
        left = (self.job.expires_at - self.now).total_seconds()
        return f"It waits for its node to come for it, for at most {words.left(max(left, 0))} more."

    def _running(self) -> str:
        if self.job.contact_lost_at is not None:
            return "The node has not been heard of since. The script may go on there; its output comes when it is back."
        if self.job.cancel_requested_at is not None:
            return "The agent was told to end it and everything that it started."
        return f"Running: {self.job.phase or 'starting'}."

    def _succeeded(self) -> str:
        job = self.job
        if job.mode == Mode.CHECK:
            return (
                "An apply would change something."
                if job.changed
                else "It is already as wanted: an apply would do nothing."
            )
        if job.changed is False:
            return "It was already as wanted, so apply was skipped and nothing was changed."
        if "verify" in job.parts:
            return "Applied and verified."
        # Without a check nobody knows whether it changed anything: some presets only read.
        return "Applied. This preset has no verify part." if "check" in job.parts else "It ran to its end."

    def _failed(self) -> str:
        text = WHY.get(self.job.reason, "It failed")
        if self.job.exit_code not in (None, 0) and self.job.reason in (Reason.EXIT, Reason.VERIFY_FAILED):
            text += f" (exit {self.job.exit_code})"
        rollback = next((phase for phase in self.phases if phase.get("name") == "rollback"), None)
        if rollback is None:
            has_applied = any(phase.get("name") == "apply" for phase in self.phases)
            stays = has_applied and "rollback" not in self.job.parts
            return f"{text}. There is no rollback part: what was changed by then stays." if stays else f"{text}."
        if rollback.get("exit_code") == 0:
            return f"{text}, so HyprBox put back what it had changed."
        return f"{text}, and the rollback failed too: look at the node."

    def _cancelled(self) -> str:
        if self.job.outcome_unknown:
            text = "It was given up without word from its node: what ran there is not known."
        elif self.job.started_at is None:
            text = "It was cancelled before it started."
        else:
            text = "It was cancelled while it ran."
        return f"{text} {self.job.cancelled_because}".strip()

    @property
    def steps(self) -> list[Step]:
        """Every phase that the script has, in order."""
        parts = [part for part in self.job.parts if self.job.mode == Mode.APPLY or part == "check"]
        done = {phase.get("name"): phase for phase in self.job.phases}
        return [self._step(part, done.get(part)) for part in parts]

    def _step(self, part: str, done: Mapping[str, Any] | None) -> Step:
        label = _TITLES.get(part, part)
        if done is not None and not done.get("skipped"):
            return self._done(label, part, done)
        if not self.job.is_finished and self.job.phase == part:
            return Step(label, "run", "status-run", "running", is_current=True)
        if self._is_behind(part):
            return Step(label, "ok", "status-done", "done")
        return Step(label, "off", "undo" if part == "rollback" else "clock", self._waiting(part))

    def _is_behind(self, part: str) -> bool:
        """Whether a job that runs got past this part; of one that is rolled back that says nothing good."""
        job, order = self.job, list(_TITLES)
        if job.is_finished or job.phase not in _TITLES or (job.phase == "rollback" and part != "check"):
            return False
        return order.index(part) < order.index(job.phase)

    def _done(self, label: str, part: str, phase: Mapping[str, Any]) -> Step:
        took = words.duration(float(phase.get("duration_ms") or 0) / 1000)
        code, signal = phase.get("exit_code"), phase.get("signal")
        if signal is not None:
            return Step(label, "crit", "status-crit", f"signal {signal} after {took}")
        if code == 0:
            so = "already so, " if part == "check" else ""
            return Step(label, "ok", "undo" if part == "rollback" else "status-done", f"{so}exit 0 after {took}")
        if part == "check" and code == 1:
            return Step(label, "ok", "status-done", f"not so yet, exit 1 after {took}")
        return Step(label, "crit", "status-crit", f"exit {code} after {took}")

    def _waiting(self, part: str) -> str:
        if self.job.is_finished:
            is_so = self.job.changed is False and self.job.mode == Mode.APPLY and part in ("apply", "verify")
            return "skipped: already as wanted" if is_so else "skipped"
        return "only if it fails" if part == "rollback" else ""


def of(job: Job, now: datetime) -> Summary:
    return Summary(job, now)


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """A batch for a page: `counts` are its jobs by status."""

    batch: Batch
    counts: Mapping[str, int]
    waves: list[Wave]

    @property
    def title(self) -> str:
        return f"{self.batch.preset_title or self.batch.preset} on {words.plural(self.total, 'node')}"

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def open(self) -> int:
        return self.counts[Status.QUEUED] + self.counts[Status.RUNNING]

    @property
    def ended(self) -> int:
        return self.total - self.open

    @property
    def failed(self) -> int:
        return self.counts[Status.FAILED]

    @property
    def percent(self) -> float:
        return 100 * self.ended / self.total if self.total else 0.0

    @property
    def statuses(self) -> list[tuple[str, int]]:
        return [(status, self.counts[status]) for status in Status.values]

    @property
    def look(self) -> str:
        if self.batch.stopped_at is not None and not self.open:
            return "CANCELLED"
        if self.open:
            return "RUNNING" if self.ended or self.counts[Status.RUNNING] else "QUEUED"
        return "FAILED" if self.failed else "SUCCEEDED" if self.counts[Status.SUCCEEDED] else "CANCELLED"

    @property
    def sentence(self) -> str:
        if self.open:
            return f"{self.ended} of {self.total} ended" + (f", {self.failed} of them failed." if self.failed else ".")
        told = [f"{count} {status.lower()}" for status, count in self.statuses if count]
        return f"All ended: {', '.join(told)}."

    @property
    def needs_typing(self) -> bool:
        """To run so many again, the preset's name is typed."""
        return self.failed > MOST_WITHOUT_STEP_UP

    @property
    def may_need_typing(self) -> bool:
        """Whether so many can have failed by the time somebody wants to."""
        return self.failed + self.open > MOST_WITHOUT_STEP_UP

    @property
    def rule(self) -> str:
        """When it stops by itself, while that can still happen."""
        batch = self.batch
        if batch.next_wave is None:
            return ""
        waves = f"{batch.wave_size} at a time; the next wave starts when the one before has ended"
        if batch.stop_after_failures is not None:
            stops = f"{waves}. It stops after {words.plural(batch.stop_after_failures, 'failure')}"
            percent = batch.stop_over_percent
            return f"{stops}." if percent is None else f"{stops}, or when more than {percent} % failed."
        return f"{waves}, unless more than {batch.stop_over_percent} % failed."


def of_batch(batch: Batch, counts: Mapping[str, int], waves: list[Wave]) -> BatchSummary:
    return BatchSummary(batch, counts, waves)
