"""Following a job to its end: over as many connections as it takes, without losing or doubling a byte."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from agent.cli.api import Api
from agent.cli.events import Event, read_events
from agent.cli.exits import FORBIDDEN, NOT_FOUND, Trouble, Unreachable
from agent.cli.sinks import Sink

GIVE_UP_SECONDS = 300.0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.25, 8.0
STREAMS = ("stdout", "stderr")
Watch = Callable[[dict[str, Any]], None]


class Patience:
    """How long an outage is sat through: a restart of the server, not a day."""

    def __init__(self) -> None:
        self._failing_since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS

    def well(self) -> None:
        self._failing_since, self._pause = None, FIRST_PAUSE_SECONDS

    def sit_through(self, error: Unreachable) -> None:
        """Sleep a while, or raise the error when it has taken too long."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since > GIVE_UP_SECONDS:
            raise Unreachable(f"{error} The job goes on without us.", code=error.code, detail=error.detail)
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)


class Follower:
    """`sink` None: only the end is of interest."""

    def __init__(self, api: Api, job_id: str, sink: Sink | None, watch: Watch = lambda state: None) -> None:
        self._api, self._job_id, self._sink, self._watch = api, job_id, sink, watch
        self._at = dict.fromkeys(STREAMS, 0)
        self._first = dict.fromkeys(STREAMS, 0)

    def run(self) -> dict[str, Any]:
        """Until the job has ended; returns its state at the end. Raises `Trouble`."""
        patience = Patience()
        try:
            while True:
                try:
                    state = self._connect(patience)
                    if state is not None:
                        return state
                except Unreachable as error:
                    patience.sit_through(error)
        finally:
            if self._sink is not None:
                self._sink.close()

    def _connect(self, patience: Patience) -> dict[str, Any] | None:
        """One connection: the state at the job's end, or None when the connection ended before."""
        cursor = f"stdout:{self._at['stdout']},stderr:{self._at['stderr']}"
        pieces = self._api.stream(f"/api/jobs/{self._job_id}/stream", last_event_id=cursor)
        try:
            for event in read_events(pieces):
                if event.name == "done":
                    return dict(event.data)
                self._take(event)
                if event.name != "error":
                    patience.well()
        except (ValueError, TypeError, KeyError):
            raise Unreachable(f"{self._api.url} sent what is no event of ours.") from None
        finally:
            pieces.close()
        # Closed in peace, as when it shuts down or the token ran out: there is more to come.
        raise Unreachable(f"{self._api.url} ended the stream before the job ended.")

    def _take(self, event: Event) -> None:
        if event.name == "status":
            self._watch(dict(event.data))
        elif event.name in STREAMS:
            self._watch({"status": "RUNNING"})
            start, end = int(event.data["offset"]), int(event.data["next_offset"])
            if self._sink is None:
                self._at[event.name] = end
            else:
                self._write(event.name, start, end, event.data["text"])

    def _write(self, stream: str, start: int, end: int, text: str) -> None:
        assert self._sink is not None
        at = self._at[stream]
        if end <= at:
            return
        data = text.encode()
        if "\ufffd" in text:  # bytes that are no text, or that character itself: the true ones are asked for
            start, data = self._exact(stream, max(start, at), end)
        if start > at:
            self._sink.gap(stream, start - at)
        self._sink.write(stream, data[max(0, at - start) :])
        self._at[stream] = end

    def _exact(self, stream: str, start: int, end: int) -> tuple[int, bytes]:
        """The stored bytes from `start`, or from the first that is still kept, to `end`."""
        for _ in range(20):
            first = self._first[stream]
            start = max(start, first)
            if start >= end:
                return end, b""
            headers = {"Range": f"bytes={start - first}-{end - 1 - first}"}
            try:
                answer = self._api.call(
                    "GET", f"/api/jobs/{self._job_id}/output", params={"stream": stream}, headers=headers
                )
            except Trouble as error:
                if error.exit_code in (FORBIDDEN, NOT_FOUND) or error.code != "range_not_satisfiable":
                    raise
                self._first[stream] = int(self._api.get(f"/api/jobs/{self._job_id}")[f"{stream}_first_offset"])
                continue
            if int(answer.headers["X-First-Offset"]) == first:
                return start, answer.content
            self._first[stream] = int(answer.headers["X-First-Offset"])
        raise Unreachable("The output moves on faster than it can be read.")
