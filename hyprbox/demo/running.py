"""Jobs on servers that do not exist: claimed and reported as an agent would, with output that was written before."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from django.utils import timezone

from hyprbox.demo import told
from hyprbox.demo.fleet import Host
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from hyprbox.lib.threads import in_thread
from jobs import output, reports
from jobs.models import Job
from jobs.output import Piece
from jobs.states import Mode, Status
from jobs.together import Together

AT_ONCE = 12
LOOK_AT = 500
ENDINGS = (("changed", 86), ("already", 8), ("exit", 6))
CHECKS = (("already", 80), ("changed", 20))  # of a check alone
BACK = "All is as it was before.\n"
LOCKED = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812.\n"

log = structlog.get_logger(__name__)


class Runs:
    """What runs on the demo's servers, `hosts` by the nodes' keys. `pace` 0 plays without pauses."""

    def __init__(self, hosts: Mapping[uuid.UUID, Host], dice: random.Random, *, pace: float = 1.0) -> None:
        self._hosts, self._dice, self._pace = hosts, dice, pace
        self._lane = Together()
        self._tasks: dict[uuid.UUID, asyncio.Task[None]] = {}

    async def look(self) -> None:
        """Begin what waits, and go on with what an earlier run left; a dozen at once."""
        room = AT_ONCE - len(self._tasks)
        if room <= 0:
            return
        for node_pk in (await in_thread(self._waiting))[:room]:
            task = asyncio.create_task(self._run(node_pk))
            self._tasks[node_pk] = task
            task.add_done_callback(partial(self._forget, node_pk))

    def _forget(self, node_pk: uuid.UUID, task: asyncio.Task[None]) -> None:
        self._tasks.pop(node_pk, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("demo.run_failed", exc_info=error)

    async def finish(self) -> None:
        """Wait for what runs."""
        await asyncio.gather(*self._tasks.values())

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lane.stop()

    def _waiting(self) -> list[uuid.UUID]:
        """Our nodes that have something to run and run nothing here, in the order of their jobs."""
        jobs = Job.objects.unfinished().filter(held=False, node_id__in=self._hosts)
        jobs = jobs.exclude(node_id__in=list(self._tasks)).order_by("created_at")
        return list(dict.fromkeys(jobs.values_list("node_id", flat=True)[:LOOK_AT]))

    async def _run(self, node_pk: uuid.UUID) -> None:
        # Force-cancelled, expired, or a database that is away: a job that is still there is taken up at the next look.
        with contextlib.suppress(HyprBoxError):
            job = await in_thread(_left_running, node_pk)
            if job is None:
                claim = await self._lane.claim(node_pk=node_pk, request_id=uuid.uuid4())
                if claim is None:
                    return
                by = Actor.agent(id=str(node_pk), name=self._hosts[node_pk].node_id)
                job = await in_thread(reports.start, by=by, job_id=claim.job_id, claim_id=claim.claim_id)
            await self._play(job, self._hosts[node_pk])

    async def _play(self, job: Job, host: Host) -> None:
        endings = CHECKS if job.mode == Mode.CHECK else ENDINGS
        [ending] = self._dice.choices([name for name, _ in endings], [weight for _, weight in endings])
        run = await in_thread(Run.of, job, host, ending)
        for phase, code in run.steps:
            began = time.monotonic()
            if code is not None and not await self._write(run, phase, code):
                await run.end(status="cancelled")
                return
            took = int((time.monotonic() - began) * 1000)
            run.phases.append(
                {"name": phase, "exit_code": code, "signal": None, "duration_ms": took, "skipped": code is None}
            )
        await run.end_as_played()

    async def _write(self, run: Run, phase: str, code: int) -> bool:
        """False when the job was cancelled meanwhile."""
        for stream, line in run.lines(phase, code):
            await asyncio.sleep(self._pace * self._dice.uniform(0.2, 0.9))
            if await run.write(stream, line, phase):
                return False
        return True


def _left_running(node_pk: uuid.UUID) -> Job | None:
    return Job.objects.in_status(Status.RUNNING).filter(node_id=node_pk).select_related("node").first()


@dataclass
class Run:
    """One job's way to its end. `steps` are phases with their exit codes, None for one that is skipped."""

    job: Job
    host: Host
    ending: str
    steps: list[tuple[str, int | None]]
    by: Actor
    written: dict[str, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})
    digests: dict[str, Any] = field(
        default_factory=lambda: {"stdout": hashlib.sha256(), "stderr": hashlib.sha256()},
    )
    phases: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job, host: Host, ending: str) -> Run:
        """With what an earlier run of this command has written of it."""
        job = Job.objects.select_related("node").get(pk=job.pk)
        run = cls(job, host, ending, _steps(job, ending), Actor.agent(id=str(job.node_id), name=host.node_id))
        for stream in run.written:
            data = output.read(job.pk, stream).data
            run.written[stream] = len(data)
            run.digests[stream].update(data)
        return run

    def lines(self, phase: str, code: int) -> list[tuple[str, str]]:
        """(stream, line) of a phase; none when an earlier run was in it or past it."""
        if self.job.phase and self._at(phase) <= self._at(self.job.phase):
            return []
        if code not in (0, 1):
            return [("stderr", LOCKED)]
        texts = dict(told.written(self.job.preset, self.host, already=self.ending == "already"))
        text = texts.get(phase, BACK if phase == "rollback" else "")
        return [("stdout", line) for line in text.splitlines(keepends=True)]

    def _at(self, phase: str) -> int:
        return [name for name, _ in self.steps].index(phase) if phase in dict(self.steps) else -1

    async def write(self, stream: str, line: str, phase: str) -> bool:
        """True when somebody asked to cancel the job."""
        data = line.encode()
        piece = Piece(stream, self.written[stream], data)
        receipt = await in_thread(
            reports.add_output, by=self.by, job_id=self.job.pk, claim_id=self._claim, pieces=[piece], phase=phase
        )
        self.written[stream] += len(data)
        self.digests[stream].update(data)
        return receipt.cancel_requested

    @property
    def _claim(self) -> uuid.UUID:
        assert self.job.claim_id is not None  # it runs
        return self.job.claim_id

    async def end_as_played(self) -> None:
        codes = [code for _, code in self.steps if code is not None]
        if self.ending == "exit" and self.job.mode != Mode.CHECK:
            await self.end(status="failed", reason="exit", exit_code=100, changed=True)
        elif self.job.mode == Mode.CHECK:
            await self.end(status="succeeded", exit_code=codes[-1], changed=codes[-1] == 1)
        else:
            await self.end(status="succeeded", exit_code=0, changed=self.ending == "changed")

    async def end(self, **facts: Any) -> None:
        result = reports.Result(
            stdout_bytes=self.written["stdout"],
            stderr_bytes=self.written["stderr"],
            stdout_sha256=self.digests["stdout"].hexdigest(),
            stderr_sha256=self.digests["stderr"].hexdigest(),
            started_at=self.job.started_at,
            finished_at=timezone.now(),
            phases=self.phases,
            **facts,
        )
        await in_thread(reports.complete, by=self.by, job_id=self.job.pk, claim_id=self._claim, result=result)


def _steps(job: Job, ending: str) -> list[tuple[str, int | None]]:
    """As the agent would go through the parts, were they to end like this."""
    parts = job.parts
    is_checked, is_so = "check" in parts, ending == "already" and "check" in parts
    steps: list[tuple[str, int | None]] = [("check", 0 if is_so else 1)] if is_checked else []
    if job.mode == Mode.CHECK:
        return steps
    if is_so:
        return [*steps, ("apply", None), *([("verify", None)] if "verify" in parts else [])]
    steps.append(("apply", 100 if ending == "exit" else 0))
    after = "rollback" if ending == "exit" else "verify"
    return [*steps, (after, 0)] if after in parts else steps
