"""What people do with jobs: queue, cancel, retry. What agents do is in `jobs.reports`."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from audit import services as audit
from audit.actions import Action
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor, Capability, Kind, require
from hyprbox.lib.crash import crash_point
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.rowmac import RowTampered
from jobs import payloads, selectors, signatures
from jobs.errors import JobNotCancellable, JobNotFinished, KeyReused, NodeInContact, NodeRemoved, UnknownJob
from jobs.models import Batch, IdempotencyKey, Job, Transcript
from jobs.moves import move, tell, tell_node
from jobs.states import OBEY_SECONDS, Mode, Status
from nodes.models import Node
from presets import params, rendering
from presets import selectors as presets
from presets.documents import Preset
from presets.errors import UnknownPreset

DEFAULT_EXPIRY_SECONDS = 24 * 3600
EXPIRY_RANGE = (60, 30 * 24 * 3600)
TIMEOUT_RANGE = (1, 24 * 3600)
KEY_LIFETIME = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants to run, before it is known whether it can be.

    `allow_background`: what the script leaves running when it ends by itself is not ended with it.
    """

    preset: str
    variables: Mapping[str, Any]
    mode: str = Mode.APPLY
    confirm: str = ""
    timeout_seconds: int | None = None
    expires_in_seconds: int | None = None
    allow_background: bool = False

    def sha256(self, *, nodes: Iterable[str | list[str]]) -> str:
        """Tells whether a repeated request is the same request."""
        parts = [self.preset, self.variables, self.mode, self.confirm, self.timeout_seconds, self.expires_in_seconds]
        parts += [self.allow_background] if self.allow_background else []
        text = json.dumps([*parts, list(nodes)], sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Checked:
    """An order that can be run: rendered, with its limits settled."""

    preset: Preset
    rendered: rendering.Rendered
    variables: dict[str, Any]
    secrets: dict[str, str]
    mode: str
    timeout_seconds: int
    expires_in_seconds: int
    allow_background: bool


def queue_job(
    *, by: Actor, order: Order, node_id: str, idempotency_key: str = "", retry_of: uuid.UUID | None = None
) -> tuple[Job, bool]:
    """Render, freeze, sign and queue. Returns the job and whether it is new (False for a repeated key).

    Raises `InvalidInput` for an unknown node or preset and for each bad variable, `KeyReused`.
    """
    require(by, Capability.RUN_JOBS)
    digest = order.sha256(nodes=[node_id])
    if (before := find_key(by, idempotency_key, digest)) is not None and before.job_id is not None:
        return selectors.find_job(before.job_id), False
    checked = check_order(order, by)
    with transaction.atomic():
        key = claim_key(by, idempotency_key, digest)
        if key is not None and key.job_id is not None:
            return Job.objects.select_related("node").get(pk=key.job_id), False
        [node] = find_nodes([node_id], field="node_id")
        job = insert(by=by, checked=checked, node=node, retry_of=retry_of)
        if key is not None:
            IdempotencyKey.objects.filter(pk=key.pk).update(job=job)
        crash_point("CP01")
    crash_point("CP02")
    return job, True


def request_cancel(*, by: Actor, job_id: uuid.UUID | str, force: bool = False) -> Job:
    """Cancel a queued job at once, ask a running one's agent to, or with `force` give it up.

    Raises `UnknownJob`, `JobNotCancellable` for a finished one, `NodeInContact` for force without need.
    """
    require(by, Capability.FORCE_CANCEL if force else Capability.RUN_JOBS)
    why = f"{by.name} asked for it."
    with transaction.atomic():
        job = _lock(job_id)
        if job.status == Status.QUEUED:
            move(job, to=Status.CANCELLED, cancel_requested_at=Now(), cancelled_because=why)
            _note(Action.JOB_CANCELLED, by, job)
        elif job.status == Status.RUNNING and force:
            if not _is_out_of_reach(job):
                raise NodeInContact()
            move(job, to=Status.CANCELLED, cancel_requested_at=Now(), cancelled_because=why, outcome_unknown=True)
            _note(Action.JOB_FORCE_CANCELLED, by, job)
        elif job.status == Status.RUNNING:
            if job.cancel_requested_at is None:
                Job.objects.filter(pk=job.pk).update(cancel_requested_at=Now(), cancelled_because=why)
                job.refresh_from_db(fields=["cancel_requested_at", "cancelled_because"])
                _note(Action.JOB_CANCEL_REQUESTED, by, job)
                tell(job.pk, job.node_id, kind="status")
        else:
            raise JobNotCancellable()
        tell_node(job.node_id)
    return job


def _is_out_of_reach(job: Job) -> bool:
    """Its lease ran out, or it was asked to end a while ago and did not."""
    is_silent = Q(lease_expires_at=None) | Q(lease_expires_at__lte=Now())
    is_deaf = Q(cancel_requested_at__lte=Now() - timedelta(seconds=OBEY_SECONDS))
    return Job.objects.filter(is_silent | is_deaf, pk=job.pk).exists()


def retry_job(*, by: Actor, job_id: uuid.UUID | str) -> Job:
    """A new job with the same preset and variables; the old one stays as it is.

    Raises `UnknownJob`, `JobNotFinished`, `NodeRemoved`, `RowTampered`, `JobKeyUnknown`, `InvalidInput`.
    """
    require(by, Capability.RUN_JOBS)
    old = selectors.find_job(job_id)
    if not old.is_finished:
        raise JobNotFinished()
    if old.node.removed_at is not None:
        raise NodeRemoved()
    try:
        order = order_of(old)
    except RowTampered as error:
        audit.note_tampered(error, by=by, target=f"job:{old.pk}")
        raise
    job, _ = queue_job(by=by, order=order, node_id=old.node.node_id, retry_of=old.pk)
    return job


def order_of(job: Job) -> Order:
    """The same once more. Who writes into the database must not choose what is signed next, so the row is checked first.

    Raises `RowTampered`, `JobKeyUnknown`.
    """
    signatures.require_as_signed(job)
    return Order(
        preset=job.preset,
        variables={**job.variables, **payloads.secrets_in(bytes(job.payload))},
        mode=job.mode,
        confirm=job.preset,
        timeout_seconds=job.timeout_seconds,
        allow_background=job.allow_background,
    )


def cancel_jobs_of_removed_node(by: Actor, node: Node) -> None:
    """Queued jobs end, running ones are asked to; runs in the transaction that removes the node."""
    why = f"{by.name} removed its node."
    for job in Job.objects.unfinished(node_pk=node.pk).select_for_update():
        if job.status == Status.QUEUED:
            move(job, to=Status.CANCELLED, cancel_requested_at=Now(), cancelled_because=why)
            _note(Action.JOB_CANCELLED, by, job, why="node removed")
        elif job.cancel_requested_at is None:
            Job.objects.filter(pk=job.pk).update(cancel_requested_at=Now(), cancelled_because=why)
            _note(Action.JOB_CANCEL_REQUESTED, by, job, why="node removed")
            tell(job.pk, job.node_id, kind="status")


def note_cancelled(job: Job, *, by: Actor, why: str) -> None:
    """The entry for a queued job that ended because of something else than somebody's wish, in the caller's transaction."""
    _note(Action.JOB_CANCELLED, by, job, why=why)


def _lock(job_id: uuid.UUID | str) -> Job:
    try:
        return (
            Job.objects.select_for_update(of=("self",), no_key=True)
            .select_related("node")
            .get(pk=uuid.UUID(str(job_id)))
        )
    except (ValueError, Job.DoesNotExist):
        raise UnknownJob() from None


def _note(action: Action, by: Actor, job: Job, **detail: Any) -> None:
    facts = {"node_id": job.node.node_id, "preset": job.preset, **detail}
    audit.record(action, by=by, target=f"job:{job.pk}", detail=facts)


def _find_preset(name: str, by: Actor) -> Preset:
    """What is signed is rendered from this: a preset whose row was tampered with is refused, and that is noted."""
    try:
        return presets.find_preset(name)
    except UnknownPreset as error:
        raise InvalidInput(fields={"preset": [error.message]}) from None
    except RowTampered as error:
        audit.note_tampered(error, by=by, target=f"preset:{name}")
        raise


def check_order(order: Order, by: Actor) -> Checked:
    """Everything that can be wrong with an order, found at once."""
    problems: dict[str, list[str]] = {}
    preset = _find_preset(order.preset, by)
    mode = _mode(order, preset, problems)
    if preset.risk == "dangerous" and mode == Mode.APPLY and order.confirm != preset.name:
        problems["confirm"] = [f"This preset is dangerous: type its name, {preset.name}, to confirm."]
    default_timeout = preset.timeout_seconds
    timeout = _within(order.timeout_seconds, default_timeout, TIMEOUT_RANGE, "timeout_seconds", problems)
    expiry = _within(order.expires_in_seconds, DEFAULT_EXPIRY_SECONDS, EXPIRY_RANGE, "expires_in_seconds", problems)
    try:
        rendered = rendering.render(preset, order.variables)
    except params.InvalidVariables as error:
        problems.update({f"variables.{name}": sentences for name, sentences in error.fields.items()})
        raise InvalidInput(fields=problems) from None
    if problems:
        raise InvalidInput(fields=problems)
    secrets = dict(rendered.secrets)
    return Checked(preset, rendered, dict(rendered.variables), secrets, mode, timeout, expiry, order.allow_background)


def _mode(order: Order, preset: Preset, problems: dict[str, list[str]]) -> str:
    if order.mode not in Mode.values:
        problems["mode"] = [f"“{order.mode}” is not a mode: apply or check."]
    elif order.mode == Mode.CHECK and not preset.check:
        problems["mode"] = ["This preset has no check, so it can only be applied."]
    return order.mode


def _within(value: int | None, default: int, limits: tuple[int, int], name: str, problems: dict[str, list[str]]) -> int:
    if value is None:
        return default
    if not limits[0] <= value <= limits[1]:
        problems[name] = [f"A whole number of seconds from {limits[0]} to {limits[1]}."]
    return value


def find_nodes(node_ids: list[str], *, field: str) -> list[Node]:
    """The nodes by these names, in this order. Raises `InvalidInput` for one that is not there.

    One that was never seen may be named: who installs servers by program may queue the first job before the agent starts.
    """
    found = {node.node_id: node for node in Node.objects.present().named(node_ids)}
    unknown = [node_id for node_id in node_ids if node_id not in found]
    if unknown:
        raise InvalidInput(fields={field: [f"There is no node “{node_id}”." for node_id in unknown[:20]]})
    return [found[node_id] for node_id in node_ids]


def find_key(by: Actor, key: str, body_sha256: str) -> IdempotencyKey | None:
    """What the caller's key led to. The same request gets the same answer, though its preset may be gone by now."""
    if not key:
        return None
    _must_be_a_key(key)
    fresh = IdempotencyKey.objects.filter(user_id=by.id, key=key, created_at__gte=Now() - KEY_LIFETIME)
    row = fresh.first()
    if row is not None and row.body_sha256 != body_sha256:
        raise KeyReused()
    return row


def claim_key(by: Actor, key: str, body_sha256: str) -> IdempotencyKey | None:
    """The caller's key, locked. Two requests with the same key meet here, and the second one waits."""
    if not key:
        return None
    _must_be_a_key(key)
    IdempotencyKey.objects.filter(user_id=by.id, key=key, created_at__lt=Now() - KEY_LIFETIME).delete()
    IdempotencyKey.objects.bulk_create(
        [IdempotencyKey(user_id=by.id, key=key, body_sha256=body_sha256)], ignore_conflicts=True
    )
    row = IdempotencyKey.objects.select_for_update().get(user_id=by.id, key=key)
    if row.body_sha256 != body_sha256:
        raise KeyReused()
    return row


def _must_be_a_key(text: str) -> None:
    if len(text) > 200 or not text.isprintable():
        raise InvalidInput(fields={"Idempotency-Key": ["At most 200 printable characters."]})


def database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def insert(
    *,
    by: Actor,
    checked: Checked,
    node: Node,
    batch: Batch | None = None,
    retry_of: uuid.UUID | None = None,
    wave: int = 0,
) -> Job:
    """Frozen and signed, in the caller's transaction. Of all waves only the first may be claimed at once."""
    signer = signing.signer()
    job_id, now = uuid.uuid4(), database_now()
    expires_at = now + timedelta(seconds=checked.expires_in_seconds)
    rendered, preset = checked.rendered, checked.preset
    frozen = payloads.Frozen(
        job_id=str(job_id),
        node_id=node.node_id,
        mode=checked.mode,
        script=rendered.script,
        script_sha256=rendered.sha256,
        timeout_seconds=checked.timeout_seconds,
        created_at=now,
        expires_at=expires_at,
        environment={},
        secrets=checked.secrets,
        preset=preset.name,
        revision=rendered.revision,
        parts=list(rendered.parts),
        allow_background=checked.allow_background,
    )
    payload = payloads.encode(frozen, key_id=signer.key_id)
    job = Job.objects.create(
        id=job_id,
        node=node,
        batch=batch,
        retry_of_id=retry_of,
        wave=wave,
        held=wave > 0,
        created_by=by.name,
        author_id=by.id if by.kind is Kind.USER else None,
        created_at=now,
        expires_at=expires_at,
        preset=preset.name,
        preset_title=preset.title,
        risk=preset.risk,
        revision=rendered.revision,
        mode=checked.mode,
        parts=list(rendered.parts),
        variables=checked.variables,
        script=rendered.script,
        script_sha256=rendered.sha256,
        payload=payload,
        signature=signer.sign(signing.JOB_CONTEXT, payload),
        key_id=signer.key_id,
        timeout_seconds=checked.timeout_seconds,
        allow_background=checked.allow_background,
    )
    job.transcript = Transcript.objects.create(job=job)
    facts: dict[str, Any] = {"mode": checked.mode, "script_sha256": rendered.sha256, "revision": rendered.revision}
    if checked.allow_background:
        facts["allow_background"] = True
    _note(Action.JOB_QUEUED, by, job, **facts, **({"retry_of": str(retry_of)} if retry_of else {}))
    tell(job.pk, node.pk, kind="status")
    tell_node(node.pk)
    return job


def old_keys() -> QuerySet[IdempotencyKey]:
    """Idempotency keys past their day."""
    return IdempotencyKey.objects.filter(Q(created_at__lt=Now() - KEY_LIFETIME))


def forget_old_keys() -> int:
    """Delete them; returns how many went."""
    return old_keys().delete()[0]
