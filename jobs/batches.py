"""Several jobs as one act: queued all or nothing, in waves with a rule for when to stop, and what is done with the rest.

The jobs of later waves are QUEUED and held: signed and visible, but no agent is handed one before its wave is released.
Whoever sees a job end calls `advance`; the worker does so every few seconds for what nobody saw. A wave needs the rights of
the one who queued the batch at the moment it is released: without them the batch stops.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from django.db import transaction
from django.db.models import Count, Q
from django.db.models.functions import Now

from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Capability, Kind, require, require_fresh
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.rowmac import RowTampered, subject_of
from jobs import authors, services
from jobs.errors import BatchOver, JobNotCancellable, NothingToRetry, UnknownBatch
from jobs.models import Batch, IdempotencyKey, Job
from jobs.moves import move, tell, tell_node
from jobs.services import Order
from jobs.states import TERMINAL, Mode, Status
from nodes import selectors as nodes
from nodes.selectors import NodeFilter

MAX_BATCH = 1000
MOST_WITHOUT_STEP_UP = 10  # nodes at once; to change more, the preset's name is typed as well
MOST_AT_ONCE = 50  # more are changed in waves, and none of those is larger
WAVE_SHARE = 10  # unless somebody says otherwise, a wave is a tenth of them
STOP_OVER_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Targets:
    """Which nodes: named, or every one that belongs to a group, carries a tag or has a status of these.

    Those that were never seen are not among the latter.
    """

    node_ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How many at a time, and after how many failures the rest is cancelled. None: what is usual for so many nodes."""

    wave_size: int | None = None
    stop_after_failures: int | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """What a batch repeats: of which batch the jobs that failed, by their nodes."""

    batch: uuid.UUID
    jobs: Mapping[uuid.UUID, uuid.UUID]


def choose(targets: Targets) -> list[str]:
    """The node_ids, the named ones first. Raises `InvalidInput` when nothing is asked for or nothing matches."""
    if not (targets.node_ids or targets.groups or targets.tags or targets.statuses):
        raise InvalidInput(fields={"node_ids": ["Choose nodes: node_ids, groups, tags or statuses."]})
    found = dict.fromkeys(targets.node_ids)
    if targets.groups or targets.tags or targets.statuses:
        # Of each kind one has to fit: group acme or beta, and tag web or db.
        matching = nodes.list_nodes(NodeFilter(statuses=targets.statuses)).seen()
        if targets.groups:
            matching = matching.filter(group__in=targets.groups)
        if targets.tags:
            matching = matching.filter(tags__overlap=list(targets.tags))
        found.update(dict.fromkeys(matching.values_list("node_id", flat=True)[: MAX_BATCH + 1]))
    if not found:
        raise InvalidInput(fields={"node_ids": ["No node that ever reported matches these groups, tags and statuses."]})
    return list(found)


def queue(
    *,
    by: Actor,
    order: Order,
    node_ids: list[str],
    pace: Pace | None = None,
    idempotency_key: str = "",
    again: Again | None = None,
) -> tuple[Batch, list[Job], bool]:
    """One job for each node, all or nothing. Returns whether it is new (False for a repeated key).

    Raises `InvalidInput` as `services.queue_job` does, `KeyReused`.
    """
    named = Targets(node_ids=tuple(node_ids))
    return queue_matching(by=by, order=order, targets=named, pace=pace, idempotency_key=idempotency_key, again=again)


def queue_matching(
    *,
    by: Actor,
    order: Order,
    targets: Targets,
    pace: Pace | None = None,
    idempotency_key: str = "",
    again: Again | None = None,
) -> tuple[Batch, list[Job], bool]:
    """The same for nodes that are chosen now; a repeated key has the nodes that were chosen then."""
    require(by, Capability.RUN_JOBS)
    pace = pace or Pace()
    digest = order.sha256(nodes=_asked(targets, pace))
    if (before := services.find_key(by, idempotency_key, digest)) is not None and before.batch_id is not None:
        return *_queued_before(before.batch_id), False
    wanted = choose(targets)
    checked = services.check_order(order, by)
    if not 1 <= len(wanted) <= MAX_BATCH:
        raise InvalidInput(fields={"node_ids": [f"Choose from 1 to {MAX_BATCH} nodes; these are {len(wanted)}."]})
    if len(wanted) > MOST_WITHOUT_STEP_UP:
        require_fresh(by)
        _require_typed(order, len(wanted))
    wave_size, percent = _wave_size(pace, len(wanted), order.mode)
    with transaction.atomic():
        key = services.claim_key(by, idempotency_key, digest)
        if key is not None and key.batch_id is not None:
            return *_queued_before(key.batch_id), False
        rows = services.find_nodes(wanted, field="node_ids")
        batch = Batch.objects.create(
            preset=order.preset,
            preset_title=checked.preset.title,
            created_by=by.name,
            author_id=by.id if by.kind is Kind.USER else None,
            wave_size=wave_size,
            stop_after_failures=pace.stop_after_failures,
            stop_over_percent=percent,
            next_wave=1 if wave_size and len(rows) > wave_size else None,
        )
        jobs = [
            services.insert(
                by=by,
                checked=checked,
                node=node,
                batch=batch,
                retry_of=again.jobs[node.pk] if again else None,
                wave=at // wave_size if wave_size else 0,
            )
            for at, node in enumerate(rows)
        ]
        detail = {"preset": order.preset, "nodes": len(jobs), "wave_size": wave_size}
        if again is not None:
            detail["retry_of"] = str(again.batch)
        audit.record(Action.BATCH_QUEUED, by=by, target=f"batch:{batch.pk}", detail=detail)
        if key is not None:
            IdempotencyKey.objects.filter(pk=key.pk).update(batch=batch)
    return batch, jobs, True


def _asked(targets: Targets, pace: Pace) -> list[str | list[str]]:
    """What was sent, for a request is repeated with the same words, whichever nodes they fit meanwhile."""
    matching = [targets.groups, targets.tags, targets.statuses]
    named = [*dict.fromkeys(targets.node_ids), f"{pace.wave_size}/{pace.stop_after_failures}"]
    return [*named, *map(list, matching)] if any(matching) else [*named]


def _require_typed(order: Order, count: int) -> None:
    """A check changes nothing, so nothing is to be confirmed."""
    if order.mode == Mode.APPLY and order.confirm != order.preset:
        raise InvalidInput(fields={"confirm": [f"Type {order.preset} to run it on {count} nodes."]})


def _queued_before(batch_id: uuid.UUID) -> tuple[Batch, list[Job]]:
    jobs = Job.objects.light().filter(batch_id=batch_id).select_related("node", "transcript")
    return Batch.objects.get(pk=batch_id), list(jobs.order_by("wave", "node__node_id"))


def _wave_size(pace: Pace, count: int, mode: str) -> tuple[int | None, int | None]:
    """Nodes in a wave (None: all at once), and the share of failures that stops the batch.

    To change many, what somebody says can be stricter than what is usual, never looser.
    """
    is_large = count > MOST_AT_ONCE and mode == Mode.APPLY  # a check changes nothing
    problems: dict[str, list[str]] = {}
    if pace.wave_size is not None and not 1 <= pace.wave_size <= MAX_BATCH:
        problems["wave_size"] = [f"A whole number from 1 to {MAX_BATCH}."]
    elif pace.wave_size is not None and is_large and pace.wave_size > MOST_AT_ONCE:
        problems["wave_size"] = [f"From 1 to {MOST_AT_ONCE}: of {count} nodes at most {MOST_AT_ONCE} change at a time."]
    if pace.stop_after_failures is not None and not 1 <= pace.stop_after_failures <= MAX_BATCH:
        problems["stop_after_failures"] = [f"A whole number from 1 to {MAX_BATCH}."]
    elif pace.stop_after_failures is not None and pace.wave_size is None and not is_large:
        problems["stop_after_failures"] = ["It needs wave_size: without waves all of them start at once."]
    if problems:
        raise InvalidInput(fields=problems)
    size = pace.wave_size or (min(-(-count // WAVE_SHARE), MOST_AT_ONCE) if is_large else None)
    return size, STOP_OVER_PERCENT if is_large or (size and pace.stop_after_failures is None) else None


def advance(batch_id: uuid.UUID | None, *, look_at_author: bool = False) -> None:
    """A job of the batch has ended: release the next wave, or stop when too many failed or its author may not any more.

    With `look_at_author` it stops for the latter at once, also while a wave runs.
    """
    if batch_id is None or not Batch.objects.filter(pk=batch_id, next_wave__isnull=False).exists():
        return
    with transaction.atomic():
        batch = Batch.objects.select_for_update(no_key=True).get(pk=batch_id)
        while batch.next_wave is not None and batch.stopped_at is None:
            released = _counts(Job.objects.filter(batch=batch, held=False))
            why = _why_stop(batch, released)
            if not why and (look_at_author or not released["open"]):
                why = authors.why_not(batch.author_id, batch.created_by)
            if why:
                _stop(batch, why)
            elif released["open"]:
                return
            else:
                _release(batch)


def advance_all() -> int:
    """For the worker: every batch that has waves to come, and whether the one who queued it still may run jobs."""
    waiting = list(Batch.objects.filter(next_wave__isnull=False).values_list("pk", flat=True)[:200])
    for batch_id in waiting:
        advance(batch_id, look_at_author=True)
    return len(waiting)


def _counts(jobs: Iterable[Job]) -> dict[str, int]:
    failed = Q(status=Status.FAILED)
    counted: dict[str, int] = jobs.aggregate(  # type: ignore[attr-defined]
        jobs=Count("id"), open=Count("id", filter=~Q(status__in=TERMINAL)), failed=Count("id", filter=failed)
    )
    return counted


def _why_stop(batch: Batch, released: dict[str, int]) -> str:
    """A sentence, or nothing. The share is judged when a wave is over: one failure of two says little."""
    failed, ended = released["failed"], released["jobs"] - released["open"]
    if batch.stop_after_failures is not None and failed >= batch.stop_after_failures:
        return f"{failed} of {ended} failed; it was to stop after {batch.stop_after_failures}."
    percent = batch.stop_over_percent
    if percent is not None and not released["open"] and failed * 100 > percent * ended:
        return f"{failed} of {ended} failed, more than {percent} %."
    return ""


def _stop(batch: Batch, why: str) -> None:
    held = list(Job.objects.light().filter(batch=batch, held=True, status=Status.QUEUED).select_for_update(no_key=True))
    for job in held:
        move(job, to=Status.CANCELLED, cancel_requested_at=Now(), cancelled_because=f"Its batch stopped: {why}")
    batch.next_wave, batch.stopped_because = None, why
    Batch.objects.filter(pk=batch.pk).update(next_wave=None, stopped_because=why, stopped_at=Now())
    detail = {"preset": batch.preset, "cancelled": len(held), "why": why}
    audit.record(Action.BATCH_STOPPED, by=Actor.system("waves"), target=f"batch:{batch.pk}", detail=detail)


def _release(batch: Batch) -> None:
    held = Job.objects.filter(batch=batch, held=True, wave=batch.next_wave or 0)
    released = list(held.filter(status=Status.QUEUED).values_list("pk", "node_id"))
    held.update(held=False)
    is_last = not Job.objects.filter(batch=batch, held=True).exists()
    batch.next_wave = None if is_last else (batch.next_wave or 0) + 1
    Batch.objects.filter(pk=batch.pk).update(next_wave=batch.next_wave)
    for job_id, node_pk in released:
        tell(job_id, node_pk, kind="status")
        tell_node(node_pk)


def cancel_rest(*, by: Actor, batch_id: uuid.UUID | str) -> Batch:
    """Cancel every job of it that has not ended. Raises `UnknownBatch`, `BatchOver`."""
    require(by, Capability.RUN_JOBS)
    with transaction.atomic():
        batch = _lock(batch_id)
        left = list(Job.objects.unfinished().filter(batch=batch).values_list("pk", "cancel_requested_at"))
        if not left:
            raise BatchOver()
        why = f"Cancelled by {by.name}."
        Batch.objects.filter(pk=batch.pk).update(next_wave=None, stopped_because=why, stopped_at=Now())
        for job_id, asked_at in left:
            if asked_at is None:
                with suppress(JobNotCancellable):  # it has ended since we looked
                    services.request_cancel(by=by, job_id=job_id)
        detail = {"preset": batch.preset, "jobs": len(left)}
        audit.record(Action.BATCH_CANCELLED, by=by, target=f"batch:{batch.pk}", detail=detail)
    batch.refresh_from_db()
    return batch


def retry_failed(*, by: Actor, batch_id: uuid.UUID | str, confirm: str = "") -> tuple[Batch, list[Job]]:
    """A new batch for the jobs that failed and were not retried yet; of more than ten `confirm` is the preset's name.

    Raises `UnknownBatch`, `NothingToRetry`, `RowTampered`, `JobKeyUnknown`, `InvalidInput`.
    """
    require(by, Capability.RUN_JOBS)
    try:
        return _retry_failed(by, batch_id, confirm)
    except RowTampered as error:
        audit.note_tampered(error, by=by, target=f"batch:{batch_id}")
        raise


@transaction.atomic
def _retry_failed(by: Actor, batch_id: uuid.UUID | str, confirm: str) -> tuple[Batch, list[Job]]:
    old = _lock(batch_id)
    failed = list(
        Job.objects.filter(batch=old, status=Status.FAILED, retries__isnull=True)
        .filter(node__removed_at__isnull=True)
        .select_related("node")
        .order_by("created_at", "id")
    )
    if not failed:
        raise NothingToRetry()
    order = _order_of_all(failed, old)
    if len(failed) > MOST_WITHOUT_STEP_UP:
        order = replace(order, confirm=confirm)
    pace = Pace(min(old.wave_size, MOST_AT_ONCE), old.stop_after_failures) if old.wave_size else Pace()
    again = Again(old.pk, {job.node_id: job.pk for job in failed})
    batch, jobs, _ = queue(by=by, order=order, node_ids=[job.node.node_id for job in failed], pace=pace, again=again)
    return batch, jobs


def _order_of_all(jobs: list[Job], batch: Batch) -> Order:
    """The one order that all jobs of a batch are from: a job that was put into it by another hand has another one.

    Raises `RowTampered`, `JobKeyUnknown`.
    """
    first, *others = jobs
    order = services.order_of(first)
    if order.preset != batch.preset:
        raise RowTampered(subject_of(batch), "its preset is not the one of its jobs")
    for job in others:
        if services.order_of(job) != order or job.script_sha256 != first.script_sha256:
            raise RowTampered(subject_of(job), "its order is not the one of its batch")
    return order


def _lock(batch_id: uuid.UUID | str) -> Batch:
    try:
        return Batch.objects.select_for_update(no_key=True).get(pk=uuid.UUID(str(batch_id)))
    except (ValueError, Batch.DoesNotExist):
        raise UnknownBatch() from None
