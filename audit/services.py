"""The one way to write an audit row: inside the transaction of the act that it records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from audit.actions import Action
from audit.models import Event
from hyprbox.lib import live, rowmac
from hyprbox.lib.actors import Actor
from hyprbox.lib.rowmac import Sealed

MAX_VALUE_BYTES = 1024


class NotInTransaction(RuntimeError):
    """An audit row must be written in the transaction of the act it records."""


def record(
    action: Action,
    *,
    by: Actor,
    target: str = "",
    detail: Mapping[str, Any] | None = None,
    row: Sealed | None = None,
) -> Event:
    """Append one entry. Raises `NotInTransaction` outside `transaction.atomic`.

    `row` is the sealed row that the act made or changed: the entry notes its version, which every later check asks for.
    """
    if not transaction.get_connection().in_atomic_block:
        raise NotInTransaction(NotInTransaction.__doc__)
    event = Event.objects.create(
        action=action,
        actor_kind=by.kind,
        actor_id=by.id,
        actor_name=_one_line(by.name)[:254],
        target=_one_line(target)[:255],
        detail={key: _harmless(value) for key, value in (detail or {}).items()},
        ip=by.ip,
        request_id=by.request_id,
        subject=rowmac.subject_of(row) if row is not None else "",
        subject_version=row.row_version if row is not None else None,
    )
    live.publish("audit", event=event.pk)
    return event


def _one_line(text: str) -> str:
    """Control characters would let a name forge a line of an exported log."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    raw = value.encode("utf-8", "replace")
    if len(raw) > MAX_VALUE_BYTES:
        digest = hashlib.sha256(raw).hexdigest()
        value = f"{raw[:MAX_VALUE_BYTES].decode('utf-8', 'ignore')}… (sha256 {digest})"
    return _one_line(value)
