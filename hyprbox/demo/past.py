"""What happened: jobs with every ending there is, and the audit entries of all of it."""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from audit.actions import Action
from audit.models import Event
from hyprbox.demo import told
from hyprbox.demo.fleet import Host
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor
from jobs import payloads
from jobs.models import Batch, Job, OutputChunk, Transcript
from jobs.states import RUNNING_LEASE_SECONDS, Mode, Reason, Status
from nodes.models import Node
from presets import catalogue, rendering

Entry = tuple[datetime, Action, Actor, str, dict[str, Any]]
# (preset, weight, variables)
USUAL: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("system-report", 9, {}),
    ("system-update", 7, {}),
    ("journald-limit", 4, {}),
    ("time-sync", 3, {}),
    ("swap-file", 3, {}),
)
# How a job may end, and how often: (ending, weight)
ENDINGS = (
    ("changed", 60),
    ("already", 22),
    ("exit", 6),
    ("verify_failed", 4),
    ("timeout", 2),
    ("cancelled", 3),
    ("lost", 1),
)
PHASES = ("check", "apply", "verify", "rollback")


@dataclass
class Past:
    """Collects rows; `write` puts them in, the audit entries in the order of their times."""

    dice: random.Random
    now: datetime
    jobs: list[Job] = field(default_factory=list)
    chunks: list[OutputChunk] = field(default_factory=list)
    transcripts: list[Transcript] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def note(self, at: datetime, action: Action, by: Actor, target: str, **detail: Any) -> None:
        self.entries.append((at, action, by, target, detail))

    def write(self) -> None:
        Batch.objects.bulk_create(self.batches)
        Job.objects.bulk_create(self.jobs)
        Transcript.objects.bulk_create(self.transcripts)
        OutputChunk.objects.bulk_create(self.chunks)
        for at, action, by, target, detail in sorted(self.entries, key=lambda entry: entry[0]):
            Event.objects.create(
                at=at, action=action, actor_kind=by.kind, actor_id=by.id, actor_name=by.name, target=target, detail=detail,
                ip=by.ip,
            )  # fmt: skip

    # --- a job and its ending ---

    def add_job(
        self, node: Node, host: Host, preset: str, variables: dict[str, Any], by: Actor, at: datetime, ending: str,
        *, batch: Batch | None = None,
    ) -> Job:  # fmt: skip
        """`ending` is one of ENDINGS, or `running`, `queued`, `expired`."""
        job = self._frozen(node, preset, variables, by, at, batch)
        if ending == "queued":
            self.transcripts.append(Transcript(job=job))
            return job
        if ending == "expired":
            job.expires_at = job.finished_at = at + timedelta(hours=24)
            job.status, job.reason = Status.FAILED, Reason.EXPIRED
            self.transcripts.append(Transcript(job=job))
            self.note(job.finished_at, Action.JOB_EXPIRED, Actor.system("worker"), f"job:{job.pk}", **_facts(job, node))
            return job
        job.claim_id = job.request_id = self._uuid()
        job.claimed_at = at + timedelta(seconds=self.dice.uniform(0.1, 0.9))
        job.started_at = job.claimed_at + timedelta(seconds=0.2)
        phases = told.written(preset, host, already=ending == "already")
        _END[ending](self, job, node, phases, by)
        return job

    def _frozen(
        self, node: Node, preset: str, variables: dict[str, Any], by: Actor, at: datetime, batch: Batch | None
    ) -> Job:
        """The row as it is when it is queued: rendered and signed like every other."""
        document = catalogue.builtin()[preset]
        rendered, signer = rendering.render(document, variables), signing.signer()
        job = Job(
            id=self._uuid(), node=node, batch=batch, created_by=by.name, created_at=at, expires_at=at + timedelta(hours=24),
            preset=preset, preset_title=document.title, risk=document.risk, revision=rendered.revision, mode=Mode.APPLY,
            parts=list(rendered.parts), variables=dict(rendered.variables), script=rendered.script,
            script_sha256=rendered.sha256, key_id=signer.key_id, timeout_seconds=document.timeout_seconds,
        )  # fmt: skip
        frozen = payloads.Frozen(
            job_id=str(job.pk), node_id=node.node_id, mode=job.mode, script=rendered.script, script_sha256=rendered.sha256,
            timeout_seconds=job.timeout_seconds, created_at=at, expires_at=job.expires_at, environment={}, secrets={},
            preset=preset, revision=rendered.revision, parts=list(rendered.parts),
        )  # fmt: skip
        job.payload = payloads.encode(frozen, key_id=signer.key_id)
        job.signature = signer.sign(signing.JOB_CONTEXT, job.payload)
        self.jobs.append(job)
        self.note(
            at,
            Action.JOB_QUEUED,
            by,
            f"job:{job.pk}",
            **_facts(job, node),
            mode=job.mode,
            script_sha256=job.script_sha256,
        )
        return job

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self.dice.getrandbits(128), version=4)

    def _write_output(self, job: Job, written: list[tuple[str, str]], errors: str = "", phase: str = "apply") -> None:
        texts = {"stdout": written, "stderr": [(phase, errors)] if errors else []}
        kept = Transcript(job=job)
        for stream, parts in texts.items():
            offset, digest = 0, hashlib.sha256()
            for part, text in parts:
                data = text.encode()
                at = self._written_at(job, part)
                self.chunks.append(
                    OutputChunk(job=job, stream=stream, offset=offset, data=data, phase=part, received_at=at)
                )
                offset += len(data)
                digest.update(data)
            setattr(kept, f"{stream}_bytes", offset)
            if job.is_finished:
                setattr(kept, f"{stream}_sha256", digest.hexdigest())
        self.transcripts.append(kept)

    def _written_at(self, job: Job, phase: str) -> datetime:
        """Phase by phase, while the job ran: the page shows lines in the order of their times."""
        assert job.started_at is not None
        took = (job.finished_at or self.now) - job.started_at
        return job.started_at + took * (PHASES.index(phase) + 1) / (len(PHASES) + 1)

    def _phases(self, job: Job, *names_and_codes: tuple[str, int | None]) -> None:
        """None for a phase that was skipped; the job ends when the last one does."""
        seconds = 0.0
        for name, code in names_and_codes:
            took = 0.0 if code is None else self.dice.uniform(0.3, 2.5) if name != "apply" else self.dice.uniform(2, 70)
            seconds += took
            job.phases.append(
                {
                    "name": name,
                    "exit_code": code,
                    "signal": None,
                    "duration_ms": int(took * 1000),
                    "skipped": code is None,
                }
            )
        assert job.started_at is not None
        job.finished_at = job.started_at + timedelta(seconds=seconds)

    def _end_well(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        job.status, job.exit_code, job.changed = Status.SUCCEEDED, 0, True
        if "check" in job.parts:
            self._phases(job, ("check", 1), ("apply", 0), ("verify", 0))
        else:
            self._phases(job, ("apply", 0))
        self._write_output(job, written)

    def _end_already(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        if "check" not in job.parts:
            return self._end_well(job, node, written, by)
        job.status, job.exit_code, job.changed = Status.SUCCEEDED, 0, False
        self._phases(job, ("check", 0), ("apply", None), ("verify", 0))
        return self._write_output(job, written[:1])

    def _end_with_error(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        job.status, job.reason, job.exit_code, job.changed = Status.FAILED, Reason.EXIT, 100, True
        phases: list[tuple[str, int | None]] = [("check", 1)] if "check" in job.parts else []
        phases.append(("apply", 100))
        self._phases(job, *phases, *([("rollback", 0)] if "rollback" in job.parts else []))
        self._write_output(
            job, written[:1], "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812.\n"
        )

    def _end_unverified(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        if "rollback" not in job.parts:
            return self._end_with_error(job, node, written, by)
        job.status, job.reason, job.exit_code, job.changed = Status.FAILED, Reason.VERIFY_FAILED, 1, True
        self._phases(job, ("check", 1), ("apply", 0), ("verify", 1), ("rollback", 0))
        back = [("rollback", "Everything is as it was before.\n")]
        return self._write_output(
            job, [*written[:-1], *back], "It is not as it should be after the change.\n", "verify"
        )

    def _end_late(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        job.status, job.reason, job.signal = Status.FAILED, Reason.TIMEOUT, 15
        self._phases(job, *([("check", 1)] if "check" in job.parts else []), ("apply", None))
        job.phases[-1].update(skipped=False, signal=15, duration_ms=job.timeout_seconds * 1000)
        assert job.finished_at is not None
        job.finished_at += timedelta(seconds=job.timeout_seconds)
        self._write_output(job, written[:1])

    def _end_cancelled(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        self._phases(job, *([("check", 1)] if "check" in job.parts else []), ("apply", 143))
        assert job.started_at is not None and job.finished_at is not None
        job.status, job.cancel_requested_at = Status.CANCELLED, job.finished_at - timedelta(seconds=0.8)
        self.note(job.cancel_requested_at, Action.JOB_CANCEL_REQUESTED, by, f"job:{job.pk}", **_facts(job, node))
        self._write_output(job, written[:1])

    def _end_unknown(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        assert job.started_at is not None
        job.status, job.reason, job.outcome_unknown = Status.FAILED, Reason.LOST, True
        job.finished_at = job.started_at + timedelta(seconds=job.timeout_seconds + 300)
        self.note(job.finished_at, Action.JOB_LOST, Actor.system("worker"), f"job:{job.pk}", **_facts(job, node))
        self._write_output(job, written[:1])

    def _go_on(self, job: Job, node: Node, written: list[tuple[str, str]], by: Actor) -> None:
        assert job.started_at is not None
        job.status, job.phase = Status.RUNNING, "apply"
        job.lease_expires_at = self.now + timedelta(seconds=RUNNING_LEASE_SECONDS)
        job.deadline_at = job.started_at + timedelta(seconds=job.timeout_seconds + 300)
        self._write_output(job, written[:2])


_END = {
    "changed": Past._end_well,
    "already": Past._end_already,
    "exit": Past._end_with_error,
    "verify_failed": Past._end_unverified,
    "timeout": Past._end_late,
    "cancelled": Past._end_cancelled,
    "lost": Past._end_unknown,
    "running": Past._go_on,
}


def _facts(job: Job, node: Node) -> dict[str, Any]:
    return {"node_id": node.node_id, "preset": job.preset}
