"""The chain over audit entries, as arithmetic on plain values: links, and what a break in the chain means.

`hash_n = SHA256("hbx-audit-v1" || n || hash_(n-1) || canonical)`: n in 8 bytes, big-endian; before the first entry stand
32 zero bytes; canonical are the bytes that the database stored with the entry. Nothing here trusts the database.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

CONTEXT = b"hbx-audit-v1"
GENESIS = bytes(32)
WINDOW = 1000  # how many entries around a break are looked at to tell what happened


class Kind(enum.StrEnum):
    """What was done to the log."""

    EDIT = "edit"
    DELETE = "delete"
    INSERT = "insert"
    REORDER = "reorder"
    CUT = "cut tail"
    REBUILD = "full rebuild"
    FORK = "fork"


class Row(NamedTuple):
    """One chained entry as it was read. `facts` are the columns that canonical has as well, in the order of `FACTS`."""

    n: int
    hash: bytes
    canonical: bytes
    facts: tuple[Any, ...] = ()


class Canonical(msgspec.Struct, forbid_unknown_fields=True):
    """What the canonical bytes say."""

    id: int
    at: datetime
    action: str
    actor_kind: str
    actor_id: str
    actor_name: str
    target: str
    detail: Any
    ip: str
    request_id: str
    subject: str
    subject_version: int | None


FACTS = Canonical.__struct_fields__
_decode = msgspec.json.Decoder(Canonical).decode
_decode_any = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Tampering:
    """The first entry that is not as it was written, and what was done."""

    n: int
    kind: Kind
    why: str


def link(n: int, previous: bytes, canonical: bytes) -> bytes:
    """The hash of entry `n`. 32 bytes."""
    return hashlib.sha256(CONTEXT + n.to_bytes(8, "big") + previous + canonical).digest()


def says_what_it_shows(row: Row) -> bool:
    """Whether the columns of an entry are what its canonical bytes say; `detail` comes as JSON text."""
    try:
        said = _decode(row.canonical)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
    id_, at, action, kind, actor_id, name, target, detail, ip, request_id, subject, version = row.facts
    return bool(
        said.id == id_
        and said.at == at
        and said.action == action
        and said.actor_kind == kind
        and said.actor_id == actor_id
        and said.actor_name == name
        and said.target == target
        and said.ip == ip
        and said.request_id == request_id
        and said.subject == subject
        and said.subject_version == version
        and said.detail == _decode_any(detail)
    )


class Walk:
    """Follows the chain, entry by entry in the order of `n`, up to the first that does not fit."""

    def __init__(self, n: int = 0, previous: bytes = GENESIS) -> None:
        self.n, self.previous, self.before = n, previous, GENESIS
        self.checked = 0

    def step(self, row: Row) -> bool:
        """Whether `row` is the next one and unchanged. Once False, the walk is over."""
        if row.n != self.n + 1 or row.hash != link(row.n, self.previous, row.canonical):
            return False
        if row.facts and not says_what_it_shows(row):
            return False
        self.n, self.before, self.previous = row.n, self.previous, row.hash
        self.checked += 1
        return True


def diagnose(walk: Walk, row: Row, around: Sequence[Row]) -> Tampering:
    """What happened where the walk ended: `row` is the one it did not take, `around` are those near it in the table."""
    n, previous = walk.n + 1, walk.previous
    place = {other.n: other for other in around}
    right = _belonging(n, previous, [other for other in around if other.canonical != row.canonical], row.hash)
    if row.n != n:
        if right is not None:
            return Tampering(n, Kind.REORDER, f"entry {n} stands elsewhere")
        return Tampering(n, Kind.DELETE, f"{row.n - n} entries are missing from {n} on")
    if row.hash == link(n, previous, row.canonical):
        return Tampering(n, Kind.EDIT, f"the columns of entry {n} are not what its canonical bytes say")
    if n > 1 and row.hash == link(n - 1, walk.before, row.canonical):
        return Tampering(n - 1, Kind.INSERT, f"the entry that was number {n - 1} is number {n} now")
    if right is not None:
        if _fits_elsewhere(row, right, place) or right.hash != link(n, previous, right.canonical):
            return Tampering(n, Kind.REORDER, f"entries {n} and {right.n} have changed places")
        return Tampering(n, Kind.INSERT, f"a foreign entry stands at {n}")
    return _by_the_next(n, row, place.get(n + 1))


def _belonging(n: int, previous: bytes, rows: Iterable[Row], wanted: bytes) -> Row | None:
    """The entry that was number `n` after `previous`: by its own hash, or by the one that is kept at `n`."""
    for row in rows:
        found = link(n, previous, row.canonical)
        if found in (row.hash, wanted):
            return row
    return None


def _fits_elsewhere(row: Row, right: Row, place: dict[int, Row]) -> bool:
    """Whether `row` was where `right` stands now."""
    before = place.get(right.n - 1)
    previous = right.hash if before is row else before.hash if before is not None else GENESIS
    return row.hash == link(right.n, previous, row.canonical)


def _by_the_next(n: int, row: Row, following: Row | None) -> Tampering:
    """No entry of the table belongs here: what follows tells whether some are missing, or this one was changed."""
    if following is not None and following.hash != link(n + 1, row.hash, following.canonical):
        for count in range(1, WINDOW):
            if following.hash == link(n + 1 + count, row.hash, following.canonical):
                return Tampering(
                    n, Kind.DELETE, f"{count} entries are missing from {n} on, the later ones were renumbered"
                )
            if n + 1 > count and following.hash == link(n + 1 - count, row.hash, following.canonical):
                return Tampering(n, Kind.INSERT, f"{count} entries were put in before {n}")
    return Tampering(n, Kind.EDIT, f"entry {n} does not follow from entry {n - 1}: one of the two was changed")
