"""All seals and signatures at once: users, tokens, custom presets and whatever else derives from `Sealed`, sessions and jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog
from django.db import transaction

from accounts import families
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.rowmac import models_with_seals
from jobs import signatures

MOST_NAMED = 20

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Integrity:
    """How many rows were checked, and `(table:id, what is wrong)` for each that is not as HyprBox left it.

    `unknown` is how many jobs ended that nobody can tell it of, since their key is gone.
    """

    checked: int = 0
    unknown: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def verify(*, by: Actor) -> Integrity:
    """Check every row; the run is audited. Raises `SigningKeyUnusable`, `MacKeyUnusable`."""
    require(by, Capability.VIEW_AUDIT)
    began, found = time.perf_counter(), Integrity()
    for subject, why in _rows():
        found.checked += 1
        if why == signatures.KEY_GONE:
            found.unknown += 1
        elif why:
            found.bad.append((subject, why))
            table, _, pk = subject.partition(":")
            log.error("row.tampered", table=table, pk=pk, why=why)
    found.seconds = time.perf_counter() - began
    named = {subject: why for subject, why in found.bad[:MOST_NAMED]}
    detail = {"checked": found.checked, "bad": len(found.bad), "unknown": found.unknown, "rows": named}
    with transaction.atomic():
        audit.record(Action.INTEGRITY_VERIFIED, by=by, target="integrity", detail=detail)
    return found


def _rows() -> Iterator[tuple[str, str]]:
    for model in models_with_seals():
        yield from sealed.check_all(model)
    yield from families.check_all()
    yield from signatures.check_all()
