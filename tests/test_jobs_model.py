"""A machine that does to jobs whatever can be done to them, in any order, and compares the server with a model.

Every request goes through the whole ASGI application to PostgreSQL. Time is moved by moving the rows' times: the
database compares them with its own clock. MODEL_EXAMPLES and MODEL_STEPS ask for more.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx
import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from audit.models import Event
from hyprbox.lib.actors import Role
from jobs import deadlines, output, reports
from jobs.models import Job
from presets import catalogue
from presets.documents import load_json
from tests import factories
from tests.factories import ending
from tests.jobs_model import ARROWS, CAP, KEY_SECONDS, REFUSALS, Model
from tests.plane import Plane, bearer, plane

EXAMPLES, STEPS = int(os.environ.get("MODEL_EXAMPLES", "25")), int(os.environ.get("MODEL_STEPS", "40"))
# As short as it goes while still long enough for everything: expiry, both leases, the deadline, a day, a week.
SPANS = (5, 31, 61, 200, 400, 3700, 90_000, 700_000)
# Making a failure smaller takes minutes: MODEL_SHRINK=1 asks for it.
PHASES = [Phase.generate, Phase.shrink] if os.environ.get("MODEL_SHRINK") else [Phase.generate]
WORDS = st.binary(min_size=1, max_size=40)
PICK = st.integers(0, 1000)
KINDS = ["next", "next", "next", "duplicate", "overlap", "conflicting", "gap", "skipped", "none"]
ACTIONS = {
    "create": 4, "create_same_key": 1, "create_same_key_other_body": 1, "cancel": 2, "retry": 1, "edit_template": 1,
    "claim": 5, "claim_waiting": 2, "start": 4, "stale_call": 2, "call_for_another_nodes_job": 1, "write": 10,
    "complete": 4, "complete_again": 2, "time_passes": 2, "lose_contact": 2, "enforce": 2, "server_restart": 1, "rotate_token": 1,
    "delete_node": 1,
}  # fmt: skip
Draw = Callable[[Any], Any]


class Jobs(RuleBasedStateMachine):
    up: ClassVar[Plane]
    people: ClassVar[dict[str, str]]
    revision: ClassVar[int] = 0
    reached: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.seen: dict[str, str] = {}
        self.requests: list[tuple[dict[str, Any], str]] = []
        self.touched: set[str] = set()
        self.run = uuid.uuid4().hex[:8]

    def two_nodes(self) -> None:
        for name, share in ((f"one-{self.run}", 1), (f"two-{self.run}", 2)):
            self.enrol(name, share)

    @initialize(data=st.data())
    def one_job_runs(self, data: st.DataObject) -> None:
        self.two_nodes()
        for action in (self.create, self.claim, self.start):
            self.keep_clear()
            action(data.draw)

    @rule(data=st.data(), action=st.sampled_from([name for name, weight in ACTIONS.items() for _ in range(weight)]))
    def act(self, data: st.DataObject, action: str) -> None:
        self.keep_clear()
        getattr(self, action)(data.draw)

    def enrol(self, name: str, share: int) -> None:
        node = factories.make_seen_node(name, concurrency=share)
        self.model.nodes[name] = {
            "name": name, "pk": node.pk, "concurrency": share, "token": factories.make_token(node), "old": [],
        }  # fmt: skip

    # --- choosing ---

    def job(self, draw: Draw) -> dict[str, Any]:
        job = one_of(draw, list(self.model.jobs.values())[-6:])
        self.touched.add(job["id"])
        return job

    def held(self, draw: Draw) -> dict[str, Any]:
        """Mostly a job that an agent holds, if there is any, and one that it was told of."""
        known = [job for job in self.model.jobs.values() if job["claim"] is not None and self.model.may_report(job)]
        held = [job for job in known if self.model.is_held(job)]
        if not known or draw(st.integers(0, 9)) == 9:
            return self.job(draw)
        job = one_of(draw, held if held and draw(st.integers(0, 3)) < 3 else known[-6:])
        self.touched.add(job["id"])
        return job

    def running(self) -> list[dict[str, Any]]:
        return [job for job in self.model.jobs.values() if job["status"] == "RUNNING"]

    def node(self, draw: Draw) -> dict[str, Any]:
        return one_of(draw, list(self.model.nodes.values()))

    def is_dead(self, job: dict[str, Any]) -> bool:
        return job["node"] in self.model.removed

    # --- talking ---

    def report(self, job: dict[str, Any], verb: str, claim: str | None, **body: Any) -> httpx.Response:
        claim_id = claim or str(uuid.uuid4())
        return self.up.post(f"/api/jobs/{job['id']}/{verb}", job["node"]["token"], {"claim_id": claim_id, **body})

    def expect(self, answer: httpx.Response, status: int, code: str = "") -> None:
        assert answer.status_code == status, (answer.status_code, answer.text, status, code)
        if code:
            assert answer.json()["error"]["code"] == code, (answer.text, code)
        verb = str(answer.request.url.path).rpartition("/")[2].partition("-")[0]
        self.reached[f"{verb} {status} {code}"] += 1

    def keep_clear(self) -> None:
        if (seconds := self.model.seconds_to_clear()) > 0:
            self.move_time(seconds)

    def move_time(self, seconds: float) -> None:
        times = ("created_at", "expires_at", "claimed_at", "started_at", "finished_at", "lease_expires_at", "deadline_at",
                 "cancel_requested_at", "contact_lost_at")  # fmt: skip
        moved = ", ".join(f"{name} = {name} - %(by)s" for name in times)
        nodes = [node["pk"] for node in [*self.model.nodes.values(), *self.model.removed]]
        with connection.cursor() as cursor:
            by = {"by": f"{seconds} seconds", "nodes": nodes, "keys": f"{self.run}%"}
            cursor.execute(
                f"UPDATE jobs_job SET {moved.replace('%(by)s', '%(by)s::interval')} WHERE node_id = ANY(%(nodes)s)", by
            )
            cursor.execute(
                "UPDATE jobs_idempotencykey SET created_at = created_at - %(by)s::interval WHERE key LIKE %(keys)s", by
            )
        self.model.offset += seconds

    # --- people ---

    def create(self, draw: Draw) -> None:
        timeout, expires = draw(st.sampled_from([60, 1, 900])), draw(st.sampled_from([3600, 60, 86_400]))
        key = f"{self.run}-{len(self.model.keys)}"
        self.model.keys[key] = {"body": self.order(self.node(draw)["name"], timeout, expires), "job": None, "at": 0.0}
        self.queue(key, 201)

    def create_same_key(self, draw: Draw) -> None:
        key = draw(st.sampled_from(list(self.model.keys)))
        self.queue(key, 200 if self.model.now < self.model.keys[key]["at"] + KEY_SECONDS else 201)

    def create_same_key_other_body(self, draw: Draw) -> None:
        name = draw(st.sampled_from(list(self.model.keys)))
        key = self.model.keys[name]
        if self.model.now < key["at"] + KEY_SECONDS:
            other = {**key["body"], "timeout_seconds": 61}
            self.expect(self.up.post("/api/jobs", self.people["otto"], other, idempotency_key=name), 422, "key_reused")

    def order(self, node_id: str, timeout: int, expires: int) -> dict[str, Any]:
        limits = {"timeout_seconds": timeout, "expires_in_seconds": expires}
        return {"preset": "model-test", "variables": {}, "node_id": node_id, **limits}

    def queue(self, name: str, status: int) -> None:
        key = self.model.keys[name]
        answer = self.up.post("/api/jobs", self.people["otto"], key["body"], idempotency_key=name)
        self.expect(answer, status)
        if status == 200:
            assert answer.json()["id"] == key["job"]
            return
        body = key["body"]
        limits = {"timeout": body["timeout_seconds"], "expires_in": body["expires_in_seconds"]}
        self.remember(answer, self.model.nodes[body["node_id"]], **limits)
        key.update(job=answer.json()["id"], at=self.model.now)

    def remember(self, answer: httpx.Response, node: dict[str, Any], **limits: int) -> None:
        job = answer.json()
        assert f"revision {Jobs.revision}" in job["script"]
        assert job["id"] not in self.model.jobs
        self.model.add_job(job["id"], node, sha256=job["script_sha256"], **limits)
        self.touched.add(job["id"])

    def cancel(self, draw: Draw) -> None:
        job, force = self.job(draw), draw(st.booleans())
        who = self.people["ada" if force else "otto"]
        self.expect(
            self.up.post(f"/api/jobs/{job['id']}/cancel", who, {"force": force}), self.model.cancel(job, force=force)
        )

    def retry(self, draw: Draw) -> None:
        job = self.job(draw)
        answer = self.up.post(f"/api/jobs/{job['id']}/retry", self.people["otto"])
        if job["status"] in ("QUEUED", "RUNNING"):
            self.expect(answer, 409, "job_not_finished")
        elif self.is_dead(job):
            self.expect(answer, 409, "node_removed")
        else:
            self.expect(answer, 201)
            assert answer.json()["retry_of"] == job["id"]
            self.remember(answer, job["node"], timeout=job["timeout"], expires_in=86_400)

    def edit_template(self, draw: Draw) -> None:
        """What is queued already keeps its own bytes: they are compared whenever one is handed out."""
        Jobs.revision += 1

    # --- agents ---

    def claim(self, draw: Draw) -> None:
        node, request, lose_answer = self.node(draw), str(uuid.uuid4()), draw(st.booleans())
        if self.requests and draw(st.integers(0, 3)) == 3:
            node, request = one_of(draw, self.requests)
        if node in self.model.removed:
            return
        expected, is_old = self.model.next_for(node, request)
        holding = sorted((job["id"], job["claim"], job["status"], job["cancel"]) for job in self.model.claims_of(node))
        answer = self.up.poll(node["name"], node["token"], uuid.UUID(request), reconcile=1)
        self.expect(answer, 200)
        body = answer.json()
        assert body["cancel"] == [] or sorted(body["cancel"]) == self.model.cancels_of(node)
        assert sorted((h["id"], h["claim_id"], h["status"], h["cancel_requested"]) for h in body["holding"]) == holding
        self.requests = [*self.requests, (node, request)][-4:]
        self.handed_out(body["job"], expected, is_old, request)
        if lose_answer:
            repeated = self.up.poll(node["name"], node["token"], uuid.UUID(request), reconcile=1).json()["job"]
            assert repeated == body["job"]

    def claim_waiting(self, draw: Draw) -> None:
        """Without `reconcile` the poll sleeps until there is something, and must not oversleep."""
        node, request = self.node(draw), str(uuid.uuid4())
        expected, _ = self.model.next_for(node, request)
        if expected is None:
            return
        answer = self.up.poll(node["name"], node["token"], uuid.UUID(request), wait=10)
        self.handed_out(answer.json()["job"], expected, False, request)

    def handed_out(self, got: Any, expected: dict[str, Any] | None, is_old: bool, request: str) -> None:
        if expected is None:
            assert got is None
            return
        assert got is not None, expected
        self.touched.add(expected["id"])
        assert got["id"] == expected["id"]
        payload = json.loads(base64.b64decode(got["payload"]))
        assert payload["script_sha256"] == expected["sha256"]
        assert hashlib.sha256(base64.b64decode(payload["script"])).hexdigest() == expected["sha256"]
        if is_old:
            assert got["claim_id"] == expected["claim"]
        else:
            self.model.bind(expected, request, got["claim_id"])

    def start(self, draw: Draw) -> None:
        job = self.held(draw)
        if self.is_dead(job):
            self.expect(self.report(job, "start", job["claim"]), 401)
            return
        answer = self.report(job, "start", job["claim"])
        self.expect(answer, *self.model.start(job, job["claim"] or "none"))

    def stale_call(self, draw: Draw) -> None:
        job, verb = self.job(draw), draw(st.sampled_from(["start", "output", "complete"]))
        old = sorted(self.model.claims - {job["claim"]})
        claim = draw(st.sampled_from([str(uuid.uuid4()), *old]))
        body = {"start": {}, "output": {"chunks": [chunk("stdout", 0, b"x")]}, "complete": ending()}[verb]
        answer = self.report(job, verb, claim, **body)
        is_dead = self.is_dead(job) if verb == "start" else not self.model.may_report(job)
        self.expect(answer, *((401, "") if is_dead else self.model.takes_output(job, claim)))

    def call_for_another_nodes_job(self, draw: Draw) -> None:
        job = self.job(draw)
        others = [node for node in self.model.nodes.values() if node is not job["node"]]
        path = f"/api/jobs/{job['id']}/start"
        claim = {"claim_id": job["claim"] or str(uuid.uuid4())}
        self.expect(self.up.post(path, one_of(draw, others)["token"], claim), 404, "unknown_job")

    def write(self, draw: Draw) -> None:
        job, stream, kind = self.held(draw), draw(st.sampled_from(["stdout", "stderr"])), draw(st.sampled_from(KINDS))
        offset, data, status, code = self.piece(job[stream], kind, draw(WORDS), draw(PICK))
        chunks = [] if kind == "none" else [chunk(stream, offset, data, skipped=kind == "skipped")]
        answer = self.report(job, "output", job["claim"], chunks=chunks, phase="apply")
        if not self.model.may_report(job):
            self.expect(answer, 401)
            return
        allowed = self.model.takes_output(job, job["claim"] or "none")
        self.expect(answer, *(allowed if allowed[0] != 200 else (status, code)))
        if allowed[0] == 200:
            self.wrote(job, stream, offset, data if chunks else b"", answer)

    def piece(self, kept: dict[str, Any], kind: str, data: bytes, pick: int) -> tuple[int, bytes, int, str]:
        """An offset, the bytes, and what the answer must be. A kind that is not possible now becomes `next`."""
        first, total, stored = kept["first"], kept["total"], kept["data"]
        if kind == "gap":
            return total + 1 + pick % 9, data, 416, "output_gap"
        if kind == "skipped":
            return total + pick % 50, data, 200, ""
        if stored and kind in ("duplicate", "overlap", "conflicting"):
            start = pick % len(stored)
            end = len(stored) if kind == "overlap" else start + 1 + (pick // 7) % (len(stored) - start)
            same = stored[start:end]
            if kind == "duplicate":
                return first + start, same, 200, ""
            if kind == "overlap":
                return first + start, same + data, 200, ""
            return first + start, bytes([same[0] ^ 1]) + same[1:], 409, "output_conflict"
        return total, data, 200, ""

    def wrote(self, job: dict[str, Any], stream: str, offset: int, data: bytes, answer: httpx.Response) -> None:
        if answer.status_code == 409:
            job["audit"]["job.output_conflicted"] += 1
            return
        if answer.status_code == 200:
            if data:
                self.model.append(job, stream, offset, data)
            self.model.renew(job)
            assert answer.json()["cancel_requested"] == job["cancel"]
        body = answer.json()
        told = body["next_offset"] if answer.status_code == 200 else body["error"]["detail"]["next_offset"]
        assert told == {name: job[name]["total"] for name in ("stdout", "stderr")}

    def complete(self, draw: Draw) -> None:
        job, how, hole = self.held(draw), draw(st.sampled_from(list(ENDINGS))), draw(st.sampled_from([0, 0, 0, 1, -1]))
        lengths = {f"{name}_bytes": max(0, job[name]["total"] + hole) for name in ("stdout", "stderr")}
        self.end(job, ending(**lengths, **ENDINGS[how]))

    def complete_again(self, draw: Draw) -> None:
        done = [job for job in self.model.jobs.values() if job["completion"]]
        if not done:
            return
        job, is_same = one_of(draw, done), draw(st.booleans())
        self.touched.add(job["id"])
        body = copy.deepcopy(job["completion"])
        if not is_same:
            body["changed"] = not body["changed"]
        self.end(job, body)

    def end(self, job: dict[str, Any], body: dict[str, Any]) -> None:
        answer = self.report(job, "complete", job["claim"], **body)
        if not self.model.may_report(job):
            self.expect(answer, 401)
            return
        self.expect(answer, *self.model.complete(job, job["claim"] or "none", body))
        if answer.status_code == 200:
            assert answer.json()["status"] == job["status"]
            self.reached["late result"] += job["late"]

    # --- time, restarts, tokens, nodes ---

    def time_passes(self, draw: Draw) -> None:
        self.move_time(draw(st.sampled_from(SPANS)))
        if draw(st.booleans()):
            self.enforce(draw)

    def lose_contact(self, draw: Draw) -> None:
        """Until past the deadline of a running job, without a word of its agent."""
        if not (running := self.running()):  # so that late results come often enough to be sure to meet them
            for action in (self.create, self.claim, self.start):
                self.keep_clear()
                action(draw)
            running = self.running()
        if not running:
            return
        job = one_of(draw, running)
        self.move_time(max(0.0, job["deadline"] - self.model.now) + 5)
        self.enforce(draw)
        if not self.is_dead(job) and draw(st.booleans()):
            lengths = {f"{name}_bytes": job[name]["total"] for name in ("stdout", "stderr")}
            self.end(job, ending(**lengths, **ENDINGS[draw(st.sampled_from(list(ENDINGS)))]))

    def enforce(self, draw: Draw) -> None:
        self.keep_clear()
        deadlines.enforce()
        self.model.enforce()
        self.touched.update(self.model.jobs)
        assert deadlines.gauges().past_deadline == 0

    def server_restart(self, draw: Draw) -> None:
        self.up.restart()

    def rotate_token(self, draw: Draw) -> None:
        """The successor works at once; until it is used for a heartbeat the old one does as well."""
        node = self.node(draw)
        row = factories.token_row(node["token"])
        answer = self.up.post(f"/api/tokens/{row.pk}/rotate", self.people["ada"])
        self.expect(answer, 201)
        node["token"] = answer.json()["token"]

    def delete_node(self, draw: Draw) -> None:
        """Its jobs end or are asked to; a new node of the same name has none of them."""
        node = self.node(draw)
        self.expect(self.up.delete(f"/api/nodes/{node['name']}", self.people["ada"]), 204)
        for job in self.model.jobs.values():
            if job["node"] is node:
                self.touched.add(job["id"])
        self.model.remove(node)
        self.enrol(node["name"], node["concurrency"])

    # --- invariants ---

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        nodes = [node["pk"] for node in [*self.model.nodes.values(), *self.model.removed]]
        rows = {str(job.pk): job for job in Job.objects.filter(node_id__in=nodes).select_related("transcript")}
        assert set(rows) == set(self.model.jobs)  # I1
        for job_id, row in rows.items():
            job = self.model.jobs[job_id]
            told = (row.status, row.reason, str(row.claim_id) if row.claim_id else None, row.outcome_unknown)
            assert told == (job["status"], job["reason"], job["claim"], job["unknown"]), job
            assert (row.cancel_requested_at is not None, row.late_result is not None) == (job["cancel"], job["late"])
            assert (row.contact_lost_at is not None) == job["contact_lost"]
            assert (row.exit_code, row.script_sha256) == (job["exit_code"], job["sha256"])
            assert row.node_id == job["node"]["pk"]  # I11
            before = self.seen.get(job_id, "QUEUED")
            assert row.status == before or row.status in ARROWS[before] or before == "QUEUED"  # I9
            times = [row.created_at, row.claimed_at, row.started_at, row.finished_at]
            known = [moment for moment in times if moment is not None]
            assert known == sorted(known)
            self.seen[job_id] = row.status
        for node in self.model.nodes.values():
            assert sum(map(self.model.uses_capacity, self.model.claims_of(node))) <= node["concurrency"]  # I11

    @invariant()
    def what_was_touched_is_right(self) -> None:
        touched, self.touched = self.touched, set()
        for job_id in touched:
            job = self.model.jobs[job_id]
            for name in ("stdout", "stderr"):  # I8
                stored = output.read(uuid.UUID(job_id), name)
                expected = job[name]
                assert (stored.first_offset, stored.total, stored.data) == (
                    expected["first"],
                    expected["total"],
                    expected["data"],
                )
            rows = Event.objects.filter(target=f"job:{job_id}").values_list("action", flat=True)
            assert Counter(rows) == +job["audit"]  # I10

    def teardown(self) -> None:
        """I2: when all time has passed, every job has ended, in one way."""
        self.move_time(40 * 86_400)
        deadlines.enforce()
        self.model.enforce()
        self.rows_are_as_the_model_says()
        assert all(not ARROWS[job["status"]] for job in self.model.jobs.values())


ENDINGS: dict[str, dict[str, Any]] = {
    "succeeded": {"reason": ""},
    "failed": {"status": "failed", "reason": "exit", "exit_code": 3, "changed": None},
    "cancelled": {"status": "cancelled", "reason": "", "exit_code": None, "signal": 15},
    "timeout": {"status": "failed", "reason": "timeout", "exit_code": None, "signal": 9},
    "refused": {"status": "failed", "reason": REFUSALS[0], "exit_code": None, "changed": None, "phases": []},
    "unknown": {"status": "failed", "reason": "host_rebooted", "exit_code": None, "outcome_unknown": True},
}


# What a run that is worth its time has met, beside much else.
MUST_REACH = [
    "jobs 201 ", "jobs 200 ", "cancel 200 ", "cancel 409 ", "start 200 ", "start 409 stale_claim", "output 200 ",
    "output 409 stale_claim", "complete 200 ", "complete 409 completion_differs", "late result",
]  # fmt: skip


def one_of(draw: Draw, things: list[Any]) -> Any:
    """By number, so that a report of a failure stays readable."""
    return things[draw(st.integers(0, len(things) - 1))]


def chunk(stream: str, offset: int, data: bytes, **over: Any) -> dict[str, Any]:
    return {"stream": stream, "offset": offset, "data": base64.b64encode(data).decode(), **over}


def template(name: str) -> Any:
    document = {
        "name": name, "title": "Model", "description": "Model.", "category": "test", "risk": "safe",
        "apply": f"echo 'revision {Jobs.revision}'\n",
    }  # fmt: skip
    return load_json(json.dumps(document))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[type[Jobs]]:
    monkeypatch.setattr(output, "OUTPUT_CAP", CAP)
    monkeypatch.setattr(output, "TRIM_STEP", 32)
    monkeypatch.setattr(catalogue, "find", template)
    people = {"ada": factories.make_user("ada", Role.ADMIN), "otto": factories.make_user("otto", Role.OPERATOR)}
    with plane(monkeypatch) as up:
        Jobs.up = up
        Jobs.people = {name: bearer(user) for name, user in people.items()}
        yield Jobs


def profile(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, database=None, print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck), phases=PHASES,
    )  # fmt: skip


@pytest.mark.slow
def test_the_server_does_what_the_model_says(machine: type[Jobs]) -> None:
    machine.reached.clear()
    run_state_machine_as_test(machine, settings=profile(EXAMPLES))
    assert [what for what in MUST_REACH if not machine.reached[what]] == [], sorted(machine.reached.items())


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["claim_ignored", "text_output", "late_overwrites"])
def test_a_planted_bug_is_noticed(machine: type[Jobs], monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    monkeypatch.setattr(reports, "planted", lambda name: name == bug)
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        run_state_machine_as_test(machine, settings=profile(200))
