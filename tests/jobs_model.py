"""What the server should make of jobs, in plain dicts: it knows the promises and nothing of the code that keeps them.

Time is this process' clock plus what the test added; a test keeps away from the moments at which something is due.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

CAP = 96  # bytes kept of a stream while the model runs; small, so that it overflows all the time
CLAIM_LEASE, RUNNING_LEASE, LEASE_STEP = 30, 60, 10
LOST_AFTER, LATE_DAYS, KEY_SECONDS, DAY = 300, 7, 86_400, 86_400
ARROWS = {
    "QUEUED": {"RUNNING", "FAILED", "CANCELLED"},
    "RUNNING": {"SUCCEEDED", "FAILED", "CANCELLED"},
    "SUCCEEDED": set(),
    "FAILED": set(),
    "CANCELLED": set(),
}
REFUSALS = ("signature_invalid", "refused", "secret_unresolved", "clock_skew")
MARGIN = 3.0
OBEY_SECONDS, REPORT_SECONDS = 60.0, 3600.0


class Model:
    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.removed: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.claims: set[str] = set()
        self.offset = 0.0

    @property
    def now(self) -> float:
        return time.monotonic() + self.offset

    def add_job(
        self, job_id: str, node: dict[str, Any], *, timeout: int, expires_in: int, sha256: str
    ) -> dict[str, Any]:
        job = {
            "id": job_id, "node": node, "status": "QUEUED", "reason": "", "claim": None, "request": None, "lease": None,
            "expires": self.now + expires_in, "timeout": timeout, "deadline": None, "finished": None, "cancel": False,
            "cancel_at": None,
            "unknown": False, "contact_lost": False, "completion": None, "late": False, "sha256": sha256,
            "stdout": {"first": 0, "total": 0, "data": b""}, "stderr": {"first": 0, "total": 0, "data": b""},
            "audit": Counter({"job.queued": 1}), "exit_code": None,
        }  # fmt: skip
        self.jobs[job_id] = job
        return job

    # --- handing out ---

    def claims_of(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        return [job for job in self.jobs.values() if job["node"] is node and self.is_held(job)]

    def is_held(self, job: dict[str, Any]) -> bool:
        return job["status"] == "RUNNING" or (job["status"] == "QUEUED" and job["claim"] is not None)

    def uses_capacity(self, job: dict[str, Any]) -> bool:
        return job["status"] == "RUNNING" or (self.is_held(job) and job["lease"][1] >= self.now)

    def next_for(self, node: dict[str, Any], request: str) -> tuple[dict[str, Any] | None, bool]:
        """The job this poll must get, and whether that is the answer it had before."""
        mine = [job for job in self.jobs.values() if job["node"] is node]
        for job in mine:
            if job["request"] == request and job["status"] in ("QUEUED", "RUNNING"):
                return job, True
        if sum(map(self.uses_capacity, mine)) >= node["concurrency"]:
            return None, False
        for job in mine:
            is_free = job["claim"] is None or job["lease"][1] < self.now
            if job["status"] == "QUEUED" and job["expires"] > self.now and is_free:
                return job, False
        return None, False

    def cancels_of(self, node: dict[str, Any]) -> list[str]:
        mine = (job for job in self.jobs.values() if job["node"] is node)
        return sorted(job["id"] for job in mine if job["status"] == "RUNNING" and job["cancel"])

    def bind(self, job: dict[str, Any], request: str, claim: str) -> None:
        assert claim not in self.claims
        self.claims.add(claim)
        lease = self.now + CLAIM_LEASE
        job.update(request=request, claim=claim, lease=(lease, lease))

    # --- what agents report ---

    def start(self, job: dict[str, Any], claim: str) -> tuple[int, str]:
        if (refused := self._refusal(job, claim)) is not None:
            return refused
        if job["status"] == "RUNNING":
            self.renew(job)
            return 200, ""
        if job["status"] != "QUEUED":
            return 409, "job_finished"
        others = [other for other in self.jobs.values() if other["node"] is job["node"] and other is not job]
        is_late = job["lease"][1] < self.now
        if is_late and sum(map(self.uses_capacity, others)) >= job["node"]["concurrency"]:
            return 409, "stale_claim"
        if job["expires"] <= self.now:
            self.expire(job)
            return 409, "job_finished"
        job.update(status="RUNNING", deadline=self.now + job["timeout"] + LOST_AFTER)
        self.renew(job)
        return 200, ""

    def takes_output(self, job: dict[str, Any], claim: str) -> tuple[int, str]:
        if (refused := self._refusal(job, claim)) is not None:
            return refused
        if job["status"] == "QUEUED":
            return 409, "job_not_started"
        if job["status"] != "RUNNING" and not self.takes_late(job):
            return 409, "job_finished"
        return 200, ""

    def append(self, job: dict[str, Any], stream: str, offset: int, data: bytes) -> None:
        """`data` continues the stream, repeats its end, or begins after a skipped piece."""
        kept = job[stream]
        if offset > kept["total"]:
            kept.update(first=offset, total=offset, data=b"")
        new = data[max(0, kept["total"] - offset) :]
        kept["data"] = (kept["data"] + new)[-CAP:]
        kept["total"] += len(new)
        kept["first"] = kept["total"] - len(kept["data"])

    def complete(self, job: dict[str, Any], claim: str, body: dict[str, Any]) -> tuple[int, str]:
        if (refused := self._refusal(job, claim)) is not None:
            return refused
        if job["status"] == "QUEUED" and not (body["status"] == "failed" and body["reason"] in REFUSALS):
            return 409, "job_not_started"
        if job["completion"] is not None:
            return (200, "") if job["completion"] == body else (409, "completion_differs")
        if job["status"] not in ("QUEUED", "RUNNING") and not self.takes_late(job):
            return 409, "job_finished"
        if any(self.lacks(job[stream], body[f"{stream}_bytes"]) for stream in ("stdout", "stderr")):
            return 409, "missing_output"
        job["completion"] = body
        if job["status"] not in ("QUEUED", "RUNNING"):
            job["late"] = True
            job["audit"]["job.result_late"] += 1
            return 200, ""
        if job["status"] == "QUEUED":
            job["audit"]["job.refused"] += 1
        if body["status"] == "cancelled" and not job["cancel"]:
            self.finish(job, "FAILED", "agent_error")
        else:
            self.finish(job, body["status"].upper(), body.get("reason", ""))
        job.update(contact_lost=False, unknown=body.get("outcome_unknown", False), exit_code=body["exit_code"])
        return 200, ""

    def lacks(self, kept: dict[str, Any], length: int) -> bool:
        return kept["total"] != length or kept["first"] > max(0, length - CAP)

    def takes_late(self, job: dict[str, Any]) -> bool:
        given_up = job["reason"] == "lost" or (job["status"] == "CANCELLED" and job["unknown"])
        return given_up and job["completion"] is None and self.now < job["finished"] + LATE_DAYS * DAY

    def renew(self, job: dict[str, Any]) -> None:
        if job["status"] == "RUNNING":
            job.update(lease=(self.now + RUNNING_LEASE - LEASE_STEP, self.now + RUNNING_LEASE), contact_lost=False)

    def _refusal(self, job: dict[str, Any], claim: str) -> tuple[int, str] | None:
        if job["claim"] == claim:
            return None
        is_over = job["status"] not in ("QUEUED", "RUNNING") and job["claim"] is None
        return (409, "job_finished") if is_over else (409, "stale_claim")

    # --- what people and time do ---

    def is_out_of_reach(self, job: dict[str, Any]) -> bool:
        is_deaf = job["cancel_at"] is not None and job["cancel_at"] + OBEY_SECONDS < self.now
        return job["lease"][1] < self.now or is_deaf

    def cancel(self, job: dict[str, Any], *, force: bool) -> int:
        if job["status"] == "RUNNING" and force and not self.is_out_of_reach(job):
            return 409
        if job["status"] == "QUEUED":
            self.finish(job, "CANCELLED")
            job["cancel"] = True
            job["audit"]["job.cancelled"] += 1
        elif job["status"] == "RUNNING" and force:
            self.finish(job, "CANCELLED")
            job.update(cancel=True, unknown=True)
            job["audit"]["job.force_cancelled"] += 1
        elif job["status"] == "RUNNING":
            job["audit"]["job.cancel_requested"] += not job["cancel"]
            job["cancel_at"] = job["cancel_at"] or self.now
            job["cancel"] = True
        else:
            return 409
        return 200

    def remove(self, node: dict[str, Any]) -> None:
        """Its token may still tell of what ran there, until an hour after that ended."""
        for job in self.jobs.values():
            if job["node"] is node and job["status"] in ("QUEUED", "RUNNING"):
                self.cancel(job, force=False)
        self.removed.append(node)

    def may_report(self, job: dict[str, Any]) -> bool:
        if job["node"] not in self.removed:
            return True
        is_recent = job["finished"] is None or self.now < job["finished"] + REPORT_SECONDS
        return job["cancel"] and is_recent

    def finish(self, job: dict[str, Any], status: str, reason: str = "") -> None:
        job.update(status=status, reason=reason, finished=self.now)

    def expire(self, job: dict[str, Any]) -> None:
        self.finish(job, "FAILED", "expired")
        job["audit"]["job.expired"] += 1

    def enforce(self) -> None:
        for job in self.jobs.values():
            if job["status"] == "QUEUED" and job["expires"] <= self.now:
                self.expire(job)
            elif job["status"] == "RUNNING" and job["lease"][1] <= self.now:
                job["contact_lost"] = True
                if job["deadline"] <= self.now:
                    self.finish(job, "FAILED", "lost")
                    job["unknown"] = True
                    job["audit"]["job.lost"] += 1

    def boundaries(self) -> list[tuple[float, float]]:
        """The spans of time in which something is due, each as far as it is known."""
        found = [(key["at"] + KEY_SECONDS,) * 2 for key in self.keys.values()]
        for job in self.jobs.values():
            if job["status"] == "QUEUED":
                found.append((job["expires"],) * 2)
            if self.is_held(job):
                found.append(job["lease"])
            if job["status"] == "RUNNING":
                found.append((job["deadline"],) * 2)
                if job["cancel_at"] is not None:
                    found.append((job["cancel_at"] + OBEY_SECONDS,) * 2)
            elif job["finished"] is not None:
                found.append((job["finished"] + LATE_DAYS * DAY,) * 2)
                if job["cancel"]:
                    found.append((job["finished"] + REPORT_SECONDS,) * 2)
        return found

    def seconds_to_clear(self) -> float:
        """How far time must move so that nothing is about to be due."""
        moved = 0.0
        for low, high in sorted(self.boundaries()):
            if low - MARGIN < self.now + moved < high + MARGIN:
                moved = high + MARGIN - self.now + 0.01
        return moved
