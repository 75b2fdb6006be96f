"""Batches in waves: who may be handed a job when, when a batch stops, and what can be done with the rest."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import people as people_verbs
from accounts.models import User
from audit.models import Event
from hyprbox.fragments import source
from hyprbox.lib.errors import Forbidden, InvalidInput
from jobs import batches, selectors, services, stops, summary
from jobs.batches import Pace, Targets
from jobs.errors import BatchOver, NothingToRetry
from jobs.models import Batch, Job
from jobs.states import Status
from jobs.together import Together
from nodes.models import Node
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
REPORT = services.Order("system-report", {}, confirm="system-report")


def fleet(count: int) -> list[Node]:
    return [factories.make_seen_node(f"fleet-{number:03d}") for number in range(count)]


def people(api: Any, role: str) -> Any:
    return api.by(factories.make_user(role, role))


def claims(nodes: list[Node]) -> list[Node]:
    """Which of these nodes are handed a job now."""

    async def all_at_once() -> list[Any]:
        lane = Together()
        try:
            asked = [lane.claim(node_pk=node.pk, request_id=uuid.uuid4()) for node in nodes]
            return list(await asyncio.gather(*asked))
        finally:
            await lane.stop()

    return [node for node, claim in zip(nodes, asyncio.run(all_at_once()), strict=True) if claim is not None]


def queued(count: int, **pace: int | None) -> tuple[Batch, list[Node]]:
    nodes = fleet(count)
    batch, jobs, _ = batches.queue(
        by=factories.SYSTEM, order=REPORT, node_ids=[node.node_id for node in nodes], pace=Pace(**pace)
    )
    assert len(jobs) == count
    return batch, nodes


def end(batch: Batch, wave: int, *, failed: int = 0) -> None:
    """Every job of the wave ends as if its agent had reported it; `failed` of them with exit 1."""
    for number, job in enumerate(Job.objects.filter(batch=batch, wave=wave, status=Status.QUEUED).order_by("id")):
        status = Status.FAILED if number < failed else Status.SUCCEEDED
        Job.objects.filter(pk=job.pk).update(
            claim_id=uuid.uuid4(), status=Status.RUNNING, started_at=timezone.now(), lease_expires_at=timezone.now()
        )
        Job.objects.filter(pk=job.pk).update(
            status=status, reason="exit" if status == Status.FAILED else "", finished_at=timezone.now()
        )
        batches.advance(batch.pk)


def states(batch: Batch) -> list[str]:
    return [wave.state for wave in selectors.waves(batch)]


def test_only_the_released_wave_is_handed_out_and_the_next_follows() -> None:
    batch, nodes = queued(7, wave_size=3)
    assert states(batch) == ["running", "waiting", "waiting"]
    handed = claims(nodes)
    assert [node.node_id for node in handed] == ["fleet-000", "fleet-001", "fleet-002"]
    Job.objects.filter(batch=batch).update(claim_id=None, lease_expires_at=None)
    end(batch, 0)
    assert states(batch) == ["done", "running", "waiting"]
    assert [node.node_id for node in claims(nodes)] == ["fleet-003", "fleet-004", "fleet-005"]
    Job.objects.filter(batch=batch).update(claim_id=None, lease_expires_at=None)
    end(batch, 1)
    end(batch, 2)
    batch.refresh_from_db()
    assert (states(batch), batch.next_wave, batch.stopped_at) == (["done"] * 3, None, None)


def test_it_stops_after_so_many_failures_and_cancels_what_was_not_released() -> None:
    batch, _ = queued(9, wave_size=3, stop_after_failures=2)
    end(batch, 0, failed=1)
    assert states(batch) == ["done", "running", "waiting"]
    end(batch, 1, failed=1)
    batch.refresh_from_db()
    assert batch.stopped_because == "2 of 4 failed; it was to stop after 2."
    counts = selectors.counts_of_batch(by=factories.SYSTEM, batch=batch)
    assert (counts["FAILED"], counts["CANCELLED"], counts["SUCCEEDED"]) == (2, 3, 4)
    stopped = Event.objects.get(action="batch.stopped")
    assert (stopped.target, stopped.detail["cancelled"]) == (f"batch:{batch.pk}", 3)


def test_many_nodes_are_never_changed_all_at_once_and_a_tenth_of_failures_stops_it() -> None:
    batch, _ = queued(60)
    assert (batch.wave_size, batch.stop_over_percent) == (6, 10)
    end(batch, 0)
    end(batch, 1, failed=1)
    assert states(batch)[2] == "running"  # 1 of 12 is less than a tenth
    end(batch, 2, failed=1)
    batch.refresh_from_db()
    assert batch.stopped_because == "2 of 18 failed, more than 10 %."
    assert selectors.counts_of_batch(by=factories.SYSTEM, batch=batch)["CANCELLED"] == 42


def in_waves(author: User, count: int = 6) -> tuple[Batch, list[Node]]:
    nodes = fleet(count)
    batch, _, _ = batches.queue(
        by=factories.as_actor(author),
        order=REPORT,
        node_ids=[node.node_id for node in nodes],
        pace=Pace(wave_size=2, stop_after_failures=6),
    )
    return batch, nodes


LOST = {
    "disabled": (lambda by, user: people_verbs.change_user(by=by, user_id=user.pk, is_active=False), "active account"),
    "removed": (lambda by, user: people_verbs.remove_user(by=by, user_id=user.pk), "active account"),
    "a viewer": (lambda by, user: people_verbs.change_user(by=by, user_id=user.pk, role="viewer"), "may not run jobs"),
}


@pytest.mark.parametrize("how", LOST)
def test_no_wave_follows_whose_author_may_not_run_jobs_any_more(api: Any, client: Client, how: str) -> None:
    author, admin = factories.make_user("otto", "operator"), factories.make_user("ada", "admin")
    batch, nodes = in_waves(author)
    lose, word = LOST[how]
    lose(factories.as_actor(admin), author)
    end(batch, 0)
    batch.refresh_from_db()
    assert batch.stopped_because.startswith("otto@example.com, who queued it, ") and word in batch.stopped_because
    assert claims(nodes) == [] and not Job.objects.filter(held=True, status=Status.QUEUED).exists()
    entry = Event.objects.get(action="batch.stopped")
    assert (entry.actor_name, entry.detail["cancelled"], entry.detail["why"]) == ("waves", 4, batch.stopped_because)
    told = api.by(admin).get(f"/api/jobs/batches/{batch.pk}").json()
    assert (told["stopped_because"], told["counts"]["CANCELLED"]) == (batch.stopped_because, 4)
    client.post("/login/", {"email": admin.email, "password": factories.PASSWORD})
    assert batch.stopped_because in client.get(f"/jobs/batches/{batch.pk}/").content.decode()


@pytest.mark.parametrize("how", LOST)
def test_the_worker_stops_it_while_a_wave_is_still_running(how: str) -> None:
    author, admin = factories.make_user("otto", "operator"), factories.make_user("ada", "admin")
    batch, nodes = in_waves(author)
    other, _, _ = batches.queue(
        by=factories.as_actor(admin), order=REPORT, node_ids=[n.node_id for n in nodes], pace=Pace(wave_size=3)
    )
    assert batches.advance_all() == 2
    batch.refresh_from_db()
    assert (states(batch), batch.stopped_at) == (["running", "waiting", "waiting"], None)
    LOST[how][0](factories.as_actor(admin), author)
    batches.advance_all()
    batch.refresh_from_db()
    assert LOST[how][1] in batch.stopped_because
    assert (
        selectors.counts_of_batch(by=factories.SYSTEM, batch=batch)["QUEUED"] == 2
    )  # of the wave that was released before
    assert states(other) == ["running", "waiting"]
    batches.advance_all()
    assert Event.objects.filter(action="batch.stopped").count() == 1


def test_an_author_who_may_goes_on_under_another_role_and_name() -> None:
    author, admin = factories.make_user("otto", "operator"), factories.make_user("ada", "admin")
    batch, _ = in_waves(author)
    people_verbs.change_user(by=factories.as_actor(admin), user_id=author.pk, role="admin")
    author.refresh_from_db()
    factories.leave(author, email="otto@example.org")
    batches.advance_all()
    end(batch, 0)
    assert states(batch) == ["done", "running", "waiting"]


def test_a_check_of_many_nodes_needs_no_waves() -> None:
    nodes = fleet(51)
    order = services.Order("time-sync", {}, mode="check")
    batch, _, _ = batches.queue(by=factories.SYSTEM, order=order, node_ids=[node.node_id for node in nodes])
    assert batch.wave_size is None
    assert not Job.objects.filter(held=True).exists()


@pytest.mark.parametrize(
    ("pace", "field"),
    [
        ({"wave_size": 0}, "wave_size"),
        ({"wave_size": 1001}, "wave_size"),
        ({"wave_size": 2, "stop_after_failures": 0}, "stop_after_failures"),
        ({"stop_after_failures": 1}, "stop_after_failures"),
    ],
)
def test_a_pace_that_cannot_be(pace: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        queued(3, **pace)
    assert list(refused.value.fields) == [field]
    assert not Job.objects.exists()


@pytest.mark.parametrize("size", [51, 60, 1000])
def test_whoever_says_so_more_than_fifty_are_not_changed_at_once(api: Any, size: int) -> None:
    nodes = [node.node_id for node in fleet(60)]
    operator = people(api, "operator")
    body = {"preset": "time-sync", "variables": {}, "node_ids": nodes, "confirm": "time-sync"}
    answer = operator.post("/api/jobs/batches", {**body, "wave_size": size})
    assert (answer.status_code, answer.json()["error"]["fields"]) == (
        400,
        {"wave_size": ["From 1 to 50: of 60 nodes at most 50 change at a time."]},
    )
    assert not Job.objects.exists()
    check = {**body, "mode": "check", "confirm": "", "wave_size": size}  # it changes nothing
    assert operator.post("/api/jobs/batches", check).status_code == 201
    made = operator.post("/api/jobs/batches", {**body, "wave_size": 50})
    assert made.status_code == 201
    assert states(Batch.objects.get(pk=made.json()["id"])) == ["running", "waiting"]
    fifty = operator.post("/api/jobs/batches", {**body, "node_ids": nodes[:50], "wave_size": size})
    assert fifty.status_code == 201


@pytest.mark.parametrize(("count", "size"), [(51, 6), (500, 50), (501, 50), (1000, 50)])
def test_a_tenth_at_a_time_is_never_more_than_fifty(count: int, size: int) -> None:
    assert batches._wave_size(Pace(), count, "apply") == (size, 10)


def test_own_failures_of_many_are_counted_beside_the_usual_share() -> None:
    lax, _ = queued(60, stop_after_failures=1000)
    assert (lax.stop_after_failures, lax.stop_over_percent) == (1000, 10)
    end(lax, 0, failed=1)
    lax.refresh_from_db()
    assert lax.stopped_because == "1 of 6 failed, more than 10 %."
    names = list(Node.objects.values_list("node_id", flat=True))
    strict, _, _ = batches.queue(
        by=factories.SYSTEM, order=REPORT, node_ids=names, pace=Pace(wave_size=30, stop_after_failures=2)
    )
    rule = summary.of_batch(strict, selectors.counts_of_batch(by=factories.SYSTEM, batch=strict), []).rule
    assert rule.endswith("It stops after 2\xa0failures, or when more than 10 % failed.")
    end(strict, 0, failed=2)  # 2 of 30 are less than a tenth
    strict.refresh_from_db()
    assert strict.stopped_because.endswith("it was to stop after 2.")


def test_few_in_waves_have_the_rule_that_somebody_gave_them() -> None:
    batch, _ = queued(4, wave_size=2, stop_after_failures=2)
    assert (batch.stop_after_failures, batch.stop_over_percent) == (2, None)


def test_many_that_failed_are_retried_in_waves_whatever_their_batch_was() -> None:
    """It may be from before there was a largest wave, or somebody changed the row."""
    batch, _ = queued(60)
    Job.objects.filter(batch=batch).update(held=False)
    Batch.objects.filter(pk=batch.pk).update(next_wave=None, wave_size=1000)
    for wave in range(10):
        end(batch, wave, failed=6)
    again, jobs = batches.retry_failed(by=factories.SYSTEM, batch_id=batch.pk, confirm=REPORT.preset)
    assert (len(jobs), again.wave_size, again.stop_over_percent) == (60, 50, 10)


def test_a_wave_of_cancelled_jobs_is_passed_over() -> None:
    batch, _ = queued(6, wave_size=2)
    for job in Job.objects.filter(batch=batch, wave=1):
        services.request_cancel(by=factories.SYSTEM, job_id=job.pk)
    end(batch, 0)
    assert states(batch) == ["done", "done", "running"]


def test_cancel_the_rest() -> None:
    batch, _ = queued(6, wave_size=2)
    end(batch, 0)
    batch = batches.cancel_rest(by=factories.SYSTEM, batch_id=batch.pk)
    assert selectors.counts_of_batch(by=factories.SYSTEM, batch=batch)["CANCELLED"] == 4
    assert batch.stopped_because == "Cancelled by test."
    assert batches.advance_all() == 0
    with pytest.raises(BatchOver):
        batches.cancel_rest(by=factories.SYSTEM, batch_id=batch.pk)


def test_a_job_that_ends_while_the_rest_is_cancelled_does_not_hinder_it(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = queued(4, wave_size=2)
    cancel = services.request_cancel

    def late(**asked: Any) -> Job:
        if Job.objects.filter(batch=batch, status=Status.SUCCEEDED).count() == 0:
            now = timezone.now()
            Job.objects.filter(pk=asked["job_id"]).update(status=Status.RUNNING, claim_id=uuid.uuid4(), started_at=now)
            Job.objects.filter(pk=asked["job_id"]).update(status=Status.SUCCEEDED, finished_at=now)
        return cancel(**asked)

    monkeypatch.setattr(services, "request_cancel", late)
    batch = batches.cancel_rest(by=factories.SYSTEM, batch_id=batch.pk)
    counts = selectors.counts_of_batch(by=factories.SYSTEM, batch=batch)
    assert (counts["SUCCEEDED"], counts["CANCELLED"]) == (1, 3)


def test_a_repeated_batch_is_the_same_in_as_many_queries_however_large(
    django_assert_max_num_queries: Any,
) -> None:
    names = [node.node_id for node in fleet(9)]
    ask = {"by": factories.as_actor(factories.make_user("operator", "operator")), "order": REPORT, "node_ids": names}
    first, _, _ = batches.queue(**ask, idempotency_key="once")
    with django_assert_max_num_queries(3):  # the key, the batch, its jobs
        again, jobs, is_new = batches.queue(**ask, idempotency_key="once")
        assert [job.transcript.stdout_bytes for job in jobs] == [0] * 9
    assert (again.pk, is_new, [job.node.node_id for job in jobs]) == (first.pk, False, names)


def test_a_repeated_batch_is_the_first_one_whichever_nodes_its_tags_fit_by_now(api: Any) -> None:
    factories.make_seen_node("a", group="acme", tags=["web"])
    factories.make_seen_node("b", tags=["web"])
    operator = people(api, "operator")
    body = {"preset": "time-sync", "variables": {}, "tags": ["web"]}

    def ask(**over: Any) -> Any:
        return operator.post("/api/jobs/batches", {**body, **over}, idempotency_key="once")

    first = ask()
    factories.make_seen_node("c", tags=["web"])
    grown = ask()
    Node.objects.update(tags=[])
    empty = ask()
    assert [answer.status_code for answer in (first, grown, empty)] == [201, 200, 200]
    assert first.json()["id"] == grown.json()["id"] == empty.json()["id"]
    assert {job["node_id"] for job in empty.json()["jobs"]} == {"a", "b"}
    for other in ({"tags": ["db"]}, {"tags": [], "groups": ["web"]}, {"node_ids": ["a"]}, {"wave_size": 1}):
        assert (ask(**other).status_code, ask(**other).json()["error"]["code"]) == (422, "key_reused"), other
    assert Job.objects.count() == 2


def test_the_failed_ones_are_retried_once() -> None:
    batch, _ = queued(4)
    end(batch, 0, failed=2)
    again, jobs = batches.retry_failed(by=factories.SYSTEM, batch_id=batch.pk)
    assert {job.retry_of_id for job in jobs} == set(
        Job.objects.filter(batch=batch, status="FAILED").values_list("pk", flat=True)
    )
    assert again.pk != batch.pk
    with pytest.raises(NothingToRetry):
        batches.retry_failed(by=factories.SYSTEM, batch_id=batch.pk)


def test_more_than_ten_nodes_want_the_name_typed_whoever_asks(api: Any) -> None:
    nodes = [node.node_id for node in fleet(11)]
    operator = people(api, "operator")
    body = {"preset": "time-sync", "variables": {}, "node_ids": nodes}
    for confirm in ({}, {"confirm": "yes"}):
        answer = operator.post("/api/jobs/batches", {**body, **confirm})
        assert (answer.status_code, list(answer.json()["error"]["fields"])) == (400, ["confirm"])
    with pytest.raises(InvalidInput, match="cannot be used"):
        batches.queue(by=factories.SYSTEM, order=services.Order("time-sync", {}), node_ids=nodes)
    assert not Job.objects.exists()
    assert operator.post("/api/jobs/batches", {**body, "mode": "check"}).status_code == 201  # it changes nothing
    made = operator.post("/api/jobs/batches", {**body, "confirm": "time-sync"})
    assert made.status_code == 201
    batch = Batch.objects.get(pk=made.json()["id"])
    end(batch, 0, failed=11)
    path = f"/api/jobs/batches/{batch.pk}/retry"
    assert list(operator.post(path, {}).json()["error"]["fields"]) == ["confirm"]
    assert operator.post(path, {"confirm": "time-sync"}).status_code == 201


def test_the_page_asks_for_the_name_before_more_than_ten_have_failed(client: Client, otto: User) -> None:
    """It stays open while jobs fail: its stream changes how far the batch is, and that shows the other form."""
    client.force_login(otto)
    batch, _ = queued(12)
    page = client.get(f"/jobs/batches/{batch.pk}/").content.decode()
    assert 'data-confirm="system-report"' in page and "data-many-failed" not in page
    end(batch, 0, failed=11)
    told = {
        frame["id"]: frame["html"] for _, frame in source(f"batch-{batch.pk}", by=factories.as_actor(otto)).snapshot()
    }
    assert "data-many-failed" in told["batch-state"]
    assert "data-many-failed" in client.get(f"/jobs/batches/{batch.pk}/").content.decode()
    answer = client.post(f"/jobs/batches/{batch.pk}/retry/", {"confirm": "system-report"})
    assert answer["Location"] != f"/jobs/batches/{batch.pk}/" and Batch.objects.count() == 2


def test_the_page_of_ten_never_asks_for_the_name(client: Client, otto: User) -> None:
    client.force_login(otto)
    batch, _ = queued(10)
    assert "data-confirm" not in client.get(f"/jobs/batches/{batch.pk}/").content.decode()


def test_groups_tags_and_statuses_choose_nodes() -> None:
    factories.make_seen_node("a", group="acme", tags=["web"])
    factories.make_seen_node("b", group="acme", tags=["db", "web"])
    factories.make_seen_node("c", group="beta", tags=["web"])
    factories.make_seen_node("d", tags=["db"])
    assert batches.choose(Targets(tags=("web",))) == ["a", "b", "c"]
    assert batches.choose(Targets(groups=("acme", "beta"), tags=("db",))) == ["b"]
    assert batches.choose(Targets(node_ids=("d",), groups=("beta",))) == ["d", "c"]
    assert batches.choose(Targets(statuses=("ONLINE",))) == ["a", "b", "c", "d"]
    for nothing in (Targets(), Targets(tags=("none",))):
        with pytest.raises(InvalidInput):
            batches.choose(nothing)


def test_a_node_that_was_never_seen_is_not_among_those_of_a_tag_but_may_be_named(api: Any) -> None:
    factories.make_node("awaited", tags=["web"], group="acme")
    factories.make_seen_node("gone", tags=["web"], last_seen_at=timezone.now() - timedelta(days=90))
    assert batches.choose(Targets(tags=("web",))) == ["gone"]
    for only_awaited in (Targets(groups=("acme",)), Targets(statuses=("UNKNOWN",))):
        with pytest.raises(InvalidInput):
            batches.choose(only_awaited)
    body = {"preset": "system-report", "variables": {}}
    answer = people(api, "operator").post("/api/jobs/batches", {**body, "node_ids": ["gone", "awaited"]})
    assert answer.status_code == 201, answer.content
    assert Job.objects.count() == 2


def test_a_wave_looks_as_its_jobs_do() -> None:
    batch, _nodes = queued(4, wave_size=2)

    def looks() -> list[str]:
        return [wave.look for wave in selectors.waves(batch)]

    assert looks() == ["QUEUED", "QUEUED"]  # released, but no node has come yet
    first = Job.objects.filter(batch=batch, wave=0).first()
    assert first is not None
    Job.objects.filter(pk=first.pk).update(claim_id=uuid.uuid4(), status=Status.RUNNING, started_at=timezone.now())
    assert looks() == ["RUNNING", "QUEUED"]
    Job.objects.filter(pk=first.pk).update(status=Status.SUCCEEDED, finished_at=timezone.now())
    assert looks() == ["RUNNING", "QUEUED"]
    end(batch, 0)
    assert looks() == ["ENDED", "QUEUED"]
    batches.cancel_rest(by=factories.SYSTEM, batch_id=batch.pk)
    assert looks() == ["ENDED", "CANCELLED"]


def test_over_the_api(api: Any) -> None:
    for node in fleet(4):
        Node.objects.filter(pk=node.pk).update(tags=["edge"])
    operator, viewer = people(api, "operator"), people(api, "viewer")
    body = {"preset": "system-report", "variables": {}, "tags": ["edge"], "wave_size": 3}
    assert viewer.post("/api/jobs/batches", body).status_code == 403
    answer = operator.post("/api/jobs/batches", body)
    assert (answer.status_code, len(answer.json()["jobs"])) == (201, 4)
    path = f"/api/jobs/batches/{answer.json()['id']}"
    shown = viewer.get(path).json()
    assert [wave["state"] for wave in shown["waves"]] == ["running", "waiting"]
    assert (shown["counts"]["QUEUED"], shown["wave_size"]) == (4, 3)
    assert viewer.post(f"{path}/cancel", {}).status_code == 403
    assert operator.post(f"{path}/cancel", {}).json()["counts"]["CANCELLED"] == 4
    assert operator.post(f"{path}/retry", {}).json()["error"]["code"] == "nothing_to_retry"
    assert operator.get(f"/api/jobs/batches/{uuid.uuid4()}").status_code == 404
    assert operator.post("/api/jobs/batches", {**body, "tags": []}).status_code == 400


def test_the_switch_that_stops_the_fleet(api: Any) -> None:
    _, nodes = queued(2)
    operator, admin = people(api, "operator"), people(api, "admin")
    assert operator.get("/api/jobs/stop").json()["stopped"] is False
    assert operator.post("/api/jobs/stop", {"reason": "wrong config"}).json()["reason"] == "wrong config"
    assert claims(nodes) == []
    assert operator.delete("/api/jobs/stop").status_code == 403
    assert admin.delete("/api/jobs/stop").status_code == 204
    assert len(claims(nodes)) == 2
    assert list(Event.objects.filter(target="jobs").order_by("pk").values_list("action", flat=True)) == [
        "jobs.stopped",
        "jobs.resumed",
    ]
    with pytest.raises(Forbidden):
        stops.stop(by=factories.agent_of(nodes[0]))
