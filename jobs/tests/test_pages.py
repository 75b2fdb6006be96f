"""The way from a preset to a job on pages, and who sees what of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from jobs import deadlines, selectors
from jobs.models import Job
from nodes.models import Node
from tests import factories

VALUES = {"sent": "1", "SERVER_NAME": "example.org", "ROOT": "/srv/www/site", "PORT": "80", "CACHE": "1h"}
NGINX = "/jobs/new/nginx-static-site/"


@pytest.fixture
def operator(client: Client, otto: User) -> Client:
    client.force_login(otto)
    return client


def post(client: Client, path: str, **data: Any) -> Any:
    return client.post(path, {**VALUES, **data})


def test_a_preset_says_where_it_was_tested_and_where_it_should_work(operator: Client) -> None:
    page = operator.get("/presets/ssh-hardening/").content.decode()
    assert "Expected to work on debian-11, debian-12, debian-13, ubuntu-22.04, ubuntu-24.04, ubuntu-26.04." in page
    assert "Tested on debian-12." in page
    assert "Expected to work on any Linux. Tested on debian-12." in operator.get("/presets/swap-file/").content.decode()


def test_each_step_carries_the_values(operator: Client, web_1: Node) -> None:
    targets = post(operator, f"{NGINX}targets/", node="web-1")
    confirm = post(operator, f"{NGINX}confirm/", node="web-1", mode="apply")
    for answer in (targets, confirm):
        assert answer.status_code == 200 and "example.org" in answer.content.decode()
    assert Job.objects.count() == 0


def test_a_bad_value_leads_back_to_the_form(operator: Client, web_1: Node) -> None:
    for step in ("targets/", "confirm/", ""):
        answer = post(operator, f"{NGINX}{step}", node="web-1", PORT="70000")
        assert answer.status_code == 400
        assert 'id="vars"' in answer.content.decode() and "70000" in answer.content.decode()
    assert Job.objects.count() == 0


@pytest.mark.parametrize("nodes", [[], ["nobody"], ["web-1", "nobody"]])
def test_a_bad_target_leads_back_to_the_targets(operator: Client, web_1: Node, nodes: list[str]) -> None:
    for step in ("confirm/", ""):
        answer = post(operator, f"{NGINX}{step}", node=nodes)
        assert answer.status_code == 400 and 'id="targets"' in answer.content.decode()
    assert Job.objects.count() == 0


def test_a_chosen_node_is_listed_in_a_fleet_longer_than_the_list(
    operator: Client, web_1: Node, monkeypatch: Any
) -> None:
    factories.make_node("a-worse-one")
    monkeypatch.setattr("jobs.ordering.MAX_LISTED", 1)
    page = post(operator, f"{NGINX}targets/", node="web-1").content.decode()
    assert 'value="web-1" checked' in page
    assert post(operator, NGINX, node="web-1").status_code == 302


def test_a_node_that_was_never_seen_is_shown_with_the_reason_and_cannot_be_chosen(
    operator: Client, web_1: Node, db_1: Node, new_1: Node
) -> None:
    page = post(operator, f"{NGINX}targets/", node="new-1").content.decode()
    assert 'value="new-1" disabled' in page and "never reported" in page
    assert 'value="db-1" data-tags' in page  # offline: its job waits
    for step in ("confirm/", ""):
        answer = post(operator, f"{NGINX}{step}", node=["web-1", "new-1"])
        assert answer.status_code == 400 and "“new-1” has never reported" in answer.content.decode()
        assert 'value="web-1" checked' in answer.content.decode()  # what can be chosen stays so
    assert Job.objects.count() == 0
    assert "Preview and run" not in operator.get("/nodes/new-1/").content.decode()
    assert "Preview and run" in operator.get("/nodes/db-1/").content.decode()
    assert post(operator, NGINX, node="db-1").status_code == 302


def test_what_many_nodes_are_to_confirm_says_changes_only_of_what_changes(operator: Client, web_1: Node) -> None:
    report = {"sent": "1", "DETAIL": "brief", "DISK_WARN_PERCENT": "85", "node": "web-1"}
    safe = operator.post("/jobs/new/system-report/confirm/", report).content.decode()
    assert "This runs on 1\u00a0node." in safe and "This changes" not in safe and "no rollback" not in safe
    assert "This changes 1\u00a0node." in post(operator, f"{NGINX}confirm/", node="web-1").content.decode()


def test_one_node_is_one_job(operator: Client, web_1: Node) -> None:
    answer = post(operator, NGINX, node="web-1")
    job = Job.objects.get()
    assert answer["Location"] == f"/jobs/{job.pk}/"
    assert job.created_by == "otto@example.com" and job.variables["CACHE"] == "3600"


def test_several_nodes_are_a_batch_of_jobs(operator: Client, web_1: Node, db_1: Node) -> None:
    answer = post(operator, NGINX, node=["web-1", "db-1"])
    [batch] = {job.batch_id for job in Job.objects.all()}
    assert answer["Location"] == f"/jobs/batches/{batch}/" and Job.objects.count() == 2
    page = operator.get(answer["Location"]).content.decode()
    assert "0 of 2" in page and "Cancel the rest" in page
    assert operator.post(f"{answer['Location']}cancel/").status_code == 302
    assert {job.status for job in Job.objects.all()} == {"CANCELLED"}


def test_more_than_ten_nodes_ask_for_the_name(operator: Client) -> None:
    names = [factories.make_seen_node(f"many-{number}").node_id for number in range(11)]
    answer = post(operator, NGINX, node=names)
    assert answer.status_code == 400 and "Type nginx-static-site to run it on 11 nodes." in answer.content.decode()
    assert post(operator, NGINX, node=names, confirm="nginx-static-site").status_code == 302
    assert Job.objects.count() == 11


def test_all_jobs_can_be_stopped_and_go_on(operator: Client, web_1: Node) -> None:
    assert operator.post("/jobs/stop/", {"reason": "wrong <config>"}).status_code == 302
    page = operator.get("/jobs/").content.decode()
    assert "No job is handed out." in page and "wrong &lt;config&gt;" in page
    assert operator.post("/jobs/resume/").status_code == 403


def test_a_form_sent_twice_queues_once(operator: Client, web_1: Node) -> None:
    addresses = {post(operator, NGINX, node="web-1", key="the-same-form")["Location"] for _ in range(2)}
    assert len(addresses) == 1 and Job.objects.count() == 1


def test_a_viewer_runs_nothing(client: Client, vera: User, web_1: Node) -> None:
    client.force_login(vera)
    job = factories.make_job(web_1)
    for path in (f"{NGINX}targets/", f"{NGINX}confirm/", NGINX, f"/jobs/{job.pk}/cancel/", f"/jobs/{job.pk}/retry/"):
        assert post(client, path, node="web-1").status_code == 403
    assert Job.objects.count() == 1


@pytest.mark.parametrize("tab", ["output", "script", "variables"])
def test_a_viewer_sees_neither_script_nor_variables_nor_output(
    client: Client, vera: User, web_1: Node, tab: str
) -> None:
    job = factories.make_job(web_1, preset="nginx-static-site", variables={"SERVER_NAME": "hidden.example.org"})
    client.force_login(vera)
    page = client.get(f"/jobs/{job.pk}/?tab={tab}").content.decode()
    assert "hidden.example.org" not in page and "hb_apply" not in page and 'id="console"' not in page


def test_an_operator_sees_all_tabs(operator: Client, web_1: Node) -> None:
    job = factories.make_job(web_1, preset="nginx-static-site", variables={"SERVER_NAME": "shown.example.org"})
    assert 'id="console"' in operator.get(f"/jobs/{job.pk}/").content.decode()
    assert "hb_apply" in operator.get(f"/jobs/{job.pk}/?tab=script").content.decode()
    assert "shown.example.org" in operator.get(f"/jobs/{job.pk}/?tab=variables").content.decode()


def test_cancel_ends_a_waiting_job_and_a_second_one_is_told(operator: Client, web_1: Node) -> None:
    job = factories.make_job(web_1)
    assert operator.post(f"/jobs/{job.pk}/cancel/")["Location"] == f"/jobs/{job.pk}/"
    job.refresh_from_db()
    assert job.status == "CANCELLED"
    answer = operator.post(f"/jobs/{job.pk}/cancel/")
    assert answer.status_code == 409 and "already finished" in answer.content.decode()


def test_run_again_is_a_new_job(operator: Client, web_1: Node) -> None:
    job = factories.make_job(web_1)
    operator.post(f"/jobs/{job.pk}/cancel/")
    answer = operator.post(f"/jobs/{job.pk}/retry/")
    assert Job.objects.get(retry_of=job).pk != job.pk and answer.status_code == 302


def test_verbs_need_a_post(operator: Client, web_1: Node) -> None:
    job = factories.make_job(web_1)
    assert [operator.get(f"/jobs/{job.pk}/{verb}/").status_code for verb in ("cancel", "retry")] == [405, 405]
    assert operator.get(f"{NGINX}targets/")["Location"] == "/presets/nginx-static-site/"


@pytest.mark.parametrize(
    "query",
    ["q=web", "status=QUEUED", "node=web-1", "who=test", "when=24h", "q=sys+web", "status=x", "batch=x", "q=%00"],
)
def test_list_filters_are_addresses(operator: Client, web_1: Node, query: str) -> None:
    factories.make_job(web_1)
    assert "System report" in operator.get(f"/jobs/?{query}").content.decode()


def test_the_palette_finds_jobs_presets_and_nodes(operator: Client, web_1: Node) -> None:
    job = factories.make_job(web_1)
    page = operator.get("/palette/?q=system-report", headers={"HX-Request": "true"}).content.decode()
    assert f"/jobs/{job.pk}/" in page and "/presets/system-report/" in page and "<html" not in page
    assert f"/jobs/{job.pk}/" in operator.get(f"/palette/?q={str(job.pk)[:8]}").content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("what", ["counts", "people", "gauges"])
def test_what_every_page_asks_reads_no_whole_table(vera: Any, what: str) -> None:
    """With so few rows the planner would read them all; without that choice it must have an index."""
    asked: dict[str, Callable[[], object]] = {
        "counts": lambda: selectors.counts_by_status(by=factories.as_actor(vera), since=timezone.now()),
        "people": lambda: selectors.people(by=factories.as_actor(vera)),
        "gauges": deadlines.gauges,
    }
    with CaptureQueriesContext(connection) as queries:
        asked[what]()
    [sql] = [query["sql"] for query in queries]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan" not in plan, plan
