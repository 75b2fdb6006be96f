"""Letting old entries go, in whole segments that end at a signed checkpoint. The owner of the tables alone can."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path

from django.db import connection, transaction

from audit import checkpoints, segments, services, verifying
from audit.actions import Action
from audit.models import Checkpoint
from audit.segments import Segment
from audit.sequencer import LOCK
from audit.verifying import CannotTell
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor, Capability, require

# Of each sealed row the newest version has to stay known, or no check would pass any more.
_KEEP_VERSIONS = """
INSERT INTO audit_event (action, actor_kind, actor_id, actor_name, target, ip, request_id, subject, subject_version,
  detail, canonical)
SELECT %(action)s, %(kind)s, '', %(name)s, subject, '', '', subject, max(subject_version), '{}', ''
FROM audit_event WHERE subject_version IS NOT NULL GROUP BY subject
HAVING max(subject_version) > coalesce(max(subject_version) FILTER (WHERE n IS NULL OR n > %(last)s), -1)
"""
# And what earlier statements say goes on to be said: their files are still there.
_KEEP_STATEMENTS = """
INSERT INTO audit_event (action, actor_kind, actor_id, actor_name, target, ip, request_id, subject, detail, canonical)
SELECT action, %(kind)s, '', %(name)s, target, '', '', '', detail, ''
FROM audit_event WHERE action = %(sealed)s AND n <= %(last)s ORDER BY id
"""


class NothingToPrune(Exception):
    """No signed checkpoint is that old."""


class NotTheOwner(Exception):
    """The database's role may only append to the log."""


def prune(*, by: Actor, before: datetime, path: Path) -> Segment:
    """Move the entries from before that moment, up to the last signed checkpoint there, into a file that is new.

    Raises `NothingToPrune`, `NotTheOwner`, `BadSegment` or `CannotTell` when the entries are not as they were written, and
    `OSError` for the file. Acts wait while the entries are deleted.
    """
    require(by, Capability.VIEW_AUDIT)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        last = _last_checkpoint(before)
        walk = verifying.starting_at(1)
        if last is None or last.n <= walk.n:
            raise NothingToPrune(
                f"There is no signed checkpoint from before {before:%Y-%m-%d %H:%M} UTC to prune up to."
            )
        first, start = walk.n + 1, walk.previous.hex()
        _require_ownership()
        with closing(verifying.rows(first, last.n)) as rows:
            sha256 = segments.write(path, rows, walk)
        try:
            segment = _sealed(first, start, last, walk.previous, sha256)
            _let_go(by, segment)
        except BaseException:
            path.unlink()
            raise
    return segment


def _require_ownership() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'audit_event'::regclass")
        if not cursor.fetchone()[0]:
            raise NotTheOwner(
                "The database’s role may only append to the log: set HYPRBOX_MIGRATION_DATABASE_URL to its owner’s address."
            )


def _last_checkpoint(before: datetime) -> Checkpoint | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(n) FROM audit_event WHERE at >= %s", [before])
        kept = cursor.fetchone()[0]
    found = Checkpoint.objects.order_by("-n")
    return (found if kept is None else found.filter(n__lt=kept)).first()


def _sealed(first: int, start: str, last: Checkpoint, digest: bytes, sha256: str) -> Segment:
    if digest != bytes(last.hash) or not checkpoints.is_ours(checkpoints.as_dict(last), signing.signer()):
        raise CannotTell(f"The checkpoint at entry {last.n} contradicts the log: “manage.py audit_verify” says more.")
    return Segment(first, last.n, start, digest.hex(), sha256)


def _let_go(by: Actor, segment: Segment) -> None:
    with connection.cursor() as cursor:
        given = {"kind": by.kind.value, "name": by.name, "last": segment.last}
        cursor.execute(_KEEP_VERSIONS, {**given, "action": Action.ROW_KEPT.value})
        cursor.execute(_KEEP_STATEMENTS, {**given, "sealed": Action.AUDIT_SEALED.value})
        services.record(Action.AUDIT_SEALED, by=by, target=f"audit:{segment.last}", detail=segment.signed())
        cursor.execute("ALTER TABLE audit_event DISABLE TRIGGER audit_append_only")
        cursor.execute("DELETE FROM audit_event WHERE n <= %s", [segment.last])
        cursor.execute("ALTER TABLE audit_event ENABLE TRIGGER audit_append_only")
