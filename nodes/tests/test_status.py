"""The rule of effective status, in Python and in SQL."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nodes import rules as process_rules
from nodes import selectors
from nodes.models import Node
from nodes.status import Facts, Rules, Status, judge, spell
from tests.factories import make_node

RULES = Rules()
SETTLING = Rules(is_settling=True)


def facts(silence: float | None = 1.0, **over: Any) -> Facts:
    metrics = {name: over.pop(name) for name in ("cpu_percent", "memory_percent", "disk_percent") if name in over}
    return Facts(silence, metrics=metrics, **over)


CASES = [
    (facts(None), RULES, Status.UNKNOWN, ["never_seen"]),
    (facts(600), RULES, Status.WARNING, ["late"]),
    (facts(600.1), RULES, Status.OFFLINE, ["silent"]),
    (facts(601, announced=Status.OFFLINE), SETTLING, Status.OFFLINE, ["silent"]),
    (facts(601, announced=Status.ONLINE), SETTLING, Status.WARNING, ["late"]),
    (facts(40, interval_seconds=10), RULES, Status.ONLINE, []),
    (facts(40.1, interval_seconds=10), RULES, Status.WARNING, ["late"]),
    (facts(cpu_percent=89.9), RULES, Status.ONLINE, []),
    (facts(cpu_percent=90), RULES, Status.WARNING, ["cpu_percent"]),
    (facts(cpu_percent=97), RULES, Status.CRITICAL, ["cpu_percent"]),
    (facts(disk_percent=85), RULES, Status.WARNING, ["disk_percent"]),
    (facts(disk_percent=95), RULES, Status.CRITICAL, ["disk_percent"]),
    (facts(memory_percent=91, disk_percent=99), RULES, Status.CRITICAL, ["disk_percent", "memory_percent"]),
    (facts(cpu_percent=None), RULES, Status.ONLINE, []),
    (facts(clock_offset_seconds=301), RULES, Status.WARNING, ["clock"]),
    (facts(clock_offset_seconds=-301), RULES, Status.WARNING, ["clock"]),
    (facts(clock_offset_seconds=300), RULES, Status.ONLINE, []),
    (facts(spool_problem="only 3 MiB free"), RULES, Status.WARNING, ["spool"]),
    (facts(disk_percent=99, spool_problem="only 3 MiB free"), RULES, Status.CRITICAL, ["disk_percent", "spool"]),
    (facts(is_clone_suspected=True), RULES, Status.CRITICAL, ["clone"]),
    (facts(disk_percent=86, is_clone_suspected=True), RULES, Status.CRITICAL, ["clone", "disk_percent"]),
    (facts(601, is_clone_suspected=True), RULES, Status.OFFLINE, ["silent"]),
    (facts(5000, cpu_percent=100), RULES, Status.OFFLINE, ["silent"]),
]


@pytest.mark.parametrize(("given_facts", "rules", "status", "codes"), CASES)
def test_the_rule(given_facts: Facts, rules: Rules, status: Status, codes: list[str]) -> None:
    judgement = judge(given_facts, rules)
    assert judgement.status == status
    assert [reason.code for reason in judgement.reasons] == codes


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert spell(seconds) == words


percent = st.none() | st.sampled_from([0.0, 84.9, 85.0, 89.99, 90.0, 95.0, 97.0, 100.0]) | st.floats(0, 100)


one_node = st.fixed_dictionaries(
    {
        "silence": st.none() | st.integers(0, 2000).filter(lambda s: s not in (600, 30 + 10, 180 + 10, 900 + 10)),
        "interval_seconds": st.sampled_from([10, 60, 300]),
        "cpu_percent": percent,
        "memory_percent": percent,
        "disk_percent": percent,
        "clock_offset_seconds": st.none() | st.sampled_from([-4000.0, -300.0, 0.0, 300.0, 300.5]),
        "announced_status": st.sampled_from(Status.values),
        "metrics": st.sampled_from([{}, {"spool_unwritable": "only 3 MiB free"}]),
        "is_clone": st.booleans(),
    }
)


@pytest.mark.django_db
@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fleet=st.lists(one_node, min_size=10, max_size=10), is_settling=st.booleans())
def test_python_and_sql_agree(fleet: list[dict[str, Any]], is_settling: bool) -> None:
    Node.objects.all().delete()
    now = selectors.database_now()  # within a transaction the database's clock stands still
    nodes = []
    for number, facts in enumerate(fleet):
        silence, is_clone = facts["silence"], facts["is_clone"]
        given = {name: value for name, value in facts.items() if name not in ("silence", "is_clone")}
        given["last_seen_at"] = None if silence is None else now - timedelta(seconds=silence)
        given["clone_suspected_at"] = now if is_clone else None
        nodes.append(Node(node_id=f"web-{number}", **given))
    Node.objects.bulk_create(nodes)
    rules = Rules(is_settling=is_settling)
    for node in Node.objects.judged(rules):
        assert node.effective_status == judge(selectors.facts_of(node, now), rules).status  # type: ignore[attr-defined]


@pytest.mark.django_db
@pytest.mark.parametrize(("age", "expected"), [(299.0, Status.WARNING), (301.0, Status.OFFLINE)])
def test_a_server_declares_nobody_offline_for_five_minutes(
    monkeypatch: pytest.MonkeyPatch, age: float, expected: Status
) -> None:
    make_node("db-1", last_seen_at=timezone.now() - timedelta(hours=1), announced_status=Status.ONLINE)
    make_node("db-2", last_seen_at=timezone.now() - timedelta(hours=1), announced_status=Status.OFFLINE)
    monkeypatch.setattr(process_rules, "_started", time.monotonic() - age)
    assert selectors.judge_node(selectors.find_node("db-1")).status == expected
    assert selectors.counts().by_status[Status.OFFLINE] == 1 + (expected == Status.OFFLINE)
