"""The one sequencer: gives committed entries their number and hash, so that no act waits for the chain.

Every web process tries every half second, the worker now and then; whoever holds the advisory lock does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import connection, transaction

from audit import checkpoints
from audit.chain import GENESIS, link
from audit.models import Checkpoint, Event
from hyprbox.lib import live, signing
from hyprbox.lib.errors import Unavailable
from hyprbox.lib.postgres import lock_number
from hyprbox.lib.threads import in_thread

BATCH = 1000
PAUSE_SECONDS = 0.4
THOROUGH_ROUNDS = 20
LOCK = lock_number("audit.sequencer")
_PLACE = """
UPDATE audit_event e SET n = s.n, hash = s.hash
FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[]) AS s(id, n, hash) WHERE e.id = s.id
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry that has its place."""

    n: int
    hash: bytes


def sequence(*, thoroughly: bool = True) -> int:
    """Give every committed entry its place. Returns how many got one: 0 as well while another process is at it.

    `thoroughly` also looks, without new entries, whether a checkpoint is due, and takes the one of another process.
    """
    total = 0
    while Event.objects.filter(n=None).exists() or (thoroughly and not total):
        placed = _batch()
        total += placed
        if placed < BATCH:
            break
    if thoroughly or total:
        checkpoints.newest.take(Checkpoint.objects.order_by("-n").first())
    return total


@transaction.atomic
def _batch() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s), now()", [LOCK])
        is_ours, now = cursor.fetchone()
        if not is_ours:
            return 0
        # Only now: what the one before us did is visible to statements that start after its lock was released.
        old = head()
        rows = list(Event.objects.filter(n=None).order_by("id").values_list("id", "canonical")[:BATCH])
        ids, numbers, hashes, previous = [], [], [], old.hash
        for n, (id_, canonical) in enumerate(rows, old.n + 1):
            previous = link(n, previous, bytes(canonical))
            ids.append(id_)
            numbers.append(n)
            hashes.append(previous)
        if ids:
            cursor.execute(_PLACE, [ids, numbers, hashes])
            live.publish("audit")
    _sign_if_due(Head(old.n + len(ids), previous), now)
    return len(ids)


def head() -> Head:
    """The end of the chain; number 0 before the first entry."""
    last = Event.objects.filter(n__isnull=False).order_by("-n").values_list("n", "hash").first()
    return Head(0, GENESIS) if last is None else Head(last[0] or 0, bytes(last[1] or b""))


def _sign_if_due(now_at: Head, now: datetime) -> None:
    last = Checkpoint.objects.order_by("-n").first()
    if now_at.n == 0 or (last is not None and now_at.n <= last.n):
        return
    is_old = last is None or now - last.at >= timedelta(seconds=checkpoints.EVERY_SECONDS)
    if not is_old and now_at.n - (last.n if last else 0) < checkpoints.EVERY_ENTRIES:
        return
    try:
        made = checkpoints.sign(n=now_at.n, digest=now_at.hash, at=now, signer=signing.signer())
    except signing.SigningKeyUnusable:  # a worker may be without it; the web processes have it
        return
    made.save(force_insert=True)
    transaction.on_commit(lambda: checkpoints.write_out(made))


class Loop:
    """The sequencer of this web process."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="audit-sequencer")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        for count in itertools.count():
            try:
                await in_thread(sequence, thoroughly=count % THOROUGH_ROUNDS == 0)
            except Unavailable:
                await asyncio.sleep(2)
            except Exception as error:
                # Whatever is wrong with one round must not end the chain for this process' life.
                log.error("audit.sequencer_failed", exc_info=error)
                await asyncio.sleep(2)
            await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.75, 1.25))  # so that processes take turns


loop = Loop()
