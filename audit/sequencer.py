"""The one sequencer: gives committed entries their number and hash, so that no act waits for the chain.

A web process does it soon after it recorded something or was told that a process of another kind did; and everybody looks
now and then, for what nobody told of. Whoever holds the advisory lock does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from django.db import connection, transaction

from audit import checkpoints
from audit.models import Checkpoint
from hyprbox.lib import live, signing
from hyprbox.lib.errors import Unavailable
from hyprbox.lib.postgres import lock_number
from hyprbox.lib.threads import in_thread

BATCH = 1000
PAUSE_SECONDS = 0.3  # so that batches form, and processes take turns
LOOK_SECONDS = 10.0
RETRY_SECONDS = 2.0
WRITTEN = "audit.written"  # the topic on which a process without the loop tells of its entries
LOCK = lock_number("audit.sequencer")
# One statement, since an idle process asks nothing else.
_LOOK = """
SELECT EXISTS (SELECT FROM audit_event WHERE n IS NULL), coalesce((SELECT max(n) FROM audit_event), 0),
  coalesce(c.n, 0), c.at, now()
FROM (SELECT) AS one LEFT JOIN (SELECT n, at FROM audit_checkpoint ORDER BY n DESC LIMIT 1) AS c ON true
"""
# The links of `audit.chain`, for entries that never leave the database.
_PLACE = "SELECT placed, last_n, last_hash FROM audit_place(%s)"

log = structlog.get_logger(__name__)
_dice = random.Random()  # its own: the loop runs beside everything else, and others may have seeded the common one


class Round(NamedTuple):
    """What one call did. Not done: another process is at it, and may not see what was committed since it began."""

    placed: int
    is_done: bool


def sequence() -> Round:
    """Give every committed entry its place, sign the checkpoint that is due, and take the newest, whoever signed it."""
    total, is_done = 0, True
    while (found := _look()).has_new or found.is_due:
        batch = _batch(found)
        if batch is None:
            is_done = False
            break
        total += batch.placed
        checkpoints.newest.take(batch.signed)
        if batch.placed < BATCH:
            break
    if found.signed > checkpoints.newest.n:
        checkpoints.newest.take(Checkpoint.objects.order_by("-n").first())
    return Round(total, is_done)


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to do: entries without a place, and a checkpoint at entry `n` since the one at `signed`."""

    has_new: bool
    n: int
    signed: int
    signed_at: datetime | None
    now: datetime

    @property
    def is_due(self) -> bool:
        return _is_due(self.n, self.signed, self.signed_at, self.now)


def _look() -> _Found:
    with connection.cursor() as cursor:
        cursor.execute(_LOOK)
        return _Found(*cursor.fetchone())


class _Batch(NamedTuple):
    placed: int
    signed: Checkpoint | None


@transaction.atomic
def _batch(found: _Found) -> _Batch | None:
    """None while another process is at it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s), now()", [LOCK])
        is_ours, now = cursor.fetchone()
        if not is_ours:
            return None
        # Only now: what the one before us did is visible to statements that start after its lock was released.
        cursor.execute(_PLACE, [BATCH])
        placed, n, digest = cursor.fetchone()
    if placed:
        live.publish("audit")
    # What the look found is asked again only when a checkpoint seems due: another process may have signed since.
    is_due = _is_due(n, found.signed, found.signed_at, now)
    return _Batch(placed, _sign_if_due(n, bytes(digest), now) if is_due else None)


def _is_due(n: int, signed: int, signed_at: datetime | None, now: datetime) -> bool:
    """Whether a log that ends at entry `n` wants a checkpoint, after one at entry `signed`."""
    if n <= signed:
        return False
    is_old = signed_at is None or now - signed_at >= timedelta(seconds=checkpoints.EVERY_SECONDS)
    return is_old or n - signed >= checkpoints.EVERY_ENTRIES


def _sign_if_due(n: int, digest: bytes, now: datetime) -> Checkpoint | None:
    signed, signed_at = Checkpoint.objects.order_by("-n").values_list("n", "at").first() or (0, None)
    if not _is_due(n, signed, signed_at, now):
        return None
    try:
        made = checkpoints.sign(n=n, digest=digest, at=now, signer=signing.signer())
    except signing.SigningKeyUnusable:  # a worker may be without it; the web processes have it
        return None
    made.save(force_insert=True)
    transaction.on_commit(lambda: checkpoints.write_out(made))
    return made


class Loop:
    """The sequencer of this web process: it rests until it is woken, or for `LOOK_SECONDS`."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._is_asked = False

    @property
    def is_running(self) -> bool:
        """Whether `wake` is enough to tell of an entry."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        self._woken, self._is_asked = asyncio.Event(), False
        live.hub.on(WRITTEN, self._hear)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="audit-sequencer")

    async def stop(self) -> None:
        """What this process recorded just before gets its place as well, as nobody else was told of it."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if self._is_asked:
            await self._round()

    def wake(self) -> None:
        """There are new entries. From any thread, once they are committed; the first of many pays for all."""
        task = self._task
        if self._is_asked or task is None:
            return
        self._is_asked = True
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            task.get_loop().call_soon_threadsafe(self._woken.set)

    def _hear(self, event: live.Event) -> None:
        self.wake()

    async def _run(self) -> None:
        while True:  # the first round is for what was written before this process was there
            pause = await self._round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_about(LOOK_SECONDS)):
                    await self._woken.wait()
            await asyncio.sleep(_about(pause))

    async def _round(self) -> float:
        """Returns how many seconds the next one is to wait at least; it asks for that itself unless all is done."""
        # Before the look: whoever commits from now on wakes us anew, since the look may be too early for it.
        self._is_asked = False
        self._woken.clear()
        pause = PAUSE_SECONDS
        try:
            if (await in_thread(sequence)).is_done:
                return pause
        except Unavailable:
            pause = RETRY_SECONDS
        except Exception as error:
            # Whatever is wrong with one round must not end the chain for this process' life.
            log.error("audit.sequencer_failed", exc_info=error)
            pause = RETRY_SECONDS
        self._is_asked = True
        self._woken.set()
        return pause


def _about(seconds: float) -> float:
    return seconds * _dice.uniform(0.75, 1.25)


loop = Loop()
