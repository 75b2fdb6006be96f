"""The audit log takes new rows and nothing else."""

from __future__ import annotations

import csv
import hashlib
import json
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils.safestring import mark_safe

from audit import checkpoints, sequencer, services, verifying
from audit.actions import Action
from audit.models import Checkpoint, Event
from hyprbox.lib import signing
from hyprbox.lib.actors import Kind
from tests.factories import SYSTEM


def record(**over: Any) -> None:
    services.record(Action.NODE_CHANGED, by=SYSTEM, target="node:web-1", **over)


@pytest.mark.django_db(transaction=True)
def test_a_row_outside_a_transaction_is_refused() -> None:
    with pytest.raises(services.NotInTransaction):
        record()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET target = 'x'",
        "UPDATE audit_event SET n = 1, hash = sha256(''), target = 'x'",
        "UPDATE audit_event SET n = 1",
        "UPDATE audit_event SET n = 1, hash = ''",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
    ],
)
def test_the_database_refuses_every_change(db: None, statement: str) -> None:
    record()
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert Event.objects.count() == 1


def test_a_place_in_the_chain_is_given_once(db: None) -> None:
    record()
    assert sequencer.sequence().placed == 1
    for statement in ("SET n = 2", "SET n = NULL, hash = NULL", "SET hash = sha256('')"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE audit_event {statement}")
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_checkpoint SET n = 2")


def test_nobody_inserts_an_entry_with_a_place_of_its_own_choice(db: None) -> None:
    event = Event.objects.create(action="x", actor_name="eve", n=7, hash=b"x" * 32, canonical=b"lies")
    event.refresh_from_db()
    assert (event.n, event.hash) == (None, None)
    assert json.loads(bytes(event.canonical))["actor_name"] == "eve"


@pytest.mark.django_db(transaction=True)
def test_many_sequencers_and_writers_leave_no_gap() -> None:
    """Entries that commit in another order than they began still get one unbroken chain."""
    done = threading.Event()

    def write(number: int) -> None:
        for count in range(25):
            with transaction.atomic():
                record(detail={"number": number})
                time.sleep(0.002 * (number + count % 3))
        connection.close()

    def sequence() -> int:
        total = 0
        while not done.is_set():
            total += sequencer.sequence().placed
        connection.close()
        return total

    with ThreadPoolExecutor(8) as pool:
        sequencers = [pool.submit(sequence) for _ in range(3)]
        writers = [pool.submit(write, number) for number in range(4)]
        for writer in writers:
            writer.result()
        done.set()
        total = sum(one.result() for one in sequencers) + sequencer.sequence().placed
    assert total == 100
    assert list(Event.objects.order_by("n").values_list("n", flat=True)) == list(range(1, 101))
    assert verifying.verify().intact is True


def test_an_entrys_hash_is_over_its_number_the_one_before_and_its_bytes(db: None) -> None:
    """Written out once more, from what is documented: whoever has a dump can do the same without us."""
    for number in range(3):
        record(detail={"number": number})
    assert sequencer.sequence().placed == 3
    before, numbers = bytes(32), []
    for n, found, canonical in Event.objects.order_by("n").values_list("n", "hash", "canonical"):
        assert n is not None and found is not None
        content = b"hbx-audit-v1" + struct.pack(">Q", n) + before + bytes(canonical)
        assert bytes(found) == hashlib.sha256(content).digest()
        before = bytes(found)
        numbers.append((n, json.loads(bytes(canonical))["detail"]["number"]))
    assert numbers == [(1, 0), (2, 1), (3, 2)]


def test_checkpoints_are_signed_when_they_are_due(db: None, settings: Any, tmp_path: Path) -> None:
    def signed() -> list[int]:
        sequencer.sequence()
        return list(Checkpoint.objects.order_by("n").values_list("n", flat=True))

    assert signed() == []
    record()
    assert signed() == [1]  # the first entry ever
    record()
    assert signed() == [1]  # a minute has not passed
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_checkpoint DISABLE TRIGGER USER")
        cursor.execute("UPDATE audit_checkpoint SET at = at - interval '61 seconds'")
    assert signed() == [1, 2]
    assert signed() == [1, 2]
    newest = json.loads(checkpoints.newest.json)
    assert newest["n"] == 2
    assert checkpoints.is_ours(newest, signing.signer())
    assert not checkpoints.is_ours({**newest, "n": 3}, signing.signer())


@pytest.mark.django_db(transaction=True)
def test_checkpoints_are_written_to_a_file_as_well(settings: Any, tmp_path: Path) -> None:
    path = settings.HYPRBOX_AUDIT_CHECKPOINT_FILE = tmp_path / "checkpoints"
    with transaction.atomic():
        record()
    sequencer.sequence()
    kept = verifying.read_checkpoints(path)
    assert [one["n"] for one in kept] == [1]
    assert verifying.verify(outside=kept).intact is True


def test_a_rolled_back_act_leaves_no_row(db: None) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        record()
        raise RuntimeError
    assert not Event.objects.exists()


def test_long_values_are_cut_and_control_characters_shown(db: None) -> None:
    record(detail={"long": "x" * 5000, "sneaky": "a\nb\x1b[31m"})
    event = Event.objects.get()
    assert len(event.detail["long"]) < 1200
    assert "sha256" in event.detail["long"]
    assert event.detail["sneaky"] == "a\\x0ab\\x1b[31m"


def test_admins_read_it_filtered(api: Any, ada: Any) -> None:
    record()
    services.record(Action.TOKEN_CREATED, by=SYSTEM, target="token:1")
    found = api.by(ada).get("/api/audit?action=node.changed").json()
    assert (found["count"], found["results"][0]["target"]) == (1, "node:web-1")
    assert api.by(ada).get("/api/audit?since=yesterday").status_code == 400
    assert api.by(ada).get("/api/audit?page=0").status_code == 400
    assert api.by(ada).get("/api/audit?page_size=201").status_code == 400


def text(answer: Any) -> str:
    return b"".join(answer.streaming_content).decode()


def test_exports_are_safe_to_open_and_entries_themselves(api: Any, ada: Any) -> None:
    for name in ("=cmd()", "+1", "-1", "@x", "plain"):
        services.record(Action.NODE_CHANGED, by=SYSTEM, target=name, detail={"note": 'a "quote", ü'})
    sequencer.sequence()
    answer = api.by(ada).get("/api/audit/export?format=csv&action=node.changed")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="hyprbox-audit.csv"'
    rows = list(csv.DictReader(text(answer).splitlines()))
    assert [row["target"] for row in rows] == ["plain", "'@x", "'-1", "'+1", "'=cmd()"]
    assert json.loads(rows[0]["detail"]) == {"note": 'a "quote", ü'}
    lines = text(api.by(ada).get("/api/audit/export?target=plain")).splitlines()
    assert [json.loads(line)["target"] for line in lines] == ["plain"]
    assert Event.objects.filter(action="audit.exported", actor_name=ada.email).count() == 2
    assert api.by(ada).get("/api/audit/export?format=xml").status_code == 400


def test_it_is_verified_over_the_api_and_on_the_page(api: Any, ada: Any, vera: Any, client: Any) -> None:
    sequencer.sequence()
    assert api.by(vera).get("/api/audit/verify").status_code == 403
    said = api.by(ada).get("/api/audit/verify").json()
    assert (said["intact"], said["first_bad"], said["checked"]) == (True, None, Event.objects.filter(n__gt=0).count())
    client.force_login(ada)
    page = client.get("/audit/").content.decode()
    assert "Verified" in page and ada.email in page
    assert client.post("/audit/verify/").status_code == 302
    assert Event.objects.filter(action="audit.verified").count() == 2
    assert client.get("/audit/export/?format=csv&action=audit.verified").status_code == 200
    client.force_login(vera)
    assert client.post("/audit/verify/").status_code == client.get("/audit/export/").status_code == 403


def test_the_page_shows_nested_details_in_words_and_escaped(client: Any, ada: Any) -> None:
    detail = {"changes": {"role": "viewer", "is_active": False}, "tags": ["<b>", "x"], "plain": "it's"}
    services.record(Action.NODE_CHANGED, by=SYSTEM, target="node:web-1", detail=detail)
    client.force_login(ada)
    page = client.get("/audit/").content.decode()
    assert "role: viewer, is_active: no" in page and "&lt;b&gt;, x" in page and "it&#x27;s" in page
    assert "{&#x27;" not in page and "[&#x27;" not in page and "<b>," not in page


class Text(str):
    __slots__ = ()


class Number(int):
    __slots__ = ()


def test_what_is_more_than_a_text_or_a_number_is_kept_as_one(db: None) -> None:
    record(detail={"text": Text("a"), "number": Number(7), "safe": mark_safe("b"), "kind": Kind.USER})
    assert Event.objects.get().detail == {"text": "a", "number": 7, "safe": "b", "kind": "user"}
    with pytest.raises(TypeError, match="object"):
        record(detail={"thing": object()})
