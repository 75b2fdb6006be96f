"""Management commands for nodes, jobs, tokens and retention: they call the verbs that pages and the API call."""

from __future__ import annotations

import io
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from audit.models import Event
from jobs.models import IdempotencyKey, Job, OutputChunk
from jobs.states import Status
from nodes import history
from nodes.models import Node, StatusFlip
from tests.factories import leave, make_job, make_node, make_seen_node
from tokens.models import NodeToken

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output, stderr=io.StringIO())
    return output.getvalue()


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


# fleet_status


def test_the_fleet_is_listed_with_the_worst_first(web_1: Node, db_1: Node, new_1: Node) -> None:
    lines = run("fleet_status").splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["db-1", "new-1", "web-1"]
    assert "No heartbeat for" in lines[1]
    assert lines[-1].startswith("3 nodes: ")


def test_the_fleet_for_programs(web_1: Node, db_1: Node) -> None:
    found = {node["node_id"]: node for node in run_json("fleet_status")}
    assert (found["web-1"]["status"], found["db-1"]["status"]) == ("ONLINE", "OFFLINE")
    assert found["db-1"]["reasons"][0]["code"] == "silent"
    assert [node["node_id"] for node in run_json("fleet_status", "--status", "offline")] == ["db-1"]


def test_check_tells_by_its_exit_code(web_1: Node, db_1: Node) -> None:
    run("fleet_status", "--check", "--status", "online")
    with pytest.raises(SystemExit) as ended:
        run("fleet_status", "--check")
    assert ended.value.code == 1


def test_no_node_is_said() -> None:
    assert "There is no node yet." in run("fleet_status")
    assert "No node is like that." in run("fleet_status", "--group", "acme")


# job


def test_a_job_is_queued_listed_and_cancelled_under_the_commands_name(web_1: Node) -> None:
    [job] = run_json("job", "queue", "swap-file", "web-1", "--var", "SIZE_MB=512", "--timeout", "60")
    row = Job.objects.get()
    assert (job["id"], row.created_by, row.timeout_seconds) == (str(row.pk), "manage.py job", 60)
    assert row.variables["SIZE_MB"] == "512"
    assert [listed["id"] for listed in run_json("job", "list", "--node", "web-1", "--status", "queued")] == [job["id"]]
    assert "swap-file" in run("job", "list")
    run("job", "cancel", job["id"])
    row.refresh_from_db()
    assert row.status == Status.CANCELLED
    told = Event.objects.filter(target=f"job:{row.pk}").values_list("action", "actor_name", "actor_kind")
    assert sorted(told) == [
        ("job.cancelled", "manage.py job", "system"),
        ("job.queued", "manage.py job", "system"),
    ]


def test_a_tag_and_a_group_choose_nodes_once_each() -> None:
    make_seen_node("a", tags=["web"], group="acme")
    make_seen_node("b", tags=["web"])
    make_seen_node("c", group="acme")
    make_node("awaited", tags=["web", "new"])
    jobs = run_json("job", "queue", "system-report", "a", "--tag", "web", "--group", "acme")
    assert sorted(job["node_id"] for job in jobs) == ["a", "b", "c"]
    assert len({job["batch_id"] for job in jobs} if "batch_id" in jobs[0] else {1}) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["queue", "nothing", "web-1"], "There is no preset “nothing”."),
        (["queue", "system-report", "web-9"], "There is no node “web-9”."),
        (["queue", "system-report"], "Name a node, or give --tag or --group."),
        (["queue", "system-report", "--tag", "mail"], "No node has the tag “mail”."),
        (["queue", "system-report", "--tag", "new"], "No node with the tag “new” has ever reported."),
        (["queue", "swap-file", "web-1", "--var", "SIZE_MB"], "“SIZE_MB” is not NAME=VALUE."),
        (["cancel", str(uuid.uuid4())], "There is no job with that id."),
        (["cancel", "no-id"], "There is no job with that id."),
    ],
)
def test_what_is_wrong_with_a_job_is_one_sentence(
    web_1: Node, new_1: Node, arguments: list[str], sentence: str
) -> None:
    Node.objects.filter(pk=new_1.pk).update(tags=["new"])
    with pytest.raises(CommandError) as refused:
        run("job", *arguments)
    assert str(refused.value) == sentence
    assert not Job.objects.exists()


def test_a_finished_job_cannot_be_cancelled(web_1: Node) -> None:
    job = make_job(web_1)
    run("job", "cancel", str(job.pk))
    with pytest.raises(CommandError, match="already finished"):
        run("job", "cancel", str(job.pk))


# token


def test_tokens_for_programs_have_no_secret() -> None:
    plaintext = run("token", "create", "web-1", "--days", "7").strip()
    [token] = run_json("token", "list")
    assert token["node_id"] == "web-1" and plaintext not in json.dumps(token)
    ends = NodeToken.objects.get().expires_at
    assert ends is not None and timedelta(days=6) < ends - timezone.now() <= timedelta(days=7)
    assert "usable" in run("token", "list")
    leave(NodeToken.objects.get(), expires_at=timezone.now())
    assert "expired" in run("token", "list")
    with pytest.raises(CommandError, match="from 1 on"):
        run("token", "create", "--days", "0")


# prune


def test_prune_deletes_what_is_past_its_time_and_nothing_else(web_1: Node) -> None:
    now = timezone.now()
    old, fresh = make_job(web_1), make_job(web_1)
    long_ago = now - timedelta(days=91)
    Job.objects.filter(pk=old.pk).update(
        status=Status.CANCELLED, created_at=long_ago, cancel_requested_at=long_ago, finished_at=long_ago
    )
    Job.objects.filter(pk=fresh.pk).update(status=Status.CANCELLED, cancel_requested_at=now, finished_at=now)
    for job in (old, fresh):
        OutputChunk.objects.create(job=job, stream="stdout", offset=0, data=b"output")
    for at in (now - timedelta(days=367), now):
        StatusFlip.objects.create(node=web_1, at=at, before="ONLINE", after="OFFLINE")
        IdempotencyKey.objects.create(user_id=uuid.uuid4(), key=str(at), body_sha256="0" * 64)
        IdempotencyKey.objects.filter(key=str(at)).update(created_at=at)
    history.make_partitions(now - timedelta(days=9), now - timedelta(days=9))
    due = {row["what"]: row["would_delete"] for row in run_json("prune", "--dry-run")}
    assert due.pop("partitions of history") >= 1
    assert due == {"changes of status": 1, "pieces of jobs' output": 1, "keys of repeated requests": 1}
    assert OutputChunk.objects.count() == StatusFlip.objects.count() == IdempotencyKey.objects.count() == 2

    assert {row["what"]: row["deleted"] for row in run_json("prune")}["pieces of jobs' output"] == 1
    assert OutputChunk.objects.get().job_id == fresh.pk
    assert StatusFlip.objects.count() == IdempotencyKey.objects.count() == 1
    assert Job.objects.count() == 2
    assert all(row["would_delete"] == 0 for row in run_json("prune", "--dry-run"))
