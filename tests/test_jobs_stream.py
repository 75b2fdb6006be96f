"""A viewer of a job whose web process is killed: with `Last-Event-ID` nothing is lost and nothing is shown twice."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.factories import ending
from tests.test_jobs_database import Caller, Server, caller, server

__all__ = ["caller", "server"]  # fixtures
pytestmark = pytest.mark.slow
PIECES, KILLS = 60, 3
# A character of four bytes at the edge of every piece, so that pieces begin and end inside of one.
TEXT = "".join(f"line {number} \U0001f600\n" for number in range(6000)).encode()
STEP = len(TEXT) // PIECES + 1


class Viewer:
    """Reads a stream, comes back where it was when the stream breaks, and keeps every event."""

    def __init__(self, base: Caller, job_id: str) -> None:
        self.caller, self.path, self.last_id = base, f"/api/jobs/{job_id}/stream", ""
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.streams = 0

    def watch(self) -> None:
        while not any(kind == "done" for kind, _ in self.events):
            with suppress(httpx.HTTPError):
                headers = {**self.caller.person, **({"last-event-id": self.last_id} if self.last_id else {})}
                with self.caller.http.stream("GET", self.path, headers=headers) as answer:
                    if answer.status_code == 200:
                        self.streams += 1
                        self._read(answer.iter_lines())
            time.sleep(0.1)

    def _read(self, lines: Iterator[str]) -> None:
        given: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            if line:
                given[name] = value
            elif "event" in given:
                self.events.append((given["event"], json.loads(given["data"])))
                self.last_id = given.get("id", self.last_id)
                given = {}


def test_a_viewer_misses_nothing_over_three_kills_of_the_server(server: Server, caller: Caller) -> None:
    assert caller.queue().status_code == 201
    work = caller.poll().json()["job"]
    assert caller.start(work["id"], work["claim_id"]).status_code == 200
    viewer = Viewer(caller, work["id"])
    watching = threading.Thread(target=viewer.watch, daemon=True)
    watching.start()
    for number in range(PIECES):
        if number in range(10, 10 + 15 * KILLS, 15):
            server.kill("web")
            server.children["web"].process = None
            server.children["web"].start()
        write(caller, work, number * STEP)
    body = ending(stdout_bytes=len(TEXT), stdout_sha256=hashlib.sha256(TEXT).hexdigest())
    report(caller, work, "complete", body)
    watching.join(30)
    assert not watching.is_alive()
    shown, offset = "", 0
    for kind, data in viewer.events:
        if kind == "stdout":
            assert data["offset"] == offset
            shown, offset = shown + data["text"], data["next_offset"]
    assert shown.encode() == TEXT
    assert viewer.streams >= KILLS
    assert [kind for kind, _ in viewer.events].count("done") == 1


def write(caller: Caller, work: dict[str, Any], offset: int) -> None:
    piece = {"stream": "stdout", "offset": offset, "data": base64.b64encode(TEXT[offset : offset + STEP]).decode()}
    report(caller, work, "output", {"phase": "apply", "chunks": [piece]})


def report(caller: Caller, work: dict[str, Any], verb: str, body: dict[str, Any]) -> None:
    """Until it was taken, as an agent does."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            sent = {"claim_id": work["claim_id"], **body}
            answer = caller.http.post(f"/api/jobs/{work['id']}/{verb}", json=sent, headers=caller.agent)
            if answer.status_code == 200:
                return
            assert answer.status_code >= 500, answer.text
        time.sleep(0.1)
    raise AssertionError(f"{verb} was not taken")
