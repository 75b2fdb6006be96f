"""Reading the whole log back and telling whether it is what was written.

The database is not trusted: hashes are computed and columns compared here. What only the outside can tell, that the end was
cut off or everything was written anew, the checkpoints tell: those in the database, and better those kept elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from audit import checkpoints, segments
from audit.chain import WINDOW, Kind, Row, Tampering, Walk, diagnose
from audit.models import Checkpoint
from hyprbox.lib import signing
from hyprbox.lib.errors import RateLimited
from hyprbox.lib.postgres import lock_number

_COLUMNS = (
    "n, hash, canonical, id, at, action, actor_kind, actor_id, actor_name, target, detail::text, ip, request_id, "
    "subject, subject_version"
)
_FETCH = 2000
_LOCK = lock_number("audit.verify")


class CannotTell(Exception):
    """The log cannot be verified."""


@dataclass(slots=True)
class Report:
    """What a verification found. `intact` is None when it cannot be told; `pending` entries have no place yet; those up to
    `sealed_to` were pruned, and a signed statement says so.
    """

    intact: bool | None = None
    checked: int = 0
    head: int = 0
    head_hash: str = ""
    tampering: Tampering | None = None
    checkpoints: int = 0
    signed_to: int = 0
    sealed_to: int = 0
    pending: int = 0
    seconds: float = 0.0
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What `GET /api/audit/verify` and `--json` give."""
        bad = self.tampering
        return {
            "intact": self.intact,
            "checked": self.checked,
            "head": {"n": self.head, "hash": self.head_hash},
            "first_bad": {"n": bad.n, "kind": str(bad.kind), "why": bad.why} if bad else None,
            "checkpoints": self.checkpoints,
            "signed_to": self.signed_to,
            "sealed_to": self.sealed_to,
            "pending": self.pending,
            "seconds": round(self.seconds, 3),
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that bears our signature."""

    n: int
    hash: bytes
    is_outside: bool


@dataclass(slots=True)
class _Evidence:
    by_n: dict[int, list[Witnessed]] = field(default_factory=dict)

    def add(self, witnessed: Witnessed) -> None:
        self.by_n.setdefault(witnessed.n, []).append(witnessed)

    @property
    def last(self) -> int:
        return max(self.by_n, default=0)


def read_checkpoints(path: Path) -> list[dict[str, Any]]:
    """The lines of a checkpoint file: one JSON object each, as the control plane writes them and agents keep them.

    Raises `CannotTell` for a file that is none.
    """
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        found = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise CannotTell(f"{path} cannot be read as a file of checkpoints: {error}.") from error
    if not found or not all(isinstance(one, dict) and "n" in one and "signature" in one for one in found):
        raise CannotTell(f"{path} holds no checkpoints: each line would be an object with n, hash, at and signature.")
    return found


def verify(*, outside: list[dict[str, Any]] | None = None, first: int = 1, is_alone: bool = False) -> Report:
    """Walk the chain from entry `first` on, and compare it with every checkpoint.

    Raises `CannotTell`, and with `is_alone` `RateLimited` while another such walk is on its way.
    """
    began = time.perf_counter()
    report = Report()
    is_inside = connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        # One snapshot for all, and as much time as it takes.
        if not is_inside:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0] and is_alone:
            raise RateLimited("The log is being verified at this moment: wait for that to end.", retry_after=10)
        _verify(report, outside or [], first)
    report.seconds = time.perf_counter() - began
    return report


def _verify(report: Report, outside: list[dict[str, Any]], first: int) -> None:
    evidence, forged = _evidence(report, outside)
    walk = starting_at(first)
    signed_before = walk.n
    report.sealed_to = walk.n if first <= 1 else 0
    for row in rows(walk.n + 1 if first <= 1 else first):
        if not walk.step(row):
            report.tampering = diagnose(walk, row, _around(row.n))
            break
        if row.n in evidence.by_n:
            wrong = next((w for w in evidence.by_n[row.n] if w.hash != row.hash), None)
            if wrong is not None:
                kind = Kind.FORK if _has_later(evidence, wrong) else Kind.REBUILD
                why = f"the chain from {signed_before + 1} to {row.n} is another one than the checkpoint at {row.n} saw"
                report.tampering = Tampering(signed_before + 1, kind, why)
                break
            signed_before = row.n
    report.checked, report.head, report.head_hash = walk.checked, walk.n, walk.previous.hex() if walk.n else ""
    report.signed_to = signed_before if signed_before in evidence.by_n else 0
    if report.tampering is None and evidence.last > walk.n:
        why = f"a checkpoint has seen entry {evidence.last}, and the log ends at {walk.n}"
        report.tampering = Tampering(walk.n + 1, Kind.CUT, why)
    if report.tampering is None and forged is not None:
        report.tampering = Tampering(forged, Kind.EDIT, f"the stored checkpoint at {forged} is not signed by us")
    _conclude(report, evidence)


def _conclude(report: Report, evidence: _Evidence) -> None:
    if report.tampering is not None:
        report.intact, report.why = False, report.tampering.why
    elif not evidence.by_n:
        report.why = "there is no checkpoint to compare the log with, so a cut or a full rebuild would not show"
    else:
        report.intact = True


def _evidence(report: Report, outside: list[dict[str, Any]]) -> tuple[_Evidence, int | None]:
    """Every checkpoint with a good signature, and the number of the first stored one without."""
    try:
        signer = signing.signer()
    except signing.SigningKeyUnusable as error:
        raise CannotTell(str(error)) from error
    evidence, forged = _Evidence(), None
    for stored in Checkpoint.objects.order_by("n").iterator():
        if checkpoints.is_ours(checkpoints.as_dict(stored), signer):
            evidence.add(Witnessed(stored.n, bytes(stored.hash), is_outside=False))
        elif forged is None and signer.knows(stored.key_id):
            forged = stored.n
    for one in outside:
        if not checkpoints.is_ours(one, signer):
            raise CannotTell(f"The checkpoint at {one.get('n')} was not signed with this control plane's key.")
        evidence.add(Witnessed(int(one["n"]), bytes.fromhex(one["hash"]), is_outside=True))
    report.checkpoints = sum(map(len, evidence.by_n.values()))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM audit_event WHERE n IS NULL")
        report.pending = cursor.fetchone()[0]
    return evidence, forged


def _has_later(evidence: _Evidence, wrong: Witnessed) -> bool:
    """Whether we signed the chain as it is now, too, where or after `wrong` saw another one: then there are two histories."""
    mine = [w for n, found in evidence.by_n.items() if n >= wrong.n for w in found if not w.is_outside]
    return wrong.is_outside and any(_is_in_log(w) for w in mine)


def _is_in_log(witnessed: Witnessed) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT hash FROM audit_event WHERE n = %s", [witnessed.n])
        row = cursor.fetchone()
    return row is not None and bytes(row[0]) == witnessed.hash


def starting_at(first: int) -> Walk:
    """Before entry `first`; for the first one of all, after what was pruned. Raises `CannotTell`."""
    with connection.cursor() as cursor:
        if first <= 1:
            cursor.execute("SELECT min(n) FROM audit_event")
            first = cursor.fetchone()[0] or 1
            sealed = segments.ending_at(first - 1) if first > 1 else None
            return Walk() if sealed is None else Walk(sealed.last, bytes.fromhex(sealed.hash))
        cursor.execute("SELECT hash FROM audit_event WHERE n = %s", [first - 1])
        row = cursor.fetchone()
    if row is not None:
        return Walk(first - 1, bytes(row[0]))
    if (sealed := segments.ending_at(first - 1)) is not None:
        return Walk(sealed.last, bytes.fromhex(sealed.hash))
    raise CannotTell(f"There is no entry {first - 1}, which the one at {first} has to follow.")


def rows(first: int, last: int | None = None) -> Generator[Row]:
    """All entries in their order, through a cursor of the server's, in PostgreSQL's binary form."""
    assert connection.connection is not None
    upto = 2**63 - 1 if last is None else last
    with connection.connection.cursor(name="audit_verify", binary=True) as cursor:
        cursor.itersize = _FETCH
        cursor.execute(f"SELECT {_COLUMNS} FROM audit_event WHERE n BETWEEN %s AND %s ORDER BY n", [first, upto])
        while found := cursor.fetchmany(_FETCH):
            for n, digest, canonical, *facts in found:
                yield Row(n, digest, canonical, tuple(facts))


def _around(n: int) -> list[Row]:
    """What stands near a break, and what lost its place."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n, hash, canonical FROM audit_event WHERE n BETWEEN %s AND %s ORDER BY n", [n - WINDOW, n + WINDOW]
        )
        return [Row(found, bytes(digest), bytes(canonical)) for found, digest, canonical in cursor.fetchall()]
