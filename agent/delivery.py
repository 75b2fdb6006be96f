"""One job on its way: start it, send what it writes, deliver how it ended. One thread per job.

Everything is repeatable: output goes by byte offset, `start` and `complete` by claim. Whatever the network
does, the server ends up with the bytes that the script wrote and the exit code it had.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from agent import processes
from agent.client import Backoff, CallFailed, Client
from agent.crash import crash_point
from agent.journal import JobFolder
from agent.log import Log
from agent.spool import STREAMS, SpoolReader
from agent.wire import UNKNOWN_SHA256, nothing_ran, now_text, parse_payload, strict_base64

CHUNK_BYTES = 192 * 1024  # three of them in base64 stay below the body limit of 1 MiB
CHUNKS_PER_CALL = 3
FIRST_SEND_SECONDS = 0.02
SEND_SECONDS = 1.5
FULL_BYTES = 256 * 1024
LEASE_SECONDS = 10.0
TICK_SECONDS = 0.1
# Someone waits for the first line: for that one it looks more often, but not for ever.
FIRST_TICK_SECONDS = 0.02
FIRST_TICKS_FOR_SECONDS = 3.0
FULL_GAP_SECONDS = 0.25  # between calls while a script writes faster than we send
RUNNER_GONE_SECONDS = 2.0
ABANDON_SECONDS = 20.0  # a cancelled runner has ended everything by then
COMPLETE_TRIES = 5
STALE_SECONDS = 60.0  # a start that took longer, through an outage or a suspended host: the job may have expired
# What the runner needs, and all of it from here: it runs without site packages, so it starts in half the time.
_RUNNER = "import sys; sys.path.insert(0, sys.argv[1]); from agent.runner import main; sys.exit(main(sys.argv[2:]))"


class Abandoned(Exception):
    """The server does not want to hear of this job any more; the argument says why."""


def cut_short(folder: JobFolder, reason: str) -> dict[str, Any]:
    """The result of a job whose runner died: what it wrote is known, how it ended is not."""
    reader = SpoolReader(folder.path, after_reboot=reason == "host_rebooted")
    totals, _ = reader.progress()
    digests = reader.digests()
    began = (folder.read("exec") or {}).get("began_at", now_text())
    return {
        **nothing_ran(reason),
        "outcome_unknown": True,
        "stdout_bytes": totals[0],
        "stderr_bytes": totals[1],
        "stdout_sha256": digests[0],
        "stderr_sha256": digests[1],
        "started_at": began,
    }


def start_runner(folder: JobFolder, order: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """The process that runs the job in this folder, in a session of its own: it outlives us. The order holds secrets."""
    root = str(Path(__file__).resolve().parent.parent)
    with open(folder.path / "runner.log", "wb") as complaints:
        runner = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUNNER, root, str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            env=_runner_environment(),
            cwd="/",
            start_new_session=True,
            close_fds=True,
        )
    assert runner.stdin is not None
    try:
        runner.stdin.write(json.dumps(order).encode())
        runner.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; the missing result says so
    return runner


class Delivery:
    def __init__(
        self,
        folder: JobFolder,
        client: Client,
        *,
        stop: threading.Event,
        log: Log,
        secrets: Mapping[str, str] | None = None,
        claim_id: str = "",
        judge_again: Callable[[], str] = lambda: "",
    ) -> None:
        """`judge_again` says why the job may not run any more, or nothing."""
        self.folder = folder
        self.job_id = folder.job_id
        self.claim_id = claim_id or str((folder.read("intent") or {}).get("claim_id", ""))
        self.judge_again = judge_again
        self.client = client
        self.stop = stop
        self.log = log
        self.secrets = dict(secrets or {})
        self.runner_options: dict[str, float] = {}
        self.reader = SpoolReader(folder.path)
        self.next_offset = [0, 0]
        self.send_seconds = SEND_SECONDS
        self.backoff = Backoff()
        self._runner: subprocess.Popen[bytes] | None = None
        self._resumed = False
        self._is_output_over = False  # the server has other bytes than we: ours are of no use to it
        self._full_at = 0.0

    def run(self) -> None:
        """Until the server knows the end, or the agent stops: then the next agent goes on."""
        try:
            if not self.folder.may_have_run and not self.folder.has("result"):
                self._start()
            # A job that was refused was never started: it has no output, and the server would take none.
            if self.folder.may_have_run or self._runner is not None:
                self._follow()
            self._complete()
            self._close("delivered")
        except Abandoned as error:
            self.log.warning("job.abandoned", job=self.job_id, why=str(error))
            if self._runner is None and not self.folder.may_have_run and not self.folder.has("result"):
                self.folder.forget()  # nothing ran: under another claim it still may
                return
            self._end_runner()
            self._close(str(error))

    # --- start ---

    def _start(self) -> None:
        crash_point("CP06")
        asked_at = processes.boottime()
        self._call("start", {"claim_id": self.claim_id})
        crash_point("CP07")
        refusal = self.judge_again() if processes.boottime() - asked_at > STALE_SECONDS else ""
        if refusal:
            self.folder.write("result", nothing_ran(refusal))
            return
        self.folder.write("started", {"at": time.time()})
        crash_point("CP08A")  # the agent; CP08 itself is the runner's
        self._runner = start_runner(self.folder, {"secrets": self.secrets, **self.runner_options})
        self._resumed = True  # a new job: the server has nothing of it yet

    # --- while it runs ---

    def _follow(self) -> None:
        """Send output until there is a result and all of it is stored."""
        if not self._resumed and self.folder.has("exec"):
            self._send([])  # the answer says how far an earlier agent came
        began = sent_at = time.monotonic()
        waiting_since = 0.0
        while True:
            result = self.folder.read("result")
            if result is None:
                if self.reader.progress()[1]:
                    crash_point("CP10")
                self._mind_the_runner()
            pending = self._pending()
            now = time.monotonic()
            if pending and not waiting_since:
                waiting_since = now
            patience = FIRST_SEND_SECONDS if self.next_offset == [0, 0] else self.send_seconds
            is_full = pending >= FULL_BYTES and self.send_seconds <= SEND_SECONDS and now >= self._full_at
            if pending and (result is not None or is_full or now - waiting_since >= patience):
                self._send(self._chunks())
                sent_at, waiting_since = now, 0.0
                self._full_at = time.monotonic() + FULL_GAP_SECONDS
            elif result is not None and not pending:
                return
            elif now - sent_at >= LEASE_SECONDS:
                self._send([])
                sent_at = now
            else:
                is_first = self.next_offset == [0, 0] and now - began < FIRST_TICKS_FOR_SECONDS
                self._pause(FIRST_TICK_SECONDS if is_first else TICK_SECONDS)

    def _pending(self) -> int:
        if self._is_output_over:
            return 0
        totals, _ = self.reader.progress()
        return sum(max(0, total - done) for total, done in zip(totals, self.next_offset))

    def _chunks(self) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        totals, _ = self.reader.progress()
        for number, stream in enumerate(STREAMS):
            offset = self.next_offset[number]
            # One is left for the other stream: what a script complains of is not to wait for the end of a flood.
            limit = CHUNKS_PER_CALL - (number == 0 and totals[1] > self.next_offset[1])
            while offset < totals[number] and len(chunks) < limit:
                start, data = self.reader.read(number, offset, min(CHUNK_BYTES, totals[number] - offset))
                if not data:
                    break
                chunk: dict[str, Any] = {"stream": stream, "offset": start, "data": base64.b64encode(data).decode()}
                if start > offset:
                    chunk["skipped"] = True  # the ring had to let these bytes go before they were sent
                chunks.append(chunk)
                offset = start + len(data)
        return chunks

    def _send(self, chunks: list[dict[str, Any]]) -> None:
        body = {"claim_id": self.claim_id, "phase": self.reader.progress()[1] or None, "chunks": chunks}
        try:
            answer = self._call("output", body)
        except CallFailed as error:
            if error.status == 416:
                self._note_offsets(error.detail.get("next_offset"))
            else:
                # Whatever is wrong with the output, the script is not to suffer for it: it ends by itself.
                self.log.error("job.output_refused", job=self.job_id, error=str(error))
                self._is_output_over = True
            return
        self._note_offsets(answer.get("next_offset"))
        wanted = answer.get("send_after_ms")
        if isinstance(wanted, int):
            self.send_seconds = min(30.0, max(0.1, wanted / 1000))
        if answer.get("cancel_requested"):
            self.cancel()

    def _note_offsets(self, offsets: Any) -> None:
        if isinstance(offsets, dict) and all(isinstance(offsets.get(s), int) for s in STREAMS):
            self.next_offset = [max(0, offsets[s]) for s in STREAMS]

    def cancel(self) -> None:
        """Ask the runner to end everything; it says what really happened."""
        if not self.folder.cancel_requested and not self.folder.has("result"):
            self.log.info("job.cancelling", job=self.job_id)
            self._tell_the_runner()

    def _tell_the_runner(self) -> None:
        try:
            self.folder.request_cancel()
        except OSError as error:  # a full or read-only disk: a signal needs none
            self.log.warning("job.cancel_by_signal", job=self.job_id, why=str(error))
            record = self.folder.read("exec")
            if record is not None and self._is_runner_alive():
                processes.signal_all([int(record["pid"])], signal.SIGUSR1)

    # --- the runner's fate ---

    def _mind_the_runner(self) -> None:
        """When it is gone without a result, what is left of the job is ended and the outcome is unknown."""
        if self._runner is not None and self._runner.poll() is None:
            return
        # Ours may have ended because one of an earlier agent had begun: then that one counts.
        if self._is_runner_alive() or self.folder.has("result"):
            return
        record = self.folder.read("exec")
        if record is None and self.folder.may_have_run:  # a damaged record: nobody can say
            self.folder.write("result", cut_short(self.folder, "agent_error"))
            return
        if record is None:
            self.log.error("job.runner_failed", job=self.job_id, why=self._complaint())
            self.folder.write("result", nothing_ran("agent_error"))
            return
        reason = "runner_killed" if record["boot_id"] == processes.boot_id() else "host_rebooted"
        if reason == "runner_killed":
            self._end_orphans(record)
        self.folder.write("result", cut_short(self.folder, reason))

    def _complaint(self) -> str:
        """The last line of what a runner that never began had to say."""
        try:
            lines = (self.folder.path / "runner.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:500] if lines else ""

    def _is_runner_alive(self) -> bool:
        record = self.folder.read("exec")
        if record is None or record["boot_id"] != processes.boot_id():
            return False
        return processes.is_alive(int(record["pid"]), int(record["start_time"]))

    def _end_orphans(self, record: dict[str, Any]) -> None:
        """The script of a killed runner: its cgroup, or whoever carries the job's id in its environment."""
        if record.get("cgroup"):
            processes.kill_cgroup(Path(record["cgroup"]))
        processes.end_all(lambda: processes.with_environment("HYPRBOX_JOB_ID", self.job_id), grace=1.0)

    def _end_runner(self) -> None:
        """Nobody wants the result: the script must not go on either. Raises `InterruptedError`."""
        if self._runner is None and not self.folder.may_have_run:
            return
        deadline = time.monotonic() + ABANDON_SECONDS
        while not self.folder.has("result") and time.monotonic() < deadline:
            if not self.folder.cancel_requested:
                self._tell_the_runner()
            self._mind_the_runner()
            self._pause(TICK_SECONDS)

    # --- the end ---

    def _complete(self) -> None:
        """Deliver the result, and before it what the server still misses of the output."""
        result = self.folder.read("result")
        assert result is not None
        crash_point("CP14")
        body = {name: value for name, value in result.items() if name != "output_detached"}
        for _ in range(COMPLETE_TRIES):
            try:
                self._call("complete", {"claim_id": self.claim_id, **body})
                return
            except CallFailed as error:
                if error.code != "missing_output":
                    raise Abandoned(f"result refused: {error}") from error
                self._note_offsets(error.detail.get("next_offset"))
                while self._pending():
                    before = list(self.next_offset)
                    self._send(self._chunks())
                    if self.next_offset == before:
                        break
                body = self._with_what_is_stored(body)
        raise Abandoned("the server misses output that is not kept any more")

    def _with_what_is_stored(self, body: dict[str, Any]) -> dict[str, Any]:
        """The true result, with the output as the server has it, where ours is lost or is not the same.

        So it is after a power cut that took what was sent already, and after a conflict: better a job that ends
        with its real exit code than one that is given up because of its output.
        """
        changed = dict(body)
        for stream, stored in zip(STREAMS, self.next_offset):
            if stored != body[f"{stream}_bytes"]:
                changed[f"{stream}_bytes"], changed[f"{stream}_sha256"] = stored, UNKNOWN_SHA256
        if changed != body:
            self.log.warning("job.output_differs", job=self.job_id)
        return changed

    def _close(self, why: str) -> None:
        self.folder.write("closed", {"at": time.time(), "why": why, "expires_at": self._expires_at()})
        record = self.folder.read("exec") or {}
        deadline = time.monotonic() + RUNNER_GONE_SECONDS
        while self._is_runner_alive() and self.folder.has("result") and time.monotonic() < deadline:
            time.sleep(0.02)  # it wrote its result and is about to end
        if self._runner is not None:
            threading.Thread(target=self._runner.wait, daemon=True).start()
        if self.folder.has("result") or not self._is_runner_alive():
            self.reader.remove()
            self.folder.free_reserve()
            if record.get("cgroup"):
                processes.remove_cgroup(Path(record["cgroup"]))

    def _expires_at(self) -> float:
        intent = self.folder.read("intent") or {}
        try:
            return parse_payload(strict_base64(intent.get("payload"))).expires_at.timestamp()
        except ValueError:
            return 0.0

    # --- calls ---

    def _call(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """Repeat until an answer means something. Raises `Abandoned`, `CallFailed`, `InterruptedError`."""
        while True:
            try:
                answer = self.client.post(f"/api/jobs/{self.job_id}/{verb}", body)
            except CallFailed as error:
                if error.code in (
                    "stale_claim",
                    "job_finished",
                    "unknown_job",
                    "completion_differs",
                    "job_not_started",
                ):
                    raise Abandoned(error.code) from error
                if not error.is_worth_repeating:
                    raise
                self.log.warning("job.call_failed", job=self.job_id, call=verb, error=str(error))
                self._pause(self.backoff.failed(error))
                continue
            self.backoff.succeeded()
            return answer

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise InterruptedError


def _runner_environment() -> dict[str, str]:
    """Only what Python needs to find us: never the token."""
    keep: dict[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    for name in ("HYPRBOX_TEST", "HBX_CRASH_AT", "HYPRBOX_PLANTED_BUG"):
        if os.environ.get(name):
            keep[name] = os.environ[name]
    return keep
