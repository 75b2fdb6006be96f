"""What is known after a fault test: from the client's log, the database, the agents' journals and the witnesses."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import psycopg

from agent.journal import Journal
from tests.faults.client import Asked
from tests.house import ROOT

if TYPE_CHECKING:
    from tests.faults.stack import Stack

ORPHAN_SECONDS = 30.0
STREAMS = ("stdout", "stderr")


@dataclass(frozen=True)
class Kept:
    """One stored stream. `first` is the true offset of the first byte of `data`."""

    total: int
    first: int
    sha256: str
    data: bytes


@dataclass(frozen=True)
class Window:
    """What was stored of a stream at some moment while its job was under way."""

    job_id: str
    stream: str
    total: int
    first: int
    data: bytes


@dataclass(frozen=True)
class Line:
    """One line of a witness file. `at` is in nanoseconds since boot."""

    kind: str
    host: str
    job_id: str
    nonce: str
    at: int
    sha256: str = ""
    code: int = 0


@dataclass(frozen=True)
class Use:
    """What one process held at some moment (`at`: monotonic seconds); for PostgreSQL `handles` are our connections."""

    name: str
    pid: int
    at: float
    handles: int
    rss_bytes: int


@dataclass(frozen=True)
class Drain:
    """What became of a backlog of `waiting` jobs while `arrived` more came: all of it had ended after `seconds`."""

    waiting: int
    arrived: int
    seconds: float
    arrival: float  # jobs a second

    @property
    def rate(self) -> float:
        """Jobs that ended, a second."""
        return (self.waiting + self.arrived) / self.seconds


@dataclass(frozen=True)
class Change:
    old: str | None
    new: str
    at: datetime


@dataclass
class JobFacts:
    """One row of the database and what belongs to it."""

    id: str
    node: str
    nonce: str
    status: str
    reason: str
    exit_code: int | None
    outcome_unknown: bool
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    script: bytes
    payload: bytes
    signature: str
    key_id: str
    late_result: dict[str, Any] | None
    streams: dict[str, Kept] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    output_steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    audit: list[str] = field(default_factory=list)


@dataclass
class Evidence:
    asked: dict[str, Asked]
    jobs: dict[str, JobFacts]
    witness: list[Line]
    executed_payloads: dict[tuple[str, str], bytes]  # (host, job) with an `exec` record: what its agent was given
    public_keys: dict[str, str]
    concurrency: int
    excused: set[str] = field(default_factory=set)  # their runner or host was killed: nobody can know how they ended
    windows: list[Window] = field(default_factory=list)
    audited_strangers: list[str] = field(default_factory=list)
    past_deadline: float = 0.0
    audit_report: dict[str, Any] = field(default_factory=lambda: {"intact": True})  # what `audit_verify` says
    uses: list[Use] = field(default_factory=list)
    normal_after: float | None = 0.0  # seconds from the end of the faults until answers were as quick as before them
    drain: Drain | None = None  # None: nobody looked
    orphans: list[tuple[str, int]] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    server_errors: list[str] = field(default_factory=list)
    noted_open: set[str] = field(default_factory=set)  # jobs that polls look at


_JOBS = """
SELECT j.id::text, n.node_id, j.variables->>'NONCE', j.status, j.reason, j.exit_code, j.outcome_unknown, j.created_at,
       j.claimed_at, j.started_at, j.finished_at, j.cancel_requested_at, j.script, j.payload, j.signature, j.key_id,
       j.late_result
FROM jobs_job j JOIN nodes_node n ON n.id = j.node_id
"""
_STREAMS = """
SELECT t.job_id::text, t.{s}_bytes, t.{s}_first_offset, t.{s}_sha256,
       COALESCE(min(c."offset"), t.{s}_first_offset), COALESCE(string_agg(c.data, ''::bytea ORDER BY c."offset"), ''),
       COALESCE(sum(length(c.data)), 0), COALESCE(max(c."offset" + length(c.data)), t.{s}_first_offset)
FROM jobs_transcript t LEFT JOIN jobs_outputchunk c ON c.job_id = t.job_id AND c.stream = '{s}'
WHERE {where} GROUP BY t.job_id
"""


def gather(
    stack: Stack,
    windows: list[Window] | None = None,
    *,
    uses: list[Use] | None = None,
    normal_after: float | None = 0.0,
    drain: Drain | None = None,
    with_audit: bool = True,
) -> Evidence:
    """Everything, once the run has settled. Verifying the audit log takes a process of its own: seconds."""
    jobs = {row[0]: _facts(row) for row in stack.sql(_JOBS)}
    for stream in STREAMS:
        for job_id, kept in stored(stack, stream).items():
            jobs[job_id].streams[stream] = kept
    for job_id, old, new, at in stack.sql("SELECT job_id::text, old, new, at FROM faults_history ORDER BY seq"):
        if job_id in jobs:
            jobs[job_id].history.append(Change(old, new, at))
    steps = (
        "SELECT job_id::text, stdout_bytes, stdout_first, stderr_bytes, stderr_first FROM faults_output ORDER BY seq"
    )
    for job_id, *step in stack.sql(steps):
        if job_id in jobs:
            jobs[job_id].output_steps.append((step[0], step[1], step[2], step[3]))
    strangers = []
    for action, target in stack.sql("SELECT action, target FROM audit_event WHERE target LIKE 'job:%' ORDER BY id"):
        if (job_id := target.removeprefix("job:")) in jobs:
            jobs[job_id].audit.append(action)
        else:
            strangers.append(f"{action} {target}")
    return Evidence(
        asked=dict(stack.people.asked),
        jobs=jobs,
        witness=read_witness(stack.root / "witness"),
        executed_payloads=_executed(stack),
        public_keys=_public_keys(stack),
        concurrency=stack.concurrency,
        excused=set(stack.killed_runners),
        windows=list(windows or []),
        audited_strangers=strangers,
        past_deadline=_past_deadline(stack),
        audit_report=_audit_report(stack) if with_audit else {"intact": True},
        uses=list(uses or []),
        normal_after=normal_after,
        drain=drain,
        orphans=_orphans(stack, jobs),
        leaks=_leaks(stack, jobs),
        unasked=[*stack.unasked, *(child.died_unasked for child in stack.children.values() if child.died_unasked)],
        server_errors=[*stack.people.errors, *_tracebacks(stack)],
        noted_open={job_id for (job_id,) in stack.sql("SELECT job_id::text FROM jobs_openjob")},
    )


def stored(stack: Stack, stream: str, job_id: str = "") -> dict[str, Kept]:
    """A stream of all jobs or of one, as one statement sees it. Chunks that do not join are not `data`."""
    where = "t.job_id = %s" if job_id else "true"
    found = {}
    for row in stack.sql(_STREAMS.format(s=stream, where=where), *([job_id] if job_id else [])):
        total, first, sha256, base, data, length, end = row[1], row[2], row[3], row[4], bytes(row[5]), row[6], row[7]
        is_whole = base <= first and end == total and base + length == end
        found[row[0]] = Kept(total, first, sha256, data[first - base :] if is_whole else b"\0 chunks do not join")
    return found


def read_witness(folder: Path) -> list[Line]:
    found = []
    for path in sorted(folder.iterdir()):
        host = "" if path.name == "unknown" else path.name
        for text in path.read_text().splitlines():
            kind, job_id, nonce, *rest = text.split(" ")
            if kind == "START":
                found.append(Line("START", host, job_id, nonce, at=int(rest[1]), sha256=rest[3]))
            else:
                found.append(Line("END", host, job_id, nonce, at=int(rest[1]), code=int(rest[0])))
    return sorted(found, key=lambda line: line.at)


def _facts(row: tuple[Any, ...]) -> JobFacts:
    values = list(row)
    values[12], values[13] = bytes(row[12]), bytes(row[13])
    return JobFacts(*values)


def _executed(stack: Stack) -> dict[tuple[str, str], bytes]:
    found = {}
    for node in stack.nodes:
        for folder in Journal(stack.state_dir(node)).folders():
            if folder.may_have_run:
                payload = (folder.read("intent") or {}).get("payload", "")
                found[node, folder.job_id] = base64.b64decode(payload)
    return found


def _public_keys(stack: Stack) -> dict[str, str]:
    answer = httpx.get(f"{stack.url}/api/agent/keys", timeout=20).json()
    return {key["key_id"]: key["public_key"] for key in answer["keys"]}


def _past_deadline(stack: Stack) -> float:
    """What /metrics says, or more when the rows say more."""
    headers = {"Authorization": f"Bearer {stack.metrics_token}"}
    text = httpx.get(f"{stack.url}/metrics", headers=headers, timeout=20).text
    told = re.search(r"^hyprbox_jobs_past_deadline (\S+)", text, re.MULTILINE)
    assert told is not None, text[:500]
    overdue = """SELECT count(*) FROM jobs_job WHERE status IN ('QUEUED', 'RUNNING')
      AND now() > COALESCE(deadline_at, expires_at) + interval '1 minute' AND COALESCE(lease_expires_at, now()) <= now()"""
    return max(float(told[1]), float(stack.sql(overdue)[0][0]))


def _audit_report(stack: Stack) -> dict[str, Any]:
    command = [sys.executable, "manage.py", "audit_verify", "--json"]
    done = subprocess.run(command, env=stack.environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {"why": done.stderr[-500:]}
    return report


def uses_of(stack: Stack) -> list[Use]:
    """What our processes hold now; who is dead or dies meanwhile holds nothing."""
    now, found = time.monotonic(), []
    pids: list[int] = []
    for child in list(stack.children.values()):
        with suppress(psutil.Error, OSError):
            if child.process is not None:
                seen = psutil.Process(child.process.pid)
                pids.append(seen.pid)
                found.append(Use(child.name, seen.pid, now, seen.num_fds(), seen.memory_info().rss))
    with suppress(psycopg.Error):
        [(pid, count)] = stack.sql(
            "SELECT extract(epoch FROM pg_postmaster_start_time())::int, count(*)::int "
            "FROM pg_stat_activity WHERE application_name LIKE 'hyprbox%%'"
        )
        # Whoever has just started has few connections yet: only while all of them live can growth be told from that.
        found.append(Use("connections", hash((pid, *pids)), now, count, 0))
    return found


def _orphans(stack: Stack, jobs: dict[str, JobFacts]) -> list[tuple[str, int]]:
    ended = {job.id for job in jobs.values() if job.finished_at is not None}
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (left := stack.job_processes(ended)) and time.monotonic() < deadline:
        time.sleep(0.3)
    return [("", pid) for pid in left]


def _leaks(stack: Stack, jobs: dict[str, JobFacts]) -> list[str]:
    """Where a node's token was found although nobody should ever see it."""
    found = []
    for node, token in stack.tokens.items():
        for log in (stack.root / "log").glob("*.log"):
            if token in log.read_text(errors="replace"):
                found.append(f"the token of {node} is in {log.name}")
        for table in ("audit_event", "jobs_job", "tokens_nodetoken"):
            if stack.sql(f"SELECT 1 FROM {table} t WHERE position(%s in t::text) > 0 LIMIT 1", token):
                found.append(f"the token of {node} is in {table}")
        for job in jobs.values():
            if any(token.encode() in kept.data for kept in job.streams.values()) or token.encode() in job.payload:
                found.append(f"the token of {node} is in job {job.id}")
    return found


def _tracebacks(stack: Stack) -> list[str]:
    """Of our own processes. The worker's library writes one when its database dies: then its log tells nothing."""
    found = []
    for log in sorted((stack.root / "log").glob("*.log")):
        if log.stem.startswith("worker") and stack.kills["postgres"]:
            continue
        with suppress(OSError):
            text = log.read_text(errors="replace")
            found += [f"{log.name}: {_gist(text[at.start() :])}" for at in list(re.finditer("Traceback", text))[:3]]
    return found


def _gist(text: str) -> str:
    """What a traceback ends with, whether it has lines of its own or is in one line of JSON."""
    lines = text.splitlines()
    if "\\n" in lines[0]:
        return lines[0][-400:]
    ends = (line for line in lines[1:] if not line.startswith((" ", "\t")))
    return " ".join([lines[0], *(line.strip() for line in lines[1:6]), "...", next(ends, "")])[:600]
