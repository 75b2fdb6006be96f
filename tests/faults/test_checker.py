"""The checker itself: it accepts a sound run, and each invariant's check fails on evidence that was doctored."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from nacl.signing import SigningKey

from tests.faults import scribe
from tests.faults.checker import CAP, CHECKS, SIGNED_CONTEXT, check
from tests.faults.client import Asked
from tests.faults.evidence import Change, Drain, Evidence, JobFacts, Kept, Line, Use, Window, read_witness
from tests.faults.witness_preset import Plan

GOOD, BAD, QUEUED = "good", "exits-with-3", "cancelled-in-time"
KEY = SigningKey(b"k" * 32)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = 10**9


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def job(job_id: str, plan: Plan, *states: str, **over: object) -> JobFacts:
    script = f"# {job_id}".encode()
    payload = json.dumps(
        {"job_id": job_id, "node_id": "north", "script": base64.b64encode(script).decode()}
    ).encode()  # fmt: skip
    ran = "RUNNING" in states
    facts = JobFacts(
        id=job_id, node="north", nonce=plan.nonce, status=states[-1], reason="", exit_code=0 if ran else None,
        outcome_unknown=False, created_at=at(0), claimed_at=at(1) if ran else None, started_at=at(2) if ran else None,
        finished_at=at(9), cancel_requested_at=None, script=script, payload=payload,
        signature=base64.b64encode(KEY.sign(SIGNED_CONTEXT + payload).signature).decode(), key_id="k", late_result=None,
        audit=["job.queued"],
    )  # fmt: skip
    for name, value in over.items():
        setattr(facts, name, value)
    before: str | None = None
    for number, state in enumerate(states):
        facts.history.append(Change(before, state, at(number)))
        before = state
    for name, length in (("stdout", plan.stdout_bytes), ("stderr", plan.stderr_bytes)):
        data = scribe.stream(plan.seed, name, length if ran else 0)
        sha256 = hashlib.sha256(data).hexdigest() if ran else ""
        facts.streams[name] = Kept(len(data), max(0, len(data) - CAP), sha256, data[-CAP:])
    facts.output_steps = [(100, 0, 0, 0), (plan.stdout_bytes, 0, plan.stderr_bytes, 0)] if ran else []
    return facts


def sound() -> Evidence:
    """A run without a fault: one job succeeded, one failed, one was cancelled before it began."""
    plans = {
        GOOD: Plan("n1", seed=1, stdout_bytes=CAP + 5000, stderr_bytes=70),
        BAD: Plan("n2", seed=2, exit_code=3),
        QUEUED: Plan("n3", seed=3),
    }
    jobs = {
        GOOD: job(GOOD, plans[GOOD], "QUEUED", "RUNNING", "SUCCEEDED"),
        BAD: job(BAD, plans[BAD], "QUEUED", "RUNNING", "FAILED", reason="exit", exit_code=3),
        QUEUED: job(
            QUEUED,
            plans[QUEUED],
            "QUEUED",
            "CANCELLED",
            cancel_requested_at=at(1),
            audit=["job.queued", "job.cancelled"],
        ),
    }
    jobs[GOOD].output_steps[1] = (CAP + 5000, 5000, 70, 0)
    asked = {plan.nonce: Asked(plan, "north", job_id, [201]) for job_id, plan in plans.items()}
    asked["n3"].cancel_asked = True
    witness = []
    for number, (job_id, code) in enumerate([(GOOD, 0), (BAD, 3)]):
        sha256 = hashlib.sha256(jobs[job_id].script).hexdigest()
        witness.append(Line("START", "north", job_id, plans[job_id].nonce, at=number * 10 * SECOND, sha256=sha256))
        witness.append(Line("END", "north", job_id, plans[job_id].nonce, at=(number * 10 + 5) * SECOND, code=code))
    executed = {("north", job_id): jobs[job_id].payload for job_id in (GOOD, BAD)}
    keys = {"k": base64.b64encode(bytes(KEY.verify_key)).decode()}
    window = Window(GOOD, "stdout", 5000, 1000, scribe.stream(1, "stdout", 5000)[1000:])
    return Evidence(asked, jobs, witness, executed, keys, concurrency=1, windows=[window])


def test_a_sound_run_has_no_violation() -> None:
    assert check(sound()) == []


def test_a_backlog_that_shrinks_twice_as_fast_as_it_comes_is_sound() -> None:
    evidence = sound()
    evidence.drain = Drain(waiting=8, arrived=2, seconds=5.0, arrival=1.0)
    assert check(evidence) == []


def growing(*, handles: int = 0, rss_bytes: int = 0) -> list[Use]:
    """One process over 30 s, by so much a second."""
    return [Use("web", 7, n, 100 + handles * n, 100 * 1024 * 1024 + rss_bytes * n) for n in range(31)]


def test_what_holds_steady_or_has_just_begun_hoards_nothing() -> None:
    evidence = sound()
    evidence.uses = [*growing(), *(Use("web", 8, n, 100 * n, 0) for n in range(10))]
    assert check(evidence) == []


Doctor = Callable[[Evidence], object]
_kept = scribe.stream(1, "stdout", CAP + 5000)


def _swap(evidence: Evidence, job_id: str, stream: str, **over: object) -> None:
    streams = evidence.jobs[job_id].streams
    streams[stream] = replace(streams[stream], **over)  # type: ignore[arg-type]


def _set(thing: object, **over: object) -> None:
    for name, value in over.items():
        setattr(thing, name, value)


def _line(evidence: Evidence, number: int, **over: object) -> None:
    evidence.witness[number] = replace(evidence.witness[number], **over)  # type: ignore[arg-type]


DOCTORED: list[tuple[str, str, Doctor]] = [
    ("I1", "an accepted job is gone", lambda e: e.jobs.pop(GOOD)),
    ("I1", "nobody asked for one", lambda e: e.asked.pop("n1")),
    ("I1", "one order made two jobs", lambda e: _set(e.jobs[BAD], nonce="n1")),
    ("I1", "one key got two answers", lambda e: e.asked["n1"].other_ids.append("another")),
    ("I2", "one never ended", lambda e: _set(e.jobs[GOOD], status="RUNNING", finished_at=None)),
    ("I2", "polls still look at one that ended", lambda e: e.noted_open.add(GOOD)),
    ("I3", "one started twice", lambda e: e.witness.insert(1, e.witness[0])),
    ("I3", "one that does not exist ran", lambda e: _line(e, 0, job_id="nobody's")),
    ("I4", "success without a run", lambda e: e.witness.__delitem__(slice(0, 2))),
    ("I4", "success of a script that failed", lambda e: _line(e, 1, code=1)),
    ("I4", "another exit code", lambda e: _set(e.jobs[BAD], exit_code=4)),
    ("I5", "cancelled in time and ran", lambda e: e.witness.append(replace(e.witness[0], job_id=QUEUED))),
    (
        "I5",
        "refused and ran",
        lambda e: _set(e.jobs[BAD], reason="signature_invalid", history=e.jobs[BAD].history[:1]),
    ),
    ("I6", "lost although it ended", lambda e: _set(e.jobs[GOOD], status="FAILED", reason="lost", exit_code=None)),
    ("I6", "unknown for no reason", lambda e: _set(e.jobs[BAD], outcome_unknown=True)),
    ("I6", "cancelled for no reason", lambda e: _set(e.jobs[GOOD], status="CANCELLED")),
    ("I6", "a killed runner that nobody killed", lambda e: _set(e.jobs[BAD], reason="runner_killed", exit_code=None)),
    ("I7", "a byte is another", lambda e: _swap(e, GOOD, "stdout", data=b"\xff" + _kept[5001:])),
    ("I7", "bytes are missing at the end", lambda e: _swap(e, GOOD, "stderr", total=69, data=b"")),
    ("I7", "the kept part begins too late", lambda e: _swap(e, GOOD, "stdout", first=6000, data=_kept[6000:])),
    ("I7", "the digest is another", lambda e: _swap(e, BAD, "stdout", sha256="1" * 64)),
    ("I7", "the digest is not known", lambda e: _swap(e, BAD, "stdout", sha256="0" * 64)),
    ("I7", "a stream is gone", lambda e: e.jobs[BAD].streams.pop("stderr")),
    ("I7", "output of a script that never began", lambda e: _swap(e, QUEUED, "stdout", total=5, data=b"hello")),
    ("I8", "output went back", lambda e: e.jobs[GOOD].output_steps.reverse()),
    ("I8", "too much was kept", lambda e: e.jobs[GOOD].output_steps.__setitem__(1, (CAP + 5000, 0, 70, 0))),
    ("I8", "a moment with a hole", lambda e: _set(e, windows=[replace(e.windows[0], data=b"\0" * 4000)])),
    ("I9", "the end was left", lambda e: e.jobs[BAD].history.append(Change("FAILED", "SUCCEEDED", at(9)))),
    ("I9", "an arrow that is not there", lambda e: e.jobs[GOOD].history.pop(1)),
    ("I9", "the row says otherwise", lambda e: _set(e.jobs[GOOD], status="FAILED", reason="exit", exit_code=0)),
    ("I9", "changes go back in time", lambda e: e.jobs[BAD].history.__setitem__(2, Change("RUNNING", "FAILED", at(0)))),
    ("I9", "times go back", lambda e: _set(e.jobs[GOOD], started_at=at(0.5))),
    ("I10", "an act was not audited", lambda e: e.jobs[GOOD].audit.clear()),
    ("I10", "an act was audited twice", lambda e: e.jobs[QUEUED].audit.append("job.cancelled")),
    ("I10", "an ordinary end was audited", lambda e: e.jobs[BAD].audit.append("job.refused")),
    ("I10", "what was rolled back is audited", lambda e: e.audited_strangers.append("job.queued job:gone")),
    ("I11", "it ran elsewhere", lambda e: [_line(e, number, host="south") for number in (0, 1)]),
    ("I11", "nobody knows where it ran", lambda e: _line(e, 0, host="")),
    ("I11", "two at once", lambda e: (_line(e, 2, at=1), _set(e, witness=sorted(e.witness, key=lambda x: x.at)))),
    ("I12", "another script", lambda e: _line(e, 0, sha256="1" * 64)),
    ("I12", "another payload in the journal", lambda e: e.executed_payloads.update({("north", GOOD): b"{}"})),
    ("I12", "the signature is another's", lambda e: _set(e.jobs[GOOD], signature=e.jobs[BAD].signature)),
    ("I12", "the key is not known", lambda e: e.public_keys.clear()),
    ("I12", "the row shows another script", lambda e: _set(e.jobs[GOOD], script=b"# other")),
    ("I13", "a token leaked", lambda e: e.leaks.append("the token of north is in web.log")),
    ("I14", "somebody died unasked", lambda e: e.unasked.append("web ended with 1")),
    ("I14", "a server error", lambda e: e.server_errors.append("POST /api/jobs: 500")),
    ("I10", "the chain is broken", lambda e: _set(e, audit_report={"intact": False, "why": "entry 7"})),
    ("I10", "the chain cannot be told", lambda e: _set(e, audit_report={"intact": None})),
    ("I15", "answers stay slow", lambda e: _set(e, normal_after=None)),
    ("I15", "a backlog stays", lambda e: _set(e, drain=Drain(waiting=8, arrived=12, seconds=12.0, arrival=1.0))),
    ("I16", "handles are not given back", lambda e: _set(e, uses=growing(handles=2))),
    ("I16", "memory is not given back", lambda e: _set(e, uses=growing(rss_bytes=4 * 1024 * 1024))),
    ("I17", "past its deadline", lambda e: _set(e, past_deadline=1.0)),
    ("I18", "a process is left", lambda e: e.orphans.append((GOOD, 4711))),
]


@pytest.mark.parametrize(("invariant", "what", "doctor"), DOCTORED, ids=[f"{i} {what}" for i, what, _ in DOCTORED])
def test_doctored_evidence_is_found_out(invariant: str, what: str, doctor: Doctor) -> None:
    evidence = sound()
    doctor(evidence)
    assert invariant in {violation.invariant for violation in check(evidence)}, what


def test_every_invariant_has_been_seen_to_fail() -> None:
    assert {invariant for invariant, _, _ in DOCTORED} == set(CHECKS)


def test_what_a_kill_leaves_unknown_is_excused_and_nothing_else() -> None:
    """A runner that was killed: nobody knows how its script ended. That it ran twice would be found all the same."""
    evidence = sound()
    _set(evidence.jobs[BAD], reason="runner_killed", exit_code=None, outcome_unknown=True)
    del evidence.witness[3]
    assert {violation.invariant for violation in check(evidence)} == {"I6"}
    evidence.excused.add(BAD)
    assert check(evidence) == []
    evidence.witness.append(evidence.witness[2])
    assert {violation.invariant for violation in check(evidence)} == {"I3"}


def test_the_witness_is_read_as_it_was_written(tmp_path) -> None:
    scribe.testify(tmp_path / "north", f"START j1 n1 boot 5 77 {'a' * 64}")
    scribe.testify(tmp_path / "north", "END j1 n1 3 9")
    scribe.testify(tmp_path / "unknown", "START j2 n2 boot 7 78 -")
    assert read_witness(tmp_path) == [
        Line("START", "north", "j1", "n1", at=5, sha256="a" * 64),
        Line("START", "", "j2", "n2", at=7, sha256="-"),
        Line("END", "north", "j1", "n1", at=9, code=3),
    ]


def test_the_stream_is_the_same_however_much_of_it_is_asked_for() -> None:
    whole = scribe.stream(5, "stdout", 100_000)
    assert scribe.stream(5, "stdout", 1000) == whole[:1000]
    assert scribe.stream(6, "stdout", 1000) != whole[:1000] != scribe.stream(5, "stderr", 1000)
    assert set(whole) == set(range(256))
