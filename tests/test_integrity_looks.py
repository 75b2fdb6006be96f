"""The hourly look at all seals and signatures: that it happens, what it tells, and where it shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connection
from django.test import Client
from procrastinate.contrib.django import procrastinate_app

from audit.models import Event
from hyprbox import tasks, worker
from hyprbox.lib import signing
from jobs import services
from jobs.models import Job
from nodes.models import Node
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
NAMES = ("hyprbox_tampered_rows", "hyprbox_unverifiable_jobs", "hyprbox_integrity_looked_at_seconds")


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def measured(client: Client, settings: Any) -> dict[str, float]:
    settings.HYPRBOX_METRICS_TOKEN = "of-the-monitoring"
    answer = client.get("/metrics", headers={"Authorization": "Bearer of-the-monitoring"})
    found = re.findall(r"^(\w+) (\S+)$", answer.content.decode(), re.MULTILINE)
    return {name: float(value) for name, value in found if name in NAMES}


def looks() -> int:
    return Event.objects.filter(action="integrity.verified", actor_name="hourly check").count()


def work_until_looked(count: int) -> None:
    """Put the task into the queue as its hour does, and let a real worker take it."""

    async def work() -> None:
        await sync_to_async(tasks.verify_integrity.defer)(timestamp=0)
        running = asyncio.create_task(worker._work_until(asyncio.Event()))
        deadline = time.monotonic() + 20
        while await sync_to_async(looks)() < count and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(work())
    assert looks() == count


def verify(capsys: Any, *flags: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        call_command("integrity_verify", *flags)
    return int(ended.value.code or 0), capsys.readouterr().out


def with_another_key(settings: Any, tmp_path: Path) -> None:
    """As on a new host: nobody knows the old key any more."""
    settings.HYPRBOX_SIGNING_KEY_FILE = tmp_path / "another.key"
    signing.create_key(settings.HYPRBOX_SIGNING_KEY_FILE)


def ended_job(node: Node) -> Job:
    job = factories.make_job(node)
    return services.request_cancel(by=factories.SYSTEM, job_id=job.pk)


def test_it_is_due_once_an_hour() -> None:
    (periodic,) = [
        it
        for it in procrastinate_app.current_app.periodic_registry.periodic_tasks.values()
        if "integrity" in it.task.name
    ]
    assert re.fullmatch(r"\d+ \* \* \* \*", periodic.cron)


def test_what_it_finds_is_a_gauge_until_the_next_one(client: Client, settings: Any, web_1: Node, caplog: Any) -> None:
    factories.make_token(web_1)
    assert measured(client, settings) == {}  # nobody has looked yet, and 0 would say otherwise
    work_until_looked(1)
    first = measured(client, settings)
    assert (first["hyprbox_tampered_rows"], first["hyprbox_unverifiable_jobs"]) == (0, 0)
    assert abs(first["hyprbox_integrity_looked_at_seconds"] - time.time()) < 60

    sql("UPDATE tokens_nodetoken SET node_id = 'db-1'")
    assert measured(client, settings) == first
    work_until_looked(2)
    second = measured(client, settings)
    assert second["hyprbox_tampered_rows"] == 1
    assert second["hyprbox_integrity_looked_at_seconds"] > first["hyprbox_integrity_looked_at_seconds"]
    assert "row.tampered" in caplog.text and "tokens_nodetoken" in caplog.text

    sql("UPDATE tokens_nodetoken SET node_id = 'web-1'")
    work_until_looked(3)
    assert measured(client, settings)["hyprbox_tampered_rows"] == 0


def test_an_ended_job_whose_key_is_gone_is_counted_by_itself(
    client: Client, settings: Any, tmp_path: Path, web_1: Node, capsys: Any
) -> None:
    ended_job(web_1)
    assert json.loads(verify(capsys, "--json")[1])["unknown"] == 0
    with_another_key(settings, tmp_path)
    code, said = verify(capsys)
    assert code == 0 and "0 not as HyprBox left them" in said
    assert "Of 1 jobs that ended it cannot be told" in said
    told = json.loads(verify(capsys, "--json")[1])
    assert (told["unknown"], told["bad"]) == (1, [])
    assert Event.objects.filter(action="integrity.verified").latest("id").detail["unknown"] == 1
    found = measured(client, settings)
    assert (found["hyprbox_tampered_rows"], found["hyprbox_unverifiable_jobs"]) == (0, 1)


@pytest.mark.parametrize("change", ["timeout_seconds = 86000", "mode = 'check'", "key_id = '0123456789abcdef'"])
def test_no_missing_key_hides_that_a_row_was_edited(
    settings: Any, tmp_path: Path, web_1: Node, capsys: Any, change: str
) -> None:
    job = ended_job(web_1)
    if "key_id" not in change:
        with_another_key(settings, tmp_path)
    sql(f"UPDATE jobs_job SET {change}")
    told = verify(capsys, "--json")
    assert told[0] == 1
    (row,) = json.loads(told[1])["bad"]
    assert row["row"] == f"jobs_job:{job.pk}" and change.split(" ")[0] in row["why"]


def test_a_job_that_waits_under_a_key_that_is_gone_is_bad(
    settings: Any, tmp_path: Path, web_1: Node, capsys: Any
) -> None:
    factories.make_job(web_1)
    with_another_key(settings, tmp_path)
    code, said = verify(capsys)
    assert code == 1 and "it is signed with another key" in said


def test_without_a_key_to_check_with_it_says_that_it_cannot(settings: Any, tmp_path: Path, web_1: Node) -> None:
    factories.make_job(web_1)
    settings.HYPRBOX_SIGNING_KEY_FILE = tmp_path / "none.key"
    with pytest.raises(Exception, match=r"none\.key") as failed:
        call_command("integrity_verify")
    assert getattr(failed.value, "returncode", None) == 2
