"""What agents report: start, output, complete. All repeatable, all guarded by the claim."""

from __future__ import annotations

import base64
import hashlib
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from audit.models import Event
from jobs import deadlines, output
from jobs.models import Job, OutputChunk
from jobs.states import OUTPUT_CAP
from tests import factories
from tests.factories import ending


@pytest.fixture
def node(web_1: Any) -> Any:
    return web_1


@pytest.fixture
def job(node: Any) -> Job:
    return factories.make_job(node)


@pytest.fixture
def agent(api: Any, node: Any) -> Any:
    return api.agent(factories.make_token(node))


def chunk(data: bytes, offset: int = 0, stream: str = "stdout", **over: Any) -> dict[str, Any]:
    return {"stream": stream, "offset": offset, "data": base64.b64encode(data).decode(), **over}


class Running:
    """A job whose agent has started it."""

    def __init__(self, agent: Any, job: Job) -> None:
        self.agent, self.job, self.claim_id = agent, job, str(factories.claim(job))
        assert self.call("start").status_code == 200

    def call(self, verb: str, **body: Any) -> Any:
        return self.agent.post(f"/api/jobs/{self.job.pk}/{verb}", {"claim_id": self.claim_id, **body})

    def write(self, *chunks: Any, **body: Any) -> Any:
        return self.call("output", chunks=list(chunks), **body)

    def status(self) -> str:
        self.job.refresh_from_db()
        return self.job.status


@pytest.fixture
def running(agent: Any, job: Job) -> Running:
    return Running(agent, job)


def stored(job: Job, stream: str = "stdout") -> bytes:
    return output.read(job.pk, stream).data


def test_start_makes_it_run_and_may_be_repeated(running: Running) -> None:
    assert running.status() == "RUNNING"
    assert running.call("start").json() == {"lease_seconds": 60}


def test_start_is_accepted_past_the_lease(agent: Any, job: Job) -> None:
    claim_id = factories.claim(job, lease_seconds=-5)
    assert agent.post(f"/api/jobs/{job.pk}/start", {"claim_id": str(claim_id)}).status_code == 200


def test_another_claim_is_stale(agent: Any, job: Job) -> None:
    factories.claim(job)
    answer = agent.post(f"/api/jobs/{job.pk}/start", {"claim_id": str(uuid.uuid4())})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stale_claim")


def test_another_nodes_job_is_unknown(api: Any, job: Job, db_1: Any) -> None:
    claim_id = factories.claim(job)
    stranger = api.agent(factories.make_token(db_1))
    for verb in ("start", "output", "complete"):
        answer = stranger.post(
            f"/api/jobs/{job.pk}/{verb}",
            {"claim_id": str(claim_id), "chunks": []}
            if verb == "output"
            else {"claim_id": str(claim_id), **(ending() if verb == "complete" else {})},
        )
        assert answer.status_code == 404, (verb, answer.content)
    job.refresh_from_db()
    assert job.status == "QUEUED"


def test_people_may_not_report(api: Any, otto: Any, job: Job) -> None:
    claim_id = factories.claim(job)
    answer = api.by(otto).post(f"/api/jobs/{job.pk}/start", {"claim_id": str(claim_id)})
    assert answer.status_code in (401, 403)


def test_an_agent_may_not_queue(agent: Any) -> None:
    assert agent.post("/api/jobs", {"preset": "system-report", "node_id": "web-1"}).status_code in (401, 403)


def test_output_is_stored_byte_for_byte(running: Running) -> None:
    data = bytes(range(256)) * 3
    answer = running.write(chunk(data), chunk(b"oops\n", stream="stderr"), phase="apply")
    assert answer.status_code == 200, answer.content
    assert answer.json()["next_offset"] == {"stdout": 768, "stderr": 5}
    assert answer.json()["lease_seconds"] == 60
    assert stored(running.job) == data
    assert stored(running.job, "stderr") == b"oops\n"


def test_a_repeated_chunk_changes_nothing(running: Running) -> None:
    for _ in range(3):
        assert running.write(chunk(b"hello\n")).status_code == 200
    assert stored(running.job) == b"hello\n"


def test_an_overlap_appends_the_rest(running: Running) -> None:
    running.write(chunk(b"hello "))
    assert running.write(chunk(b"lo world", 3)).json()["next_offset"]["stdout"] == 11
    assert stored(running.job) == b"hello world"


def test_other_bytes_are_a_conflict_and_audited(running: Running) -> None:
    running.write(chunk(b"hello"))
    answer = running.write(chunk(b"hellO"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "output_conflict")
    assert stored(running.job) == b"hello"
    assert Event.objects.filter(action="job.output_conflicted").count() == 1


def test_a_gap_is_refused_with_the_offset(running: Running) -> None:
    running.write(chunk(b"hello"))
    answer = running.write(chunk(b"!", 9))
    assert answer.status_code == 416
    assert answer.json()["error"]["detail"]["next_offset"] == {"stdout": 5, "stderr": 0}


def test_a_skipped_gap_forgets_what_was_before(running: Running) -> None:
    running.write(chunk(b"hello"))
    assert running.write(chunk(b"tail", 100, skipped=True)).json()["next_offset"]["stdout"] == 104
    kept = output.read(running.job.pk, "stdout")
    assert (kept.data, kept.first_offset, kept.total) == (b"tail", 100, 104)


def test_all_chunks_or_none(running: Running) -> None:
    assert running.write(chunk(b"one"), chunk(b"far", 50)).status_code == 416
    assert stored(running.job) == b""


def test_the_last_four_mebibytes_are_kept_exactly(running: Running) -> None:
    block, total = 256 * 1024, 0
    whole = b""
    for number in range(18):
        data = bytes([number]) * (block - 7)
        whole += data
        assert running.write(chunk(data, total)).status_code == 200
        total += len(data)
    kept = output.read(running.job.pk, "stdout")
    assert kept.total == total
    assert kept.first_offset == total - OUTPUT_CAP
    assert kept.data == whole[-OUTPUT_CAP:]
    assert sum(len(c.data) for c in OutputChunk.objects.filter(job=running.job)) < OUTPUT_CAP + 2 * block


@pytest.mark.parametrize(
    "bad",
    [
        {"chunks": "x"},
        {"chunks": [{"stream": "stdin", "offset": 0, "data": ""}]},
        {"chunks": [{"stream": "stdout", "offset": -1, "data": ""}]},
        {"chunks": [{"stream": "stdout", "offset": 0, "data": "%%%"}]},
        {"chunks": [{"stream": "stdout", "offset": 0, "data": "QQ==", "extra": 1}]},
        {"chunks": [{"stream": "stdout", "offset": 2**70, "data": "QQ=="}]},
        {"chunks": [], "phase": "lunch"},
    ],
)
def test_malformed_output_is_400_and_changes_nothing(running: Running, bad: Any) -> None:
    assert running.call("output", **bad).status_code == 400
    assert stored(running.job) == b""


def test_complete_ends_it(running: Running) -> None:
    running.write(chunk(b"done\n"))
    digest = hashlib.sha256(b"done\n").hexdigest()
    body = ending(stdout_bytes=5, stdout_sha256=digest)
    answer = running.call("complete", **body)
    assert answer.status_code == 200, answer.content
    assert answer.json()["status"] == "SUCCEEDED"
    assert running.call("complete", **body).status_code == 200
    assert running.call("complete", **{**body, "changed": False}).status_code == 409


def test_complete_waits_for_the_output(running: Running) -> None:
    answer = running.call("complete", **ending(stdout_bytes=5))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "missing_output")
    assert answer.json()["error"]["detail"]["next_offset"]["stdout"] == 0
    assert running.status() == "RUNNING"


def test_a_finished_job_takes_no_more(running: Running) -> None:
    running.call("complete", **ending())
    answer = running.write(chunk(b"late"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_finished")


def test_a_refusal_ends_a_claim_that_never_started(agent: Any, job: Job) -> None:
    claim_id = str(factories.claim(job))
    body = ending(status="failed", reason="signature_invalid", exit_code=None, phases=[], changed=None)
    answer = agent.post(f"/api/jobs/{job.pk}/complete", {"claim_id": claim_id, **body})
    assert answer.status_code == 200, answer.content
    assert (answer.json()["status"], answer.json()["reason"]) == ("FAILED", "signature_invalid")


def test_a_success_needs_a_start(agent: Any, job: Job) -> None:
    claim_id = str(factories.claim(job))
    answer = agent.post(f"/api/jobs/{job.pk}/complete", {"claim_id": claim_id, **ending()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_not_started")


def test_cancelling_a_queued_job_is_at_once(api: Any, otto: Any, job: Job) -> None:
    assert api.by(otto).post(f"/api/jobs/{job.pk}/cancel").json()["status"] == "CANCELLED"
    assert api.by(otto).post(f"/api/jobs/{job.pk}/cancel").status_code == 409


def test_cancelling_a_running_job_asks_its_agent(api: Any, otto: Any, running: Running) -> None:
    answer = api.by(otto).post(f"/api/jobs/{running.job.pk}/cancel").json()
    assert answer["status"] == "RUNNING"
    assert answer["cancel_requested_at"] is not None
    assert running.write().json()["cancel_requested"] is True
    body = ending(status="cancelled", exit_code=None, signal=15)
    assert running.call("complete", **body).json()["status"] == "CANCELLED"


def test_the_real_result_wins_over_a_cancel(api: Any, otto: Any, running: Running) -> None:
    api.by(otto).post(f"/api/jobs/{running.job.pk}/cancel")
    assert running.call("complete", **ending()).json()["status"] == "SUCCEEDED"


def test_only_an_admin_gives_a_job_up(api: Any, otto: Any, ada: Any, running: Running) -> None:
    assert api.by(otto).post(f"/api/jobs/{running.job.pk}/cancel", {"force": True}).status_code == 403
    silent_since(running, timezone.now())
    answer = api.by(ada).post(f"/api/jobs/{running.job.pk}/cancel", {"force": True}).json()
    assert (answer["status"], answer["outcome_unknown"]) == ("CANCELLED", True)


def silent_since(running: Running, moment: Any) -> None:
    Job.objects.filter(pk=running.job.pk).update(lease_expires_at=moment)


def test_a_job_is_not_given_up_while_its_agent_is_there(api: Any, ada: Any, running: Running) -> None:
    path = f"/api/jobs/{running.job.pk}/cancel"
    for asked_before in (None, timezone.now() - timedelta(seconds=50)):
        Job.objects.filter(pk=running.job.pk).update(cancel_requested_at=asked_before)
        answer = api.by(ada).post(path, {"force": True})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "node_in_contact")
        assert "without force" in answer.json()["error"]["message"]
    # It has been asked to, and a minute later it has not done it.
    Job.objects.filter(pk=running.job.pk).update(cancel_requested_at=timezone.now() - timedelta(seconds=61))
    assert api.by(ada).post(path, {"force": True}).json()["status"] == "CANCELLED"


def test_a_cancel_that_nobody_asked_for_is_none(running: Running) -> None:
    body = ending(status="cancelled", exit_code=None, signal=15)
    answer = running.call("complete", **body).json()
    assert (answer["status"], answer["reason"], answer["signal"]) == ("FAILED", "agent_error", 15)
    assert running.call("complete", **body).status_code == 200


def test_a_start_past_its_lease_takes_no_place_of_others(api: Any, job: Job) -> None:
    late = factories.claim(job, lease_seconds=-1)
    token = factories.make_token(job.node)
    other = factories.make_job(job.node)
    factories.claim(other)
    answer = api.agent(token).post(f"/api/jobs/{job.pk}/start", {"claim_id": str(late)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stale_claim")
    Job.objects.filter(pk=other.pk).update(lease_expires_at=timezone.now())
    assert api.agent(token).post(f"/api/jobs/{job.pk}/start", {"claim_id": str(late)}).status_code == 200


def test_a_lost_job_keeps_its_state_when_the_result_comes_late(running: Running) -> None:
    past = timezone.now() - timedelta(minutes=1)
    Job.objects.filter(pk=running.job.pk).update(deadline_at=past, lease_expires_at=past)
    deadlines.enforce()
    running.job.refresh_from_db()
    assert (running.job.status, running.job.reason, running.job.outcome_unknown) == ("FAILED", "lost", True)
    running.write(chunk(b"here I am\n"))
    assert running.call("complete", **ending(stdout_bytes=10)).status_code == 200
    running.job.refresh_from_db()
    assert running.job.status == "FAILED"
    assert running.job.late_result is not None
    assert running.job.late_result["exit_code"] == 0
    assert Event.objects.filter(action="job.result_late").count() == 1


@pytest.mark.parametrize(("days", "status"), [(6.9, 200), (7.1, 409)])
def test_a_late_result_is_taken_for_a_week(running: Running, days: float, status: int) -> None:
    past = timezone.now() - timedelta(minutes=1)
    Job.objects.filter(pk=running.job.pk).update(deadline_at=past, lease_expires_at=past)
    deadlines.enforce()
    Job.objects.filter(pk=running.job.pk).update(finished_at=timezone.now() - timedelta(days=days))
    assert running.call("complete", **ending()).status_code == status
    running.job.refresh_from_db()
    assert (running.job.late_result is not None, running.job.status) == (status == 200, "FAILED")


def test_silence_is_shown_but_does_not_end_a_job(running: Running) -> None:
    Job.objects.filter(pk=running.job.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    deadlines.enforce()
    running.job.refresh_from_db()
    assert running.job.status == "RUNNING"
    assert running.job.contact_lost_at is not None
    running.write(chunk(b"x"))
    running.job.refresh_from_db()
    assert running.job.contact_lost_at is None


def test_a_queued_job_expires(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    deadlines.enforce()
    job.refresh_from_db()
    assert (job.status, job.reason) == ("FAILED", "expired")


def test_the_database_refuses_to_leave_a_terminal_state(running: Running) -> None:
    running.call("complete", **ending())
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=running.job.pk).update(status="RUNNING", finished_at=None)


def test_the_database_refuses_another_script(job: Job) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(script=b"rm -rf /")


def test_a_retry_is_a_new_job(api: Any, otto: Any, running: Running) -> None:
    assert api.by(otto).post(f"/api/jobs/{running.job.pk}/retry").status_code == 409
    running.call("complete", **ending())
    answer = api.by(otto).post(f"/api/jobs/{running.job.pk}/retry")
    assert answer.status_code == 201, answer.content
    assert answer.json()["retry_of"] == str(running.job.pk)
    assert answer.json()["id"] != str(running.job.pk)


def test_raw_output_honours_a_range(api: Any, otto: Any, running: Running) -> None:
    running.write(chunk(b"0123456789"))
    path = f"/api/jobs/{running.job.pk}/output?stream=stdout"
    assert api.by(otto).get(path).content == b"0123456789"
    part = api.by(otto).get(path, range="bytes=2-4")
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert api.by(otto).get(path, range="bytes=-3").content == b"789"
    assert api.by(otto).get(path, range="bytes=10-").status_code == 416


@pytest.mark.parametrize("header", ["bytes=4-2", "bytes=x", "bytes=0-1,3-4", "lines=1-2"])
def test_what_is_no_range_brings_the_whole(api: Any, otto: Any, running: Running, header: str) -> None:
    running.write(chunk(b"0123456789"))
    answer = api.by(otto).get(f"/api/jobs/{running.job.pk}/output", range=header)
    assert (answer.status_code, answer.content) == (200, b"0123456789")


def test_a_range_past_the_end_says_how_much_there_is(api: Any, otto: Any, running: Running) -> None:
    running.write(chunk(b"0123456789"))
    answer = api.by(otto).get(f"/api/jobs/{running.job.pk}/output", range="bytes=10-")
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10")


def test_complete_answers_with_the_whole_job(api: Any, otto: Any, running: Running) -> None:
    answer = running.call("complete", **ending()).json()
    seen = api.by(otto).get(f"/api/jobs/{running.job.pk}").json()
    private = {"script", "variables", "signature"}
    assert answer == {**seen, **dict.fromkeys(private)}
    assert seen["phases"] and all(seen[name] is not None for name in private)
