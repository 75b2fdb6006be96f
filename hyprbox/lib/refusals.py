"""Who hears that a caller was refused. The foundation imports no app: the audit log registers itself as `listener`.

A refusal is told after the fact, when what was asked has ended without a trace; only those who are refused wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog
from django.db import DatabaseError

from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from hyprbox.lib.ids import rate_key
from hyprbox.lib.threads import in_thread

GATHER_SECONDS = 1.0
MAX_GATHERED = 5_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """`by` asked `route` (a view's name: paths are of the caller's choice) and got `error`, so many `times`."""

    error: HyprBoxError
    by: Actor
    route: str
    method: str = ""
    times: int = 1

    @property
    def key(self) -> str:
        """What is counted together: the actor and the route; of strangers the address and what they were told."""
        if self.by.is_known:
            return f"{self.by.kind}:{self.by.id or self.by.name}:{self.by.key}:{self.route}"
        return f"address:{rate_key(self.by.ip)}:{self.error.code}"


Listener = Callable[[Sequence[Refusal]], None]


def _nobody(refusals: Sequence[Refusal]) -> None:
    """Before the audit app is ready."""


listener: Listener = _nobody
_gathered: dict[str, Refusal] = {}
_flush: asyncio.Task[None] | None = None


def tell(error: HyprBoxError, *, by: Actor, route: str, method: str = "") -> None:
    """Tell the log now, unless this error is none that it hears of. Never raises: the caller gets its answer."""
    if error.is_refusal:
        _tell([Refusal(error, by, route, method)])


def tell_soon(error: HyprBoxError, *, by: Actor, route: str, method: str = "") -> None:
    """The same from the event loop: gathered for a second, then told from a thread."""
    if not error.is_refusal:
        return
    refusal = Refusal(error, by, route, method)
    known = _gathered.get(refusal.key)
    if known is not None:
        _gathered[refusal.key] = replace(known, times=known.times + 1)
    elif len(_gathered) < MAX_GATHERED:
        _gathered[refusal.key] = refusal
    _schedule()


def _schedule() -> None:
    global _flush
    loop = asyncio.get_running_loop()
    if _flush is None or _flush.done() or _flush.get_loop() is not loop:
        _flush = loop.create_task(_tell_gathered(), name="refusals")


async def _tell_gathered() -> None:
    await asyncio.sleep(GATHER_SECONDS)
    told = list(_gathered.values())
    _gathered.clear()
    await tell_many(told)


async def tell_many(refusals: Sequence[Refusal]) -> None:
    """Tell the log from a thread. Never raises."""
    try:
        await in_thread(_tell, refusals)
    except HyprBoxError as error:
        log.warning("refusals.not_recorded", count=len(refusals), error=repr(error))


def _tell(refusals: Sequence[Refusal]) -> None:
    try:
        listener(refusals)
    except (DatabaseError, HyprBoxError) as error:
        log.warning("refusals.not_recorded", count=len(refusals), error=repr(error))
