"""Whoever may write anything into the database cannot rewrite the log unseen. Each test does one thing to it by SQL."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction

from audit import checkpoints, sequencer, verifying
from audit.chain import GENESIS, link
from audit.models import Checkpoint, Event
from audit.verifying import CannotTell, Report

ROWS = 5000
MIDDLE = 1500
COPIED = "at, action, actor_kind, actor_id, actor_name, target, detail, ip, request_id, subject, subject_version"


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)


def fill(count: int) -> None:
    """Entries as verbs write them, with their places and checkpoints."""
    sql(
        f"""INSERT INTO audit_event ({COPIED}, canonical)
        SELECT now() + i * interval '1 second', 'node.changed', 'user', 'id', 'ada@example.com', 'node:web-' || i,
          jsonb_build_object('notes', 'entry ' || i, 'n', i, 'list', jsonb_build_array(1, NULL, TRUE, 'ü\x1b')),
          '192.0.2.1', 'r' || i, CASE WHEN i %% 3 = 0 THEN 't:' || i ELSE '' END, CASE WHEN i %% 3 = 0 THEN i END, ''
        FROM generate_series(1, %s) i""",
        count,
    )
    sequencer.sequence()


def witness(path: Path) -> Path:
    """What an agent or a file outside would have by now."""
    path.write_text("".join(json.dumps(checkpoints.as_dict(c)) + "\n" for c in Checkpoint.objects.order_by("n")))
    return path


def unguarded() -> None:
    """The owner of the tables, or a superuser, can lift the triggers."""
    sql("ALTER TABLE audit_event DISABLE TRIGGER USER")
    sql("ALTER TABLE audit_checkpoint DISABLE TRIGGER USER")


def guarded() -> None:
    sql("ALTER TABLE audit_event ENABLE TRIGGER USER")
    sql("ALTER TABLE audit_checkpoint ENABLE TRIGGER USER")


def rehash(first: int) -> None:
    """Make the chain fit again from an entry on, as someone who knows how it is made would."""
    before = Event.objects.filter(n=first - 1).values_list("hash", flat=True).first()
    previous, found = bytes(before or GENESIS), []
    for id_, n, canonical in Event.objects.filter(n__gte=first).order_by("n").values_list("id", "n", "canonical"):
        previous = link(n, previous, bytes(canonical))
        found.append((id_, previous))
    sql(
        "UPDATE audit_event e SET hash = s.hash FROM unnest(%s::bigint[], %s::bytea[]) AS s(id, hash) WHERE e.id = s.id",
        [id_ for id_, _ in found],
        [digest for _, digest in found],
    )


def shift(first: int, by: int) -> None:
    sql("UPDATE audit_event SET n = -n WHERE n >= %s", first)
    sql("UPDATE audit_event SET n = -n + %s WHERE n < 0", by)


def edit_columns() -> None:
    sql("UPDATE audit_event SET actor_name = 'eve@example.com' WHERE n = %s", MIDDLE)


def edit_time() -> None:
    sql("UPDATE audit_event SET at = at - interval '1 microsecond' WHERE n = %s", MIDDLE)


def edit_detail() -> None:
    sql("UPDATE audit_event SET detail = jsonb_set(detail, '{n}', '7') WHERE n = %s", MIDDLE)


def edit_everything() -> None:
    canonical = bytes(Event.objects.get(n=MIDDLE).canonical).replace(b"ada@", b"eve@")
    sql("UPDATE audit_event SET actor_name = 'eve@example.com', canonical = %s WHERE n = %s", canonical, MIDDLE)


def edit_with_hash() -> None:
    edit_everything()
    entry = Event.objects.get(n=MIDDLE)
    previous = bytes(Event.objects.get(n=MIDDLE - 1).hash or b"")
    sql("UPDATE audit_event SET hash = %s WHERE n = %s", link(MIDDLE, previous, bytes(entry.canonical)), MIDDLE)


def delete() -> None:
    sql("DELETE FROM audit_event WHERE n BETWEEN %s AND %s", MIDDLE, MIDDLE + 4)


def delete_and_renumber() -> None:
    delete()
    shift(MIDDLE, -5)


def unplace() -> None:
    sql("UPDATE audit_event SET n = NULL, hash = NULL WHERE n = %s", MIDDLE)


def _copy_to(n: int, digest: Callable[[bytes], bytes]) -> None:
    """A foreign entry at `n`, whose canonical bytes say what its columns say."""
    shift(n, 1)
    sql(f"INSERT INTO audit_event ({COPIED}, canonical) SELECT {COPIED}, canonical FROM audit_event WHERE n = 1")
    first, fresh = Event.objects.get(n=1), Event.objects.get(n=None)
    canonical = bytes(first.canonical).replace(b'"id": %d' % first.pk, b'"id": %d' % fresh.pk)
    sql("UPDATE audit_event SET n = %s, hash = %s, canonical = %s WHERE n IS NULL", n, digest(canonical), canonical)


def insert() -> None:
    _copy_to(MIDDLE, lambda canonical: b"\x07" * 32)


def insert_with_hash() -> None:
    before = bytes(Event.objects.get(n=MIDDLE - 1).hash or b"")
    _copy_to(MIDDLE, lambda canonical: link(MIDDLE, before, canonical))


def swap_places() -> None:
    sql("UPDATE audit_event SET n = -1 WHERE n = %s", MIDDLE)
    sql("UPDATE audit_event SET n = %s WHERE n = %s", MIDDLE, MIDDLE + 9)
    sql("UPDATE audit_event SET n = %s WHERE n = -1", MIDDLE + 9)


def swap_contents() -> None:
    names = [name.strip() for name in f"id, canonical, {COPIED}".split(",")]
    sql("ALTER TABLE audit_event DROP CONSTRAINT audit_event_pkey")
    sets = ", ".join(f"{name} = o.{name}" for name in names)
    sql(f"""UPDATE audit_event e SET {sets} FROM audit_event o
        WHERE e.n IN ({MIDDLE}, {MIDDLE + 1}) AND o.n IN ({MIDDLE}, {MIDDLE + 1}) AND o.n <> e.n""")


def cut() -> None:
    sql("DELETE FROM audit_event WHERE n > %s", ROWS - 400)


def cut_with_checkpoints() -> None:
    cut()
    sql("DELETE FROM audit_checkpoint WHERE n > %s", ROWS - 400)


def empty() -> None:
    sql("DELETE FROM audit_event")


def rebuild() -> None:
    edit_everything()
    rehash(MIDDLE)


def rebuild_with_checkpoints() -> None:
    rebuild()
    sql("DELETE FROM audit_checkpoint WHERE n >= %s", MIDDLE)


def edit_checkpoint() -> None:
    sql("UPDATE audit_checkpoint SET hash = sha256(hash)")


# What is done, where it shows first, how it is called, and whether it takes a checkpoint from outside to see it.
TAMPERINGS: list[tuple[Callable[[], None], int, str, bool]] = [
    (edit_columns, MIDDLE, "edit", False),
    (edit_time, MIDDLE, "edit", False),
    (edit_detail, MIDDLE, "edit", False),
    (edit_everything, MIDDLE, "edit", False),
    (edit_with_hash, MIDDLE + 1, "edit", False),  # one of the two that do not fit together
    (delete, MIDDLE, "delete", False),
    (delete_and_renumber, MIDDLE, "delete", False),
    (unplace, MIDDLE, "delete", False),
    (insert, MIDDLE, "insert", False),
    (insert_with_hash, MIDDLE, "insert", False),
    (swap_places, MIDDLE, "reorder", False),
    (swap_contents, MIDDLE, "reorder", False),
    (cut, ROWS - 399, "cut tail", False),
    (cut_with_checkpoints, ROWS - 399, "cut tail", True),
    (empty, 1, "cut tail", False),
    (rebuild, 1001, "full rebuild", False),
    (rebuild_with_checkpoints, 1001, "full rebuild", True),
    (edit_checkpoint, 1000, "edit", False),
]


def found(report: Report) -> tuple[bool | None, int, str]:
    bad = report.tampering
    return report.intact, bad.n if bad else 0, str(bad.kind) if bad else ""


class Undo(Exception):
    """Ends a transaction without a trace."""


@pytest.mark.slow
def test_every_tampering_is_found_and_named(db: None, tmp_path: Path) -> None:
    fill(ROWS)
    outside = verifying.read_checkpoints(witness(tmp_path / "checkpoints"))
    assert found(verifying.verify(outside=outside)) == (True, 0, "")
    seen = {}
    for tamper, _, _, needs_witness in TAMPERINGS:
        with suppress(Undo), transaction.atomic():
            unguarded()
            tamper()
            if needs_witness:
                assert verifying.verify().intact is True  # nobody inside can tell
            seen[tamper.__name__] = found(verifying.verify(outside=outside if needs_witness else None))
            raise Undo
    assert seen == {tamper.__name__: (False, n, kind) for tamper, n, kind, _ in TAMPERINGS}
    assert len(seen) >= 12


def test_a_copy_that_went_on_by_itself_is_a_fork(db: None, tmp_path: Path) -> None:
    """A restored backup signs its own continuation: both histories bear our signature."""
    fill(1000)
    with_backup = tmp_path / "checkpoints"
    fill(1000)
    outside = verifying.read_checkpoints(witness(with_backup))
    unguarded()
    sql("DELETE FROM audit_event WHERE n > 1000")
    sql("DELETE FROM audit_checkpoint WHERE n > 1000")
    guarded()
    fill(1200)
    assert verifying.verify().intact is True
    assert found(verifying.verify(outside=outside)) == (False, 1001, "fork")


def test_without_a_checkpoint_nobody_can_tell(db: None) -> None:
    report = verifying.verify()
    assert (report.intact, report.checked) == (None, 0)
    fill(10)
    unguarded()
    sql("DELETE FROM audit_checkpoint")
    report = verifying.verify()
    assert (report.intact, report.checked) == (None, 10)
    assert "no checkpoint" in report.why


def test_a_part_is_verified_from_where_one_says(db: None) -> None:
    fill(3000)
    report = verifying.verify(first=2001)
    assert (report.intact, report.checked, report.head, report.signed_to) == (True, 1000, 3000, 3000)
    with pytest.raises(CannotTell, match="no entry 9000"):
        verifying.verify(first=9001)
    unguarded()
    edit_columns()
    assert verifying.verify(first=2001).intact is True
    assert found(verifying.verify(first=MIDDLE)) == (False, MIDDLE, "edit")


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        call_command("audit_verify", *arguments)
    return int(str(ended.value.code))


def test_the_command_says_it_by_its_exit_code(db: None, tmp_path: Path, capsys: Any) -> None:
    assert command() == 2  # and says so in an entry
    fill(1100)
    kept = witness(tmp_path / "kept")
    assert command("--checkpoint", str(kept)) == 0
    assert "1,101 entries" in capsys.readouterr().out
    assert command("--checkpoint", str(tmp_path / "none")) == 2
    (tmp_path / "junk").write_text('{"n": 1}\n')
    assert command("--checkpoint", str(tmp_path / "junk")) == 2
    foreign = tmp_path / "foreign"
    foreign.write_text(kept.read_text().replace('"n": 1000', '"n": 1001'))
    assert command("--checkpoint", str(foreign)) == 2
    unguarded()
    sql("UPDATE audit_event SET target = 'node:other' WHERE n = 77")
    capsys.readouterr()
    assert command("--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["intact"], said["first_bad"]["n"], said["first_bad"]["kind"]) == (False, 77, "edit")


def test_the_command_begins_where_one_says(db: None, capsys: Any) -> None:
    fill(3000)
    assert command("--from", "2001", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["intact"], said["checked"], said["head"]["n"]) == (True, 1000, 3000)
    assert command("--from", "9001") == 2
    assert "no entry 9000" in capsys.readouterr().out
    unguarded()
    edit_columns()
    assert command("--from", "2001") == 0  # what is before is another call's
    for first in (str(MIDDLE), "1"):
        capsys.readouterr()
        assert command("--from", first, "--json") == 1
        bad = json.loads(capsys.readouterr().out)["first_bad"]
        assert (bad["n"], bad["kind"]) == (MIDDLE, "edit")


def test_the_signing_key_is_needed(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(5)
    kept = tmp_path / "signing.key"
    shutil.copy(settings.HYPRBOX_SIGNING_KEY_FILE, kept)
    monkeypatch.setattr(settings, "HYPRBOX_SIGNING_KEY_FILE", tmp_path / "none")
    assert command() == 2
