"""One checker for the invariants: every fault test ends with it. Pure: evidence in, violations out.

`docs/explain/faults.md` has the table of the invariants and says which cannot be told here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from tests.faults import scribe
from tests.faults.client import Asked
from tests.faults.evidence import Evidence, JobFacts, Kept, Line, Use

CAP = 4 * 1024 * 1024
SIGNED_CONTEXT = b"hyprbox-job-v1\0"
UNKNOWN_SHA256 = "0" * 64
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELLED"}
ARROWS = {None: {"QUEUED"}, "QUEUED": {"RUNNING", "FAILED", "CANCELLED"}, "RUNNING": TERMINAL}
NEVER_RAN = {"expired", "signature_invalid", "refused", "secret_unresolved", "clock_skew"}
# Reasons that the truth cannot contradict, because the outcome is what the script could not decide.
CUT_SHORT = {"timeout", "runner_killed", "host_rebooted", "agent_error"}


@dataclass(frozen=True)
class Violation:
    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


NORMAL_SECONDS = 60.0
DRAIN_TIMES = 2.0
STEADY_SECONDS = 20.0
# Pools that fill and code that is loaded with its first use; a leak goes on.
SLACK_HANDLES, SLACK_BYTES = 16, 24 * 1024 * 1024

Check = Callable[[Evidence], Iterator[str]]
CHECKS: dict[str, Check] = {}


def _invariant(name: str) -> Callable[[Check], Check]:
    def note(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return note


def check(evidence: Evidence) -> list[Violation]:
    return [Violation(name, text) for name, look in CHECKS.items() for text in look(evidence)]


def _lines(evidence: Evidence, job_id: str, kind: str) -> list[Line]:
    return [line for line in evidence.witness if line.kind == kind and line.job_id == job_id]


def _asked(evidence: Evidence, job: JobFacts) -> Asked | None:
    return evidence.asked.get(job.nonce)


@_invariant("I1")
def every_accepted_job_exists_and_no_other(evidence: Evidence) -> Iterator[str]:
    for nonce, asked in evidence.asked.items():
        if asked.was_accepted and asked.job_id not in evidence.jobs:
            yield f"the order {nonce} was answered with job {asked.job_id}, which does not exist"
        for other in asked.other_ids:
            yield f"the order {nonce} was answered with job {asked.job_id} and with job {other}"
    counts = Counter(job.nonce for job in evidence.jobs.values())
    for nonce, count in counts.items():
        if nonce not in evidence.asked:
            yield f"nobody asked for the job of {nonce}"
        if count > 1:
            yield f"{count} jobs were made of the one order {nonce}"


@_invariant("I2")
def every_job_has_ended(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        if job.status not in TERMINAL or job.finished_at is None:
            since = job.started_at or job.claimed_at or job.created_at
            yield f"job {job.id} of {job.node} is still {job.status}, since {since:%H:%M:%S}"
            if job.id not in evidence.noted_open:
                yield f"no poll looks at job {job.id}, which has not ended"
        elif job.id in evidence.noted_open:
            yield f"job {job.id} has ended, and polls still look at it"


@_invariant("I3")
def no_script_starts_twice(evidence: Evidence) -> Iterator[str]:
    for job_id, count in Counter(line.job_id for line in evidence.witness if line.kind == "START").items():
        if count > 1:
            yield f"the script of job {job_id} was started {count} times"
        if job_id not in evidence.jobs:
            yield f"a script ran as job {job_id}, which does not exist"


@_invariant("I4")
def what_is_said_of_the_end_is_true(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        starts, ends = _lines(evidence, job.id, "START"), _lines(evidence, job.id, "END")
        if job.status == "SUCCEEDED" and (
            len(starts) != 1 or [line.code for line in ends] != [0] or job.exit_code != 0
        ):
            yield f"job {job.id} SUCCEEDED with {len(starts)} starts and the ends {[line.code for line in ends]}"
        if job.status == "FAILED" and job.reason == "exit" and [line.code for line in ends] != [job.exit_code]:
            yield f"job {job.id} FAILED with exit code {job.exit_code}, but its ends are {[line.code for line in ends]}"


@_invariant("I5")
def what_never_ran_never_started(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        was_started = any(change.new == "RUNNING" for change in job.history)
        never = (job.status == "CANCELLED" and not was_started) or (job.status == "FAILED" and job.reason in NEVER_RAN)
        if never and _lines(evidence, job.id, "START"):
            yield f"job {job.id} is {job.status} ({job.reason}) without a start, and its script ran"


@_invariant("I6")
def the_truth_arrives(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        asked, ends = _asked(evidence, job), _lines(evidence, job.id, "END")
        is_excused = job.id in evidence.excused
        was_cancelled = job.status == "CANCELLED" and asked is not None and asked.cancel_asked
        if job.status == "FAILED" and job.reason == "lost":
            yield f"job {job.id} is given up as lost, and its node was there"
        if job.outcome_unknown and not is_excused and not (asked and asked.forced):
            yield f"the outcome of job {job.id} is said to be unknown, and nobody killed its runner ({job.reason})"
        if job.status == "CANCELLED" and not was_cancelled:
            yield f"job {job.id} is CANCELLED, and nobody asked for it"
        if len(ends) != 1 or was_cancelled or (is_excused and job.reason in CUT_SHORT):
            continue
        code = ends[0].code
        expected = ("SUCCEEDED", "", 0) if code == 0 else ("FAILED", "exit", code)
        if (job.status, job.reason, job.exit_code) != expected:
            yield f"the script of job {job.id} ended with {code}, and the job is {job.status} {job.reason} {job.exit_code}"


@_invariant("I7")
def output_is_what_was_written(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        asked = _asked(evidence, job)
        if asked is None or job.status not in TERMINAL:
            continue
        has_ended = bool(_lines(evidence, job.id, "END")) and job.status != "CANCELLED"
        for name, length in (("stdout", asked.plan.stdout_bytes), ("stderr", asked.plan.stderr_bytes)):
            kept = job.streams.get(name)
            wrong = _wrong_output(kept, asked.plan.seed, name, length, job, evidence, has_ended) if kept else "missing"
            if wrong:
                yield f"{name} of job {job.id} {wrong}"


def _wrong_output(
    kept: Kept, seed: int, name: str, length: int, job: JobFacts, evidence: Evidence, has_ended: bool
) -> str:
    if kept.total > length or (has_ended and kept.total != length and job.reason != "host_rebooted"):
        return f"has {kept.total} bytes in all, and its script wrote {length}"
    if not _lines(evidence, job.id, "START") and kept.total and job.id not in evidence.excused:
        return f"has {kept.total} bytes, and its script never started"
    if kept.first != max(0, kept.total - CAP):
        return f"is kept from {kept.first} on, of {kept.total} bytes"
    written = scribe.stream(seed, name, kept.total)
    if kept.data != written[kept.first :]:
        at = next((i for i, (a, b) in enumerate(zip(kept.data, written[kept.first :], strict=False)) if a != b), -1)
        return f"is not what was written (of {kept.total} bytes, the first difference is at {at})"
    # A job that was never handed over has no digest; one whose runner was killed may not know it.
    known = {hashlib.sha256(written).hexdigest()}
    if job.id in evidence.excused:
        known.add(UNKNOWN_SHA256)
    if not _was_reported(job):
        known.add("")
    return "" if kept.sha256 in known else f"has the SHA-256 {kept.sha256}, and that of what was written is another"


def _was_reported(job: JobFacts) -> bool:
    """Whether an agent told how it ended."""
    given_up = job.reason in ("lost", "expired") or (job.status == "CANCELLED" and job.outcome_unknown)
    unclaimed = not any(change.new == "RUNNING" for change in job.history)
    return not given_up and not unclaimed


@_invariant("I8")
def stored_output_only_moves_forward(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        before = (0, 0, 0, 0)
        for step in job.output_steps:
            if any(new < old for old, new in zip(before, step, strict=True)):
                yield f"the stored output of job {job.id} went back from {before} to {step}"
            before = step
        if any(step[0] - step[1] > CAP or step[2] - step[3] > CAP for step in job.output_steps):
            yield f"more than 4 MiB of a stream of job {job.id} were kept"
    for window in evidence.windows:
        job_ = evidence.jobs.get(window.job_id)
        asked = evidence.asked.get(job_.nonce) if job_ else None
        if asked is None:
            continue
        written = scribe.stream(asked.plan.seed, window.stream, window.total)
        if window.data != written[window.first :]:
            yield f"for a while {window.stream} of job {window.job_id} was not a piece of what was written"


@_invariant("I9")
def states_follow_the_arrows(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        state: str | None = None
        for change in job.history:
            if change.old != state or change.new not in ARROWS.get(state, set()):
                yield f"job {job.id} went from {change.old} to {change.new} when it was {state}"
            state = change.new
        if state != job.status:
            yield f"job {job.id} is {job.status}, and the last change was to {state}"
        if any(later.at < earlier.at for earlier, later in zip(job.history, job.history[1:], strict=False)):
            yield f"the changes of job {job.id} go back in time"
        times = [at for at in (job.created_at, job.claimed_at, job.started_at, job.finished_at) if at is not None]
        if times != sorted(times):
            yield f"the times of job {job.id} go back: {[str(at) for at in times]}"


@_invariant("I10")
def every_act_is_audited_once(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        expected = _expected_audit(job, _asked(evidence, job))
        if Counter(job.audit) != expected:
            yield f"the audit of job {job.id} has {sorted(job.audit)}, expected {sorted(expected.elements())}"
    for stranger in evidence.audited_strangers:
        yield f"the audit has {stranger}, a job that does not exist"
    if evidence.audit_report.get("intact") is not True:
        yield f"the audit's chain does not verify: {evidence.audit_report}"


def _expected_audit(job: JobFacts, asked: Asked | None) -> Counter[str]:
    expected = Counter({"job.queued": 1})
    from_queued = any(change.old == "QUEUED" and change.new == job.status for change in job.history)
    forced = bool(asked and asked.forced and job.outcome_unknown)
    if job.status == "CANCELLED" and from_queued:
        expected["job.cancelled"] = 1
    elif forced:
        expected["job.force_cancelled"] = 1
        expected["job.cancel_requested"] = job.audit.count("job.cancel_requested")
    elif job.cancel_requested_at is not None:
        expected["job.cancel_requested"] = 1
    if job.status == "FAILED" and job.reason in ("expired", "lost"):
        expected[f"job.{job.reason}"] = 1
    elif job.status == "FAILED" and from_queued:
        expected["job.refused"] = 1
    if job.late_result is not None:
        expected["job.result_late"] = 1
    return +expected


@_invariant("I11")
def jobs_run_where_they_belong(evidence: Evidence) -> Iterator[str]:
    running: dict[str, set[str]] = {}
    ended = {line.job_id for line in evidence.witness if line.kind == "END"}
    for line in evidence.witness:
        job = evidence.jobs.get(line.job_id)
        if job is not None and line.host != job.node and not (line.host == "" and job.id in evidence.excused):
            yield f"job {job.id} is for {job.node} and ran on {line.host or 'nobody knows which'}"
        now = running.setdefault(line.host, set())
        if line.kind == "END":
            now.discard(line.job_id)
        elif line.job_id in ended:  # the end of one that was killed is not known
            now.add(line.job_id)
            if len(now) > evidence.concurrency:
                yield f"{len(now)} jobs ran at once on {line.host}: {', '.join(sorted(now))}"


@_invariant("I12")
def only_what_was_signed_runs(evidence: Evidence) -> Iterator[str]:
    for job in evidence.jobs.values():
        if not _is_signed(evidence, job):
            yield f"the payload of job {job.id} is not validly signed"
        script = base64.b64decode(json.loads(job.payload)["script"])
        for line in _lines(evidence, job.id, "START"):
            is_unseen = line.sha256 == "-" and job.id in evidence.excused
            if line.sha256 != hashlib.sha256(script).hexdigest() and not is_unseen:
                yield f"job {job.id} ran a script that is not the signed one"
    for (host, job_id), payload in evidence.executed_payloads.items():
        job_ = evidence.jobs.get(job_id)
        if job_ is None or job_.payload != payload:
            yield f"{host} executed a payload of job {job_id} that is not the signed one"


def _is_signed(evidence: Evidence, job: JobFacts) -> bool:
    key = evidence.public_keys.get(job.key_id)
    if key is None:
        return False
    try:
        VerifyKey(base64.b64decode(key)).verify(SIGNED_CONTEXT + job.payload, base64.b64decode(job.signature))
    except (BadSignatureError, ValueError):
        return False
    data = json.loads(job.payload)
    return (data["job_id"], data["node_id"], base64.b64decode(data["script"])) == (job.id, job.node, job.script)


@_invariant("I13")
def no_secret_leaks(evidence: Evidence) -> Iterator[str]:
    yield from evidence.leaks


@_invariant("I14")
def nobody_dies_or_fails_unasked(evidence: Evidence) -> Iterator[str]:
    yield from evidence.unasked
    yield from evidence.server_errors


@_invariant("I15")
def after_the_faults_all_is_as_before(evidence: Evidence) -> Iterator[str]:
    after = evidence.normal_after
    if after is None or after > NORMAL_SECONDS:
        yield f"{NORMAL_SECONDS:.0f} s after the faults had ended, answers were still slower than before them"
    drain = evidence.drain
    if drain is not None and drain.rate < DRAIN_TIMES * drain.arrival:
        yield (
            f"{drain.waiting} waiting jobs and the {drain.arrived} that came meanwhile took {drain.seconds:.1f} s, "
            f"{drain.rate:.1f} a second, and {drain.arrival:.1f} a second came"
        )


@_invariant("I16")
def nothing_is_hoarded(evidence: Evidence) -> Iterator[str]:
    by_process: dict[tuple[str, int], list[Use]] = {}
    for use in evidence.uses:
        by_process.setdefault((use.name, use.pid), []).append(use)
    for (name, _), uses in by_process.items():
        if uses[-1].at - uses[0].at < STEADY_SECONDS:
            continue  # whoever was killed had no time to hoard
        quarter = (uses[-1].at - uses[0].at) / 4
        early = [use for use in uses if quarter <= use.at - uses[0].at < 2 * quarter]
        late = [use for use in uses if use.at - uses[0].at >= 3 * quarter]
        for what, slack in (("handles", SLACK_HANDLES), ("rss_bytes", SLACK_BYTES)):
            before, after = (median(getattr(use, what) for use in part) for part in (early or uses, late))
            if after > 1.1 * before + slack:
                yield f"{name} went from {before:.0f} to {after:.0f} {what}"


@_invariant("I17")
def nothing_outlives_its_deadline(evidence: Evidence) -> Iterator[str]:
    if evidence.past_deadline:
        yield f"{evidence.past_deadline:.0f} jobs are past their deadline"


@_invariant("I18")
def jobs_leave_no_process(evidence: Evidence) -> Iterator[str]:
    for job_id, pid in evidence.orphans:
        yield f"process {pid} of a job that has ended still runs {job_id}".rstrip()
