"""The database stops, dies, locks or has no room: callers hear 503 and when to come back, and all is well soon after."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction

from agent.tests.ports import free_port
from hyprbox.lib import db
from hyprbox.lib.postgres import EmbeddedPostgres
from jobs.models import Job
from jobs.states import ARROWS, TERMINAL
from tests import factories
from tests.faults.child import Child
from tests.faults.slow_database import SlowDatabase
from tests.faults.stack import Stack
from tests.folders import open_folder
from tests.house import EMAIL, PASSWORD, wait_for

ANSWER_SECONDS = 2.0
NOISE_SECONDS = 2.0  # of a machine that does other things as well
RECOVERY_SECONDS = 10.0
MANY = tuple(f"many-{number}" for number in range(50))
SLOW_SECONDS = 0.2
COMPLETE_SECONDS = 5.0  # at 50 agents; 10 s at 100
LIMITS = {
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
    "synchronous_commit": "on",
    "TimeZone": "UTC",
}


# --- what the database itself refuses ---


@pytest.mark.django_db
@pytest.mark.parametrize(("before", "after"), list(itertools.product(ARROWS, ARROWS)))
def test_only_the_arrows_of_the_diagram(web_1: Any, before: str, after: str) -> None:
    job = in_state(factories.make_job(web_1), before)
    change = f"UPDATE jobs_job SET status = '{after}', {columns(after)} WHERE id = %s"
    if after == before or after in ARROWS[before]:
        run(change, job.pk)
    else:
        with pytest.raises(IntegrityError), transaction.atomic():
            run(change, job.pk)


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["script = 'x'", "payload = 'x'", "signature = 'x'", "node_id = gen_random_uuid()"])
def test_what_was_signed_stays(web_1: Any, change: str) -> None:
    job = factories.make_job(web_1)
    with pytest.raises(IntegrityError), transaction.atomic():
        run(f"UPDATE jobs_job SET {change} WHERE id = %s", job.pk)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        "status = 'LIMBO'",
        "status = 'FAILED', finished_at = now()",
        "status = 'CANCELLED'",
        "status = 'CANCELLED', finished_at = now()",
        "status = 'RUNNING'",
        "status = 'RUNNING', claim_id = gen_random_uuid()",
        "status = 'RUNNING', started_at = now()",
        "reason = 'exit'",
        "finished_at = now()",
    ],
)
def test_half_a_change_is_refused(web_1: Any, change: str) -> None:
    job = factories.make_job(web_1)
    with pytest.raises(IntegrityError), transaction.atomic():
        run(f"UPDATE jobs_job SET {change} WHERE id = %s", job.pk)


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["claim_id = NULL", "started_at = NULL"])
def test_what_runs_keeps_its_claim_and_its_start(web_1: Any, change: str) -> None:
    job = in_state(factories.make_job(web_1), "RUNNING")
    with pytest.raises(IntegrityError), transaction.atomic():
        run(f"UPDATE jobs_job SET {change} WHERE id = %s", job.pk)


@pytest.mark.django_db
def test_a_claim_a_start_and_a_good_end_touch_no_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT a.attname FROM pg_index i JOIN pg_depend d ON d.objid = i.indexrelid
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE i.indrelid = 'jobs_job'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid > 0
            """
        )
        indexed = {name for (name,) in cursor.fetchall()}
    assert {"node_id", "created_at", "reason", "cancel_requested_at"} <= indexed
    claim = {"claim_id", "request_id", "claimed_at", "lease_expires_at"}
    start = {"status", "started_at", "lease_expires_at", "deadline_at"}
    end = {"finished_at", "exit_code", "signal", "phases", "changed", "outcome_unknown", "completion_sha256"}
    assert indexed.isdisjoint(claim | start | end | {"phase", "contact_lost_at"})


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("statuses", "order", "index"),
    [
        (["QUEUED"], [], "jobs_job_pkey"),
        (["RUNNING", "QUEUED"], [], "jobs_job_pkey"),
        (["FAILED"], ["-created_at", "-id"], "jobs_failed"),
        (["CANCELLED"], ["-created_at", "-id"], "jobs_cancelled"),
    ],
)
def test_a_status_is_looked_up_in_an_index(web_1: Any, statuses: list[str], order: list[str], index: str) -> None:
    jobs = {status: in_state(factories.make_job(web_1), status).pk for status in ARROWS}
    found = Job.objects.in_status(*statuses)
    assert set(found.values_list("pk", flat=True)) == {jobs[status] for status in statuses}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        sql, params = found.order_by(*order).values("pk").query.sql_with_params()
        cursor.execute(f"EXPLAIN {sql}", params)
        assert index in "\n".join(line for (line,) in cursor.fetchall())


@pytest.mark.django_db
def test_mixed_statuses_are_all_found(web_1: Any) -> None:
    jobs = {status: in_state(factories.make_job(web_1), status).pk for status in ARROWS}
    for wanted in itertools.chain.from_iterable(itertools.combinations(ARROWS, size) for size in range(1, 6)):
        found = Job.objects.in_status(*wanted).values_list("pk", flat=True)
        assert set(found) == {jobs[status] for status in wanted}


def run(statement: str, job_pk: uuid.UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [job_pk])


def columns(status: str) -> str:
    reason = "exit" if status == "FAILED" else ""
    finished = "now()" if status in TERMINAL else "NULL"
    asked = ", cancel_requested_at = now()" if status == "CANCELLED" else ""
    return f"reason = '{reason}', finished_at = {finished}, claim_id = gen_random_uuid(), started_at = now(){asked}"


def in_state(job: Job, status: str) -> Job:
    for step in {"QUEUED": [], "RUNNING": ["RUNNING"], "CANCELLED": ["CANCELLED"]}.get(status, ["RUNNING", status]):
        run(f"UPDATE jobs_job SET status = '{step}', {columns(step)} WHERE id = %s", job.pk)
    return job


# --- the limits of every session ---


@pytest.mark.django_db
def test_django_sessions_have_limits() -> None:
    with connection.cursor() as cursor:
        assert {name: shown(cursor.execute, cursor.fetchone, name) for name in LIMITS} == LIMITS
    assert settings.DATABASES["default"]["CONN_HEALTH_CHECKS"] is True


@pytest.mark.django_db
async def test_the_lanes_sessions_have_them_too() -> None:
    async with await db.async_connect() as conn:
        found = {}
        for name in LIMITS:
            [found[name]] = await (await conn.execute(f"SHOW {name}")).fetchone() or [""]
    assert found == LIMITS


def shown(execute: Any, fetch: Any, name: str) -> str:
    execute(f"SHOW {name}")
    return str(fetch()[0])


# --- a real server whose database goes away ---


class Server(Stack):
    """Web and worker and PostgreSQL; the node's agent is the test."""

    def _add(self, name: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
        if name not in self.nodes:
            super()._add(name, arguments, environment)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with open_folder("away") as root:
        made = Server(root, nodes=("north", *MANY), through_proxy=False)
        try:
            yield made.start()
        finally:
            made.close()


class Caller:
    """A person and an agent who go on calling."""

    def __init__(self, server: Server) -> None:
        self.http = httpx.Client(base_url=server.url, timeout=30)
        answer = self.http.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.http.cookies.clear()
        self.person = {"authorization": f"Bearer {answer.json()['access']}"}
        self.agent = {"authorization": f"Bearer {server.tokens['north']}"}

    def queue(self) -> httpx.Response:
        order = {"preset": "system-report", "variables": {}, "node_id": "north"}
        return self.http.post("/api/jobs", json=order, headers=self.person)

    def beat(self) -> httpx.Response:
        figures = {"cpu_percent": 1.0, "memory_percent": 1.0, "disk_percent": 1.0}
        body = {"node_id": "north", "agent_version": "1", "interval_seconds": 10, "metrics": figures}
        return self.http.post("/api/nodes/heartbeat", json=body, headers=self.agent)

    def poll(self) -> httpx.Response:
        query: dict[str, Any] = {"node_id": "north", "request_id": str(uuid.uuid4()), "wait": 0, "reconcile": 1}
        return self.http.get("/api/jobs/pending", params=query, headers=self.agent)

    def start(self, job_id: str = "", claim_id: str = "") -> httpx.Response:
        path = f"/api/jobs/{job_id or uuid.uuid4()}/start"
        return self.http.post(path, json={"claim_id": claim_id or str(uuid.uuid4())}, headers=self.agent)

    def all(self) -> dict[str, Callable[[], httpx.Response]]:
        return {"queue": self.queue, "beat": self.beat, "poll": self.poll, "start": self.start}


@pytest.fixture
def caller(server: Server) -> Iterator[Caller]:
    made = Caller(server)
    yield made
    made.http.close()


def timed(call: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    answer = call()
    return answer, time.monotonic() - began


def hears_come_back(name: str, call: Callable[[], httpx.Response]) -> None:
    answer, seconds = timed(call)
    assert answer.status_code == 503, (name, answer.status_code, answer.text)
    assert int(answer.headers["retry-after"]) >= 1
    assert seconds <= ANSWER_SECONDS + NOISE_SECONDS, (name, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_the_database_goes_away_and_comes_back(server: Server, caller: Caller, how: str) -> None:
    queued, due = caller.queue(), caller.queue()
    assert queued.status_code == 201, queued.text
    worker = server.children["worker"]
    end(server.postgres, how)
    try:
        for _ in range(2):  # the first call finds a broken connection, the next ones find none
            for name, call in caller.all().items():
                hears_come_back(name, call)
        assert caller.http.get("/healthz").status_code == 200
        ready = caller.http.get("/readyz")
        assert (ready.status_code, "database" in ready.json()["failing"]) == (503, True)
    finally:
        server.postgres.start()
    began = time.monotonic()
    wait_for(lambda: caller.http.get("/readyz").status_code == 200, seconds=RECOVERY_SECONDS)
    for call in caller.all().values():
        wait_for(lambda call=call: call().status_code < 500, seconds=RECOVERY_SECONDS)  # type: ignore[misc]
    assert time.monotonic() - began <= RECOVERY_SECONDS
    assert caller.http.get(f"/api/jobs/{queued.json()['id']}", headers=caller.person).json()["status"] == "QUEUED"
    # The worker was there all the time and goes on: what is due now ends with its next round.
    server.sql("UPDATE jobs_job SET expires_at = now() WHERE id = %s", due.json()["id"])
    path = f"/api/jobs/{due.json()['id']}"
    wait_for(lambda: caller.http.get(path, headers=caller.person).json()["status"] == "FAILED", seconds=30)
    assert (worker.is_alive, worker.starts) == (True, 1)


def end(postgres: EmbeddedPostgres, how: str) -> None:
    if how == "stopped":
        postgres.stop()
        return
    mark = postgres._postmaster()
    assert mark is not None
    mark.send(signal.SIGKILL)
    wait_for(lambda: not postgres.is_running(), seconds=10)


@pytest.mark.slow
def test_a_database_that_hangs(server: Server, caller: Caller) -> None:
    """It takes connections and bytes, and says nothing: nobody waits for it for longer than for one that is gone."""
    backends = [pid for (pid,) in server.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")]
    mark = server.postgres._postmaster()
    assert mark is not None
    stopped = [mark.pid, *backends]
    for pid in stopped:
        _signal(pid, signal.SIGSTOP)
    try:
        for name, call in caller.all().items():
            hears_come_back(name, call)
        with ThreadPoolExecutor(8) as threads:
            for future in [threads.submit(hears_come_back, name, call) for name, call in [*caller.all().items()] * 4]:
                future.result()
        assert caller.http.get("/healthz").status_code == 200
        ready = caller.http.get("/readyz")
        assert (ready.status_code, "database" in ready.json()["failing"]) == (503, True)
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT)
    for call in caller.all().values():
        wait_for(lambda call=call: call().status_code < 500, seconds=RECOVERY_SECONDS)  # type: ignore[misc]


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# --- a database that is slow ---


class Agent:
    """One of many, each on its own: it asks twice at once, runs what it is given, and repeats what got no answer."""

    def __init__(self, server: Server, node: str, urls: tuple[str, str]) -> None:
        self.node, self.urls, self.claims = node, urls, set[tuple[str, str]]()
        self._headers = {"authorization": f"Bearer {server.tokens[node]}"}
        self.complete_seconds = 0.0

    async def live(self, http: httpx.AsyncClient) -> None:
        for answer in await asyncio.gather(*(self._poll(http, url, str(uuid.uuid4())) for url in self.urls)):
            if answer is not None:
                self.claims.add((answer["id"], answer["claim_id"]))
        for job_id, claim_id in self.claims:
            await self._told(http, f"/api/jobs/{job_id}/start", {"claim_id": claim_id})
            began = time.monotonic()
            await self._told(http, f"/api/jobs/{job_id}/complete", {"claim_id": claim_id, **factories.ending()})
            self.complete_seconds = time.monotonic() - began

    async def _poll(self, http: httpx.AsyncClient, url: str, request_id: str) -> Any:
        query: dict[str, Any] = {"node_id": self.node, "request_id": request_id, "wait": 0, "reconcile": 1}
        return (await self._again(http.get, f"{url}/api/jobs/pending", params=query))["job"]

    async def _told(self, http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
        await self._again(http.post, self.urls[0] + path, json=body)

    async def _again(self, call: Any, url: str, **more: Any) -> Any:
        while (answer := await call(url, headers=self._headers, **more)).status_code == 503:
            await asyncio.sleep(int(answer.headers["retry-after"]))
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def slow_web(server: Server) -> Iterator[tuple[str, SlowDatabase]]:
    """One more web process on the same database, whose statements take longer as soon as they should."""
    link = SlowDatabase(next(server.postgres.place.socket_dir.glob(".s.PGSQL.*[0-9]"))).start()
    port = free_port()
    command = [*server.children["web"].command[:-1], str(port)]
    environment = {**server.environment(), "DATABASE_URL": link.url(server.database_url)}
    web = Child("slow", command, environment, server.root / "log/slow.log").start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: is_ready(url), seconds=60, why=server.last_words())
        yield url, link
    finally:
        web.end()
        link.stop()


def is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False


@pytest.mark.slow
def test_a_database_that_is_slow(server: Server, caller: Caller, slow_web: tuple[str, SlowDatabase]) -> None:
    """Nothing is claimed twice, not even by way of another process, and jobs end in good time."""
    url, link = slow_web
    order = {"preset": "system-report", "variables": {}, "node_ids": MANY, "confirm": "system-report"}
    batch = caller.http.post("/api/jobs/batches", json=order, headers=caller.person)
    assert batch.status_code == 201, batch.text
    agents = [Agent(server, node, (url, server.url)) for node in MANY]

    async def all_at_once() -> None:
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None)) as http:
            await asyncio.gather(*(agent.live(http) for agent in agents))

    link.seconds = SLOW_SECONDS
    asyncio.run(all_at_once())
    assert link.statements > len(MANY)
    claims = [claim for agent in agents for claim in agent.claims]
    assert sorted(job_id for job_id, _ in claims) == sorted(job["id"] for job in batch.json()["jobs"])
    moves = "SELECT job_id::text, string_agg(new, ' ' ORDER BY seq) FROM faults_history GROUP BY 1"
    told = dict(server.sql(moves))
    assert {told[job_id] for job_id, _ in claims} == {"QUEUED RUNNING SUCCEEDED"}
    slowest = sorted(agent.complete_seconds for agent in agents)
    assert slowest[int(len(slowest) * 0.99)] < COMPLETE_SECONDS, slowest


@pytest.mark.slow
def test_a_table_that_is_locked_holds_up_nobody_else(server: Server, caller: Caller) -> None:
    with psycopg.connect(server.database_url) as holder:
        holder.execute("LOCK TABLE jobs_job IN ACCESS EXCLUSIVE MODE")
        answer, seconds = timed(caller.queue)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert seconds <= 2 * ANSWER_SECONDS + NOISE_SECONDS
        assert caller.beat().status_code == 202
        assert caller.http.get("/healthz").status_code == 200
    assert caller.queue().status_code == 201


@pytest.mark.slow
def test_a_pool_without_room_says_so(server: Server, caller: Caller) -> None:
    job_id = caller.queue().json()["id"]
    with psycopg.connect(server.database_url) as holder, ThreadPoolExecutor(40) as threads:
        holder.execute("SELECT FROM jobs_job WHERE id = %s FOR UPDATE", [job_id])
        waiting = [threads.submit(timed, lambda: caller.start(job_id)) for _ in range(40)]
        time.sleep(0.5)
        assert caller.beat().status_code == 202  # the lanes have connections of their own
        assert caller.http.get("/healthz").status_code == 200
        again = Caller(server)  # people log in, and reports find their place, while it is so
        again.http.close()
        report = caller.http.post(f"/api/jobs/{uuid.uuid4()}/complete", json={}, headers=caller.agent)
        assert report.status_code == 400, report.text
        answers = [future.result() for future in waiting]
    assert {answer.status_code for answer, _ in answers} == {503}
    assert all("retry-after" in answer.headers for answer, _ in answers)
    crowded = [seconds for answer, seconds in answers if answer.json()["error"]["code"] == "overloaded"]
    assert len(crowded) >= 20
    assert max(crowded) <= ANSWER_SECONDS + NOISE_SECONDS
    # Whoever got a place in time then waits for the lock, which has 2 s of its own.
    assert max(seconds for _, seconds in answers) <= 2 * ANSWER_SECONDS + NOISE_SECONDS
    wait_for(lambda: caller.start(job_id).status_code == 409, seconds=RECOVERY_SECONDS)
