"""Waiting for the jobs of one order, with their output live; and what is said when a person stops waiting."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from agent.cli import printing
from agent.cli.api import Api
from agent.cli.base import clean, current, is_tty
from agent.cli.exits import INTERRUPTED, Trouble, Unreachable, exit_code_of, exit_code_of_all
from agent.cli.follow import Follower, Patience
from agent.cli.outcomes import sentence
from agent.cli.sinks import Sink

LOOK_SECONDS = 1.0
MAX_FOLLOWED = 10  # at a time; the server allows 20 streams to one person, who may have a browser open too


def wait_for(api: Api, jobs: list[dict[str, Any]], *, batch: str | None = None) -> list[dict[str, Any]]:
    """The jobs as they ended, in the same order. Ctrl-C ends the waiting, not the jobs. Raises `Trouble`."""
    try:
        if len(jobs) == 1:
            return [_wait_for_one(api, jobs[0])]
        return _Several(api, jobs, batch).run()
    except KeyboardInterrupt:
        api.settle()
        raise _stopped_waiting([job["id"] for job in jobs], batch) from None


def tell_end(jobs: Iterable[dict[str, Any]], *, stopped: str = "") -> int:
    """How each of several jobs ended, a line for each; of a single one only a failure, but for people. The exit code.

    `stopped`: why the rest of the batch was cancelled.
    """
    jobs = sorted(jobs, key=lambda job: ("SUCCEEDED", "CANCELLED", "FAILED").index(job["status"]))
    if not current().as_json:
        are_told = is_tty(sys.stderr) or len(jobs) > 1
        Sink.new_line(is_wanted=are_told or any(job["status"] != "SUCCEEDED" for job in jobs))
        for job in jobs:
            if are_told or job["status"] != "SUCCEEDED":
                printing.verdict(job["status"], sentence(job))
        if len(jobs) > 1:
            printing.verdict("FAILED" if any(map(exit_code_of, jobs)) else "SUCCEEDED", _in_all(jobs))
        if stopped:
            printing.complain(f"The rest was cancelled: {stopped}")
    return exit_code_of_all(jobs)


def _in_all(jobs: list[dict[str, Any]]) -> str:
    """`38 of 40 succeeded, 2 failed.`"""
    counted = {status: sum(job["status"] == status for job in jobs) for status in ("SUCCEEDED", "FAILED", "CANCELLED")}
    others = "".join(
        f", {number:,} {status.lower()}" for status, number in counted.items() if number and status != "SUCCEEDED"
    )
    return f"{counted['SUCCEEDED']:,} of {len(jobs):,} succeeded{others}."


def _stopped_waiting(ids: list[str], batch: str | None) -> Trouble:
    what = "The job goes on. Cancel it" if len(ids) == 1 else f"The {len(ids):,} jobs go on. Cancel them"
    which = f"--batch {batch}" if batch else " ".join(ids)
    return Trouble(f"{what} with: hyprbox jobs cancel {which}", code="interrupted", exit_code=INTERRUPTED)


class _Watcher:
    """Tells a person whom we wait for, until there is something to see."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job, self._status = job, ""
        self._spinner: Any = None

    def __call__(self, state: dict[str, Any]) -> None:
        status = state["status"]
        if status == self._status:
            return
        self._status = status
        if status == "QUEUED":
            self._spin(f"Waiting for {self._job['node_id']} to come for it")
        else:
            self.stop()

    def _spin(self, text: str) -> None:
        if not is_tty(sys.stderr) or current().as_json:
            return
        from rich.console import Console
        from rich.text import Text

        self._spinner = Console(stderr=True).status(Text(clean(text)))
        self._spinner.start()

    def stop(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


def _wait_for_one(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    watcher = _Watcher(job)
    try:
        return {**job, **Follower(api, job["id"], _sink(), watcher).run()}
    finally:
        watcher.stop()


def _sink(label: str = "") -> Sink | None:
    return None if current().as_json else Sink(label)


class _Several:
    """Each job is followed as soon as its node has come for it, a few at a time."""

    def __init__(self, api: Api, jobs: list[dict[str, Any]], batch: str | None) -> None:
        self._api, self._jobs, self._batch = api, jobs, batch
        self._ended: dict[str, dict[str, Any]] = {}
        self._followed: set[str] = set()
        self._failure: BaseException | None = None
        self._as_json = current().as_json
        self._width = max(len(job["node_id"]) for job in jobs)

    def run(self) -> list[dict[str, Any]]:
        patience = Patience()
        told = 0
        while len(self._ended) < len(self._jobs):
            if self._failure is not None:
                raise self._failure
            try:
                waiting = [row for row in self._look() if row["status"] != "QUEUED" and row["id"] not in self._followed]
                patience.well()
            except Unreachable as error:
                patience.sit_through(error)
                continue
            for row in waiting[: MAX_FOLLOWED - (len(self._followed) - len(self._ended))]:
                self._followed.add(row["id"])
                threading.Thread(target=self._follow, args=(row,), daemon=True).start()
            time.sleep(LOOK_SECONDS if not waiting else LOOK_SECONDS / 5)
            if told != len(self._ended):
                told = len(self._ended)
                printing.note(f"{told} of {printing.plural(len(self._jobs), 'job')} ended.")
        return [{**job, **self._ended[job["id"]]} for job in self._jobs]

    def _look(self) -> list[dict[str, Any]]:
        if self._batch is not None:
            return self._api.pages("/api/jobs", {"batch": self._batch})
        missing = [job["id"] for job in self._jobs if job["id"] not in self._followed]
        return [self._api.get(f"/api/jobs/{job_id}") for job_id in missing]

    def _follow(self, job: dict[str, Any]) -> None:
        sink = None if self._as_json else Sink(job["node_id"].ljust(self._width))
        try:
            self._ended[job["id"]] = Follower(self._api, job["id"], sink).run()
        except BaseException as error:  # noqa: BLE001 - whatever it was, the main thread raises it
            self._failure = error
