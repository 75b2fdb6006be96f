"""The made-up fleet goes on: who reports, and how its jobs end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from hyprbox.demo import alive, running
from hyprbox.demo.fleet import HOSTS, MOST, hosts
from jobs import output, reports, services
from jobs.models import Job
from nodes.models import Node
from nodes.writer import writer
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


def live(turns: int = 1) -> None:
    """So many seconds of the demo, without their pauses."""

    async def main() -> None:
        dice = random.Random(1)
        fleet = alive.Fleet(await asyncio.to_thread(alive.servers, dice), dice, pace=0)
        for _ in range(turns):
            await fleet.turn()
            await fleet.runs.finish()
        await fleet.runs.stop()
        await writer.drain()

    asyncio.run(main())


def test_a_larger_fleet_begins_with_the_smaller_one() -> None:
    many = hosts(MOST)
    assert many[: len(HOSTS)] == HOSTS and many[:300] == hosts(300)
    assert len({host.node_id for host in many}) == MOST
    assert {host.is_new for host in many} == {True, False} and sum(bool(host.silent) for host in many) > MOST / 200


def test_who_has_an_agent_of_its_own_is_left_alone() -> None:
    for name in ("edge-1", "staging-1", "web-1", "edge-2"):
        factories.make_node(name)
    factories.make_token(Node.objects.get(node_id="edge-2"))
    live()
    assert list(Node.objects.filter(last_seen_at__isnull=False).values_list("node_id", flat=True)) == ["edge-1"]
    node = Node.objects.get(node_id="edge-1")
    assert 5 < node.cpu_percent < 60 and node.metrics["disk_total_bytes"] > 0 and node.interval_seconds == 15  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ending", "mode", "wanted"),
    [
        ("changed", "apply", ("SUCCEEDED", 0, True)),
        ("already", "apply", ("SUCCEEDED", 0, False)),
        ("exit", "apply", ("FAILED", 100, True)),
        ("changed", "check", ("SUCCEEDED", 1, True)),
        ("already", "check", ("SUCCEEDED", 0, False)),
    ],
)
def test_a_job_ends(monkeypatch: pytest.MonkeyPatch, ending: str, mode: str, wanted: tuple[Any, ...]) -> None:
    for name in ("ENDINGS", "CHECKS"):
        monkeypatch.setattr(running, name, ((ending, 1),))
    job = factories.make_job(factories.make_node("edge-1"), preset="time-sync", mode=mode)
    live()
    job.refresh_from_db()
    assert (job.status, job.exit_code, job.changed) == wanted
    assert job.phases and b"synchronised" in output.read(job.pk, "stdout").data
    assert (b"lock" in output.read(job.pk, "stderr").data) is (ending == "exit")


def test_a_job_that_an_earlier_run_left_is_cancelled_when_somebody_asks() -> None:
    node = factories.make_node("edge-1")
    job = factories.make_job(node)
    claim_id = factories.claim(job)
    reports.start(by=factories.agent_of(node), job_id=job.pk, claim_id=claim_id)
    services.request_cancel(by=factories.SYSTEM, job_id=job.pk)
    live()
    assert Job.objects.get(pk=job.pk).status == "CANCELLED"


def test_jobs_of_a_node_run_one_after_the_other() -> None:
    node = factories.make_node("edge-1")
    jobs = [factories.make_job(node, preset="swap-file") for _ in range(2)]
    live(turns=1)
    assert Job.objects.filter(status="QUEUED").get() == jobs[1]
    live(turns=1)
    assert not Job.objects.filter(status="QUEUED").exists()
