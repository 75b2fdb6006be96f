"""GET /api/jobs/{id}/stream: a job's output as it is written, resumable by byte offset.

Hints say that something is new; the bytes are read from the database, so nothing is lost or repeated over
a lost hint, a reconnect or a restart of the server. Every 2 s the database is read without a hint.
"""

from __future__ import annotations

import codecs
import re
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs

from accounts.authentication import actor_from_scope
from hyprbox.lib import lanes, live
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.sse import EventStream, frame
from hyprbox.lib.threads import in_thread
from jobs import output, selectors
from jobs.models import Job
from jobs.states import Stream

POLL_SECONDS = 2.0
READ_LIMIT = 64 * 1024
_CURSOR = re.compile(r"stdout:(\d{1,18}),stderr:(\d{1,18})")


@dataclass(slots=True)
class Tail:
    """Where a viewer is in one stream. `offset` is the next byte to show; half a character waits."""

    stream: str
    offset: int
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def take(self, stored: output.Stored, *, is_final: bool) -> dict[str, Any] | None:
        """The event for what was read, or None when there is nothing whole to show yet."""
        if stored.offset > self.offset:  # what lay between is no longer kept: shows as a larger offset
            self._decoder.reset()
            self.offset = stored.offset
        start = self.offset
        text = self._decoder.decode(stored.data, is_final)
        held_back = len(self._decoder.getstate()[0])
        self._decoder.reset()
        self.offset = start + len(stored.data) - held_back
        if not text:
            return None
        return {"offset": start, "next_offset": self.offset, "text": text}


def parse_cursor(text: str) -> tuple[int, int]:
    """`stdout:123,stderr:45` -> (123, 45); an empty text is the beginning. Raises `InvalidInput`."""
    if not text:
        return 0, 0
    match = _CURSOR.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(fields={"Last-Event-ID": [f"“{text[:80]}” is not a position like stdout:123,stderr:45."]})
    return int(match[1]), int(match[2])


def public_state(job: Job) -> dict[str, Any]:
    """What the `status` and `done` events tell."""
    return {
        "id": job.pk,
        "status": job.status,
        "reason": job.reason or None,
        "phase": job.phase or None,
        "phases": job.phases,
        "changed": job.changed,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "outcome_unknown": job.outcome_unknown,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "cancel_requested_at": job.cancel_requested_at,
        "contact_lost_at": job.contact_lost_at,
        "stdout_bytes": job.transcript.stdout_bytes,
        "stderr_bytes": job.transcript.stderr_bytes,
    }


class JobStream(EventStream):
    authenticate: ClassVar = staticmethod(actor_from_scope)

    async def authorize(self) -> None:
        require(self.actor, Capability.VIEW_OUTPUT)
        if not hasattr(self, "tails"):
            self.job_id: uuid.UUID = self.scope["url_route"]["kwargs"]["job_id"]
            query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
            cursor = lanes.header(self.scope, b"last-event-id") or (query.get("after") or [""])[0]
            stdout, stderr = parse_cursor(cursor)
            self.tails = [Tail(Stream.STDOUT, stdout), Tail(Stream.STDERR, stderr)]
            await in_thread(selectors.job_detail, by=self.actor, job_id=self.job_id)

    async def frames(self) -> AsyncGenerator[bytes]:
        await live.listener.ensure()
        shown: dict[str, Any] | None = None
        with live.hub.subscribe(f"job.{self.job_id}") as subscription:
            while True:
                # The state is read before the output: when it says finished, the output is all there.
                job = await in_thread(selectors.job_detail, by=self.actor, job_id=self.job_id)
                async for data in self._output(is_final=job.is_finished):
                    yield data
                state = public_state(job)
                stable = {k: v for k, v in state.items() if not k.endswith("_bytes")}
                if stable != shown:
                    shown = stable
                    yield frame("status", state, id=self._cursor())
                if job.is_finished:
                    yield frame("done", state, id=self._cursor())
                    return
                if not await subscription.batch(POLL_SECONDS):
                    yield b""

    async def _output(self, *, is_final: bool) -> AsyncGenerator[bytes]:
        for tail in self.tails:
            while True:
                stored = await in_thread(output.read, self.job_id, tail.stream, start=tail.offset, limit=READ_LIMIT)
                reached_end = stored.offset + len(stored.data) >= stored.total
                event = tail.take(stored, is_final=is_final and reached_end)
                if event is not None:
                    yield frame(tail.stream, event, id=self._cursor())
                if reached_end:
                    break

    def _cursor(self) -> str:
        return ",".join(f"{tail.stream}:{tail.offset}" for tail in self.tails)
