"""The audit log takes new rows and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from audit import services
from audit.actions import Action
from audit.models import Event
from tests.factories import SYSTEM


def record(**over: Any) -> Event:
    return services.record(Action.NODE_CHANGED, by=SYSTEM, target="node:web-1", **over)


@pytest.mark.django_db(transaction=True)
def test_a_row_outside_a_transaction_is_refused() -> None:
    with pytest.raises(services.NotInTransaction):
        record()


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_event SET target = 'x'", "DELETE FROM audit_event", "TRUNCATE audit_event"],
)
def test_the_database_refuses_every_change(db: None, statement: str) -> None:
    record()
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert Event.objects.count() == 1


def test_a_rolled_back_act_leaves_no_row(db: None) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        record()
        raise RuntimeError
    assert not Event.objects.exists()


def test_long_values_are_cut_and_control_characters_shown(db: None) -> None:
    event = record(detail={"long": "x" * 5000, "sneaky": "a\nb\x1b[31m"})
    assert len(event.detail["long"]) < 1200
    assert "sha256" in event.detail["long"]
    assert event.detail["sneaky"] == "a\\x0ab\\x1b[31m"


def test_admins_read_it_filtered(api: Any, ada: Any, otto: Any) -> None:
    record()
    services.record(Action.TOKEN_CREATED, by=SYSTEM, target="token:1")
    assert api.by(otto).get("/api/audit").status_code == 403
    found = api.by(ada).get("/api/audit?action=node.changed").json()
    assert (found["count"], found["results"][0]["target"]) == (1, "node:web-1")
    assert api.by(ada).get("/api/audit?since=yesterday").status_code == 400
    assert api.by(ada).get("/api/audit?page=0").status_code == 400
    assert api.by(ada).get("/api/audit?page_size=201").status_code == 400
