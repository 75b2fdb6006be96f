"""The made-up fleet: believable on every page, the same for the same seed, and never beside real nodes unasked."""

from __future__ import annotations

import io
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from accounts.models import User
from audit.models import Event
from hyprbox.demo import measured, services
from hyprbox.demo.fleet import HOSTS
from jobs import console
from jobs.models import Job, OutputChunk
from jobs.states import Status
from nodes import history, selectors, series
from nodes.models import Hour, Node, StatusFlip
from tests.factories import as_actor, make_node

pytestmark = pytest.mark.django_db


@pytest.fixture
def short_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day and a bit of history: weeks of it are most of the work."""
    monkeypatch.setattr(measured, "KEPT", [(table, step, timedelta(hours=30)) for table, step, _ in measured.KEPT])


def seed(*arguments: str) -> str:
    output = io.StringIO()
    call_command("seed_demo", *arguments, stdout=output)
    return output.getvalue()


def picture() -> dict[str, Any]:
    """What must be the same for the same seed, without times."""
    return {
        "nodes": list(Node.objects.order_by("node_id").values_list("id", "node_id", "group", "cpu_percent")),
        "jobs": sorted(Job.objects.values_list("id", "preset", "status", "reason", "node__node_id", "created_by")),
        "events": sorted(Counter(Event.objects.values_list("action", "actor_name")).items()),
    }


@pytest.mark.slow
def test_there_is_something_on_every_page(client: Any, ada: User) -> None:
    assert f"{len(HOSTS)} nodes" in seed()
    counts = selectors.counts().by_status
    assert all(counts[status] for status in counts), counts
    assert set(Job.objects.values_list("status", flat=True)) == set(Status.values)
    assert Job.objects.filter(outcome_unknown=True).exists() or Job.objects.filter(reason="verify_failed").exists()
    assert OutputChunk.objects.count() > 100 and StatusFlip.objects.count() > len(HOSTS)
    node = Node.objects.get(node_id="shop-1")
    assert Hour.objects.filter(node=node.pk).count() > 700
    for kept in series.Range:
        assert len(series.node_history(node.pk, kept).series["cpu_percent"]) > 25, kept
    told = console.read_console(by=as_actor(ada), job=Job.objects.filter(reason="verify_failed").latest("created_at"))
    phases = [line.spans[0].text for line in told.lines if line.kind == "sys"]
    assert phases == ["phase check", "phase apply", "phase verify", "phase rollback"]
    client.force_login(ada)
    job = Job.objects.filter(status=Status.RUNNING).get()
    for page in ("/", "/nodes/shop-1/", "/jobs/", f"/jobs/{job.pk}/", "/live/", "/audit/"):
        assert client.get(page).status_code == 200, page


@pytest.mark.slow
@pytest.mark.usefixtures("short_past")
@pytest.mark.parametrize("dice", range(5))
def test_every_ending_is_there_whatever_the_dice_say(ada: User, dice: int) -> None:
    seed("--seed", str(dice))
    assert set(Job.objects.values_list("status", flat=True)) == set(Status.values)
    reasons = set(Job.objects.exclude(reason=None).values_list("reason", flat=True))
    assert {"exit", "timeout", "lost", "verify_failed", "expired"} <= reasons


@pytest.mark.slow
@pytest.mark.usefixtures("short_past")
def test_the_same_seed_makes_the_same_fleet_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, now = [], timezone.now()
    for number, minutes in (("7", 0), ("7", 7), ("8", 0)):
        monkeypatch.setattr(services, "database_now", lambda ago=timedelta(minutes=minutes): now - ago)
        with transaction.atomic():
            seed("--seed", number)
            pictures.append(picture())
            transaction.set_rollback(True)
    assert pictures[0]["jobs"] == pictures[1]["jobs"]
    assert pictures[0] != pictures[2]


@pytest.mark.usefixtures("short_past")
@pytest.mark.slow
def test_real_nodes_are_left_alone(web_1: Node) -> None:
    with pytest.raises(CommandError, match="1 node is here already"):
        seed()
    assert Node.objects.count() == 1 and not User.objects.exists()
    seed("--force")
    assert Node.objects.count() == len(HOSTS) + 1


def test_a_second_time_is_refused_even_with_force() -> None:
    make_node(HOSTS[0].node_id)
    with pytest.raises(CommandError, match="A node of the demo is here already"):
        seed("--force")


@pytest.mark.usefixtures("short_past")
@pytest.mark.slow
def test_a_fleet_of_another_size() -> None:
    with pytest.raises(CommandError, match="from 23 to 5,000 servers, not 5"):
        seed("--nodes", "5")
    output = seed("--nodes", str(len(HOSTS) + 7))
    assert f"{len(HOSTS) + 7} nodes" in output
    young = Node.objects.exclude(node_id__in=[host.node_id for host in HOSTS])
    assert young.count() == 7 and Hour.objects.filter(node__in=young.values("pk")).count() > 7 * 20


@pytest.mark.usefixtures("short_past")
@pytest.mark.slow
def test_averages_that_are_here_already_stay(web_1: Node) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    history.make_partitions(hour, hour)
    Hour.objects.create(node=series.FLEET, at=hour, samples=1, cpu_percent_avg=77, cpu_percent_max=77)
    seed("--force")
    assert Hour.objects.get(node=series.FLEET, at=hour).cpu_percent_avg == 77
    assert Hour.objects.filter(node=series.FLEET).count() > 1
