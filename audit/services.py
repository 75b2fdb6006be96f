"""The one way to write an audit row: inside the transaction of the act that it records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import structlog
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from audit import exports, selectors, sequencer, verifying
from audit.actions import Action
from audit.counting import is_first
from hyprbox.lib import live, rowmac
from hyprbox.lib.actors import Actor, Capability, Kind, require
from hyprbox.lib.prepared import Statement
from hyprbox.lib.rowmac import RowTampered, Sealed

MAX_VALUE_BYTES = 1024
_SURELY_SHORT = MAX_VALUE_BYTES // 4  # characters: UTF-8 has four bytes for one at most
_SEALS = Actor.system("seals")

# Prepared, without a cursor, and in one round trip with the COMMIT that follows: every act pays for this.
_SQL = """
INSERT INTO audit_event (action, actor_kind, actor_id, actor_name, target, ip, request_id, subject, subject_version,
  detail, canonical)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::int, $10::jsonb, '')
"""
_INSERT = Statement("audit", _SQL)
# For processes that do not run the sequencer; PostgreSQL sends what a transaction says twice once.
_INSERT_AND_TELL = Statement(
    "audit_told", f"{_SQL} RETURNING pg_notify('{live.CHANNEL}', '{live.payload(sequencer.WRITTEN)}')"
)


def _plain(value: Any) -> Any:
    """A number that is more than a number, as one."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"an audit entry takes no {type(value).__name__}")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
log = structlog.get_logger(__name__)


class NotInTransaction(RuntimeError):
    """An audit row must be written in the transaction of the act it records."""


def record(
    action: Action,
    *,
    by: Actor,
    target: str = "",
    detail: Mapping[str, Any] | None = None,
    row: Sealed | None = None,
) -> None:
    """Append one entry, which gets its place in the chain within a second. Raises `NotInTransaction` outside `atomic`.

    Whatever the transaction does next waits for the entry, and fails when that cannot be written.
    `row` is the sealed row that the act made or changed: the entry notes its version, which every later check asks for.
    """
    here: Any = connections[DEFAULT_DB_ALIAS]  # once: finding it takes a while
    if not here.in_atomic_block:
        raise NotInTransaction(NotInTransaction.__doc__)
    kept = {key: _harmless(value) for key, value in detail.items()} if detail else {}
    if by.key:
        kept["api_key"] = _harmless(by.key)
    _insert(
        here,
        (
            action,
            by.kind,
            by.id,
            _one_line(by.name)[:254],
            _one_line(target)[:255],
            by.ip,
            by.request_id,
            rowmac.subject_of(row) if row is not None else "",
            str(row.row_version) if row is not None else None,
            _encode(kept),
        ),
    )


def _insert(here: Any, values: tuple[str | bytes | None, ...]) -> None:
    here.validate_no_broken_transaction()
    is_told_here = sequencer.loop.is_running
    with here.wrap_database_errors:
        (_INSERT if is_told_here else _INSERT_AND_TELL).send(here.connection, values)
    if is_told_here:
        here.on_commit(sequencer.loop.wake)


def verify_log(*, by: Actor, outside: list[dict[str, Any]] | None = None, first: int = 1) -> verifying.Report:
    """Verify the log from entry `first` on, also against checkpoints from outside. The run is an entry itself.

    Raises `verifying.CannotTell`. It takes a core for seconds: of people, one at a time may have it, others get `RateLimited`.
    """
    require(by, Capability.VIEW_OWN_AUDIT)
    report = verifying.verify(outside=outside, first=first, is_alone=by.kind is Kind.USER)
    facts = report.as_dict()
    detail = {name: facts[name] for name in ("intact", "checked", "first_bad", "signed_to", "why")}
    with transaction.atomic():
        record(Action.AUDIT_VERIFIED, by=by, target=f"audit:{report.head}", detail=detail)
    if report.intact is False:
        log.error("audit.tampered", **detail)
    return report


def export_log(*, by: Actor, kind: str, wanted: Mapping[str, Any]) -> Iterator[str]:
    """The entries that `wanted` (what `list_events` takes) names, as lines of `exports.FORMATS`. It is an entry itself."""
    events = selectors.list_events(by=by, **wanted)
    detail = {"format": kind, **{name: str(value) for name, value in wanted.items() if value}}
    with transaction.atomic():
        record(Action.AUDIT_EXPORTED, by=by, target="audit", detail=detail)
    return exports.lines(events, kind)


def note_tampered(error: RowTampered, *, by: Actor = _SEALS, target: str = "") -> None:
    """Record that a row was refused, at most once a minute for each row; in a transaction of its own unless there is one.

    `target` is what the row belongs to, when that says more than the row.
    """
    table, _, pk = error.subject.partition(":")
    log.error("row.tampered", table=table, pk=pk, why=error.why)
    with transaction.atomic():
        if is_first(f"row:{error.subject}"):
            detail = {"row": error.subject, "why": error.why}
            record(Action.ROW_TAMPERED, by=by, target=target or error.subject, detail=detail)


def _one_line(text: str) -> str:
    """Control characters would let a name forge a line of an exported log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _harmless(value: Any) -> Any:
    if type(value) is str and len(value) <= _SURELY_SHORT and value.isprintable():
        return value
    if isinstance(value, Mapping):
        return {_one_line(str(name))[:200]: _harmless(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_harmless(item) for item in value]
    if not isinstance(value, str):
        return value
    value = str.__str__(value)  # of what is more than a str the text alone
    raw = value.encode("utf-8", "replace")
    if len(raw) > MAX_VALUE_BYTES:
        digest = hashlib.sha256(raw).hexdigest()
        value = f"{raw[:MAX_VALUE_BYTES].decode('utf-8', 'ignore')}… (sha256 {digest})"
    return _one_line(value)
