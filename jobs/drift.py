"""Drift: presets pinned to nodes, and the check jobs that tell each night whether they still hold.

A pin acts as its owner. Whatever leads to a job is asked again when it is due: the owner's rights, the pin's seal, the
preset and its values. A pin that fails one of these is paused and says why; it never checks less than it shows.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import structlog
from django.db import IntegrityError, transaction

from accounts.selectors import actor_for, find_active
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Capability, require, require_fresh
from hyprbox.lib.errors import Conflict, HyprBoxError, InvalidInput
from hyprbox.lib.rowmac import RowTampered
from jobs import batches, services
from jobs.errors import PinExists, PinMatchesNothing, UnknownPin
from jobs.models import Batch, DriftCheck, Job, Pin
from jobs.states import Mode
from nodes.models import Node
from presets import params
from presets import selectors as presets
from presets.documents import Preset
from presets.errors import UnknownPreset

# Checks begin at 01:00 UTC, each at a minute of its own within four hours. A pin that missed its minute, because it is
# new or the worker was away, is checked as soon as it can be.
FIRST_MINUTE = 60
SPREAD_MINUTES = 240
EXPIRY_SECONDS = 12 * 3600

log = structlog.get_logger(__name__)


def create_pin(*, by: Actor, preset: str, variables: Mapping[str, Any], node_id: str = "", tag: str = "") -> Pin:
    """Watch a preset on one node or on all that have a tag, from now on. Raises `InvalidInput`, `PinExists`."""
    require(by, Capability.MANAGE_PRESETS)
    require(by, Capability.RUN_JOBS)
    require_fresh(by)
    owner = find_active(by.id)
    if owner is None:
        raise InvalidInput(fields={"owner": ["A pin needs an owner: a person, as whom it checks."]})
    checked = _checked_values(_find(preset), variables)
    node = _target(node_id, tag)
    pin = Pin(
        preset=preset,
        variables=checked,
        digest=_digest(checked),
        node=node,
        tag=tag,
        owner_id=owner.pk,
        owner_name=owner.email,
    )
    with transaction.atomic():
        try:
            with transaction.atomic():
                sealed.create(pin)
        except IntegrityError:
            raise PinExists() from None
        audit.record(Action.PIN_CREATED, by=by, target=f"pin:{pin.pk}", detail=_facts(pin), row=pin)
    return pin


@transaction.atomic
def remove_pin(*, by: Actor, pin_id: uuid.UUID | str) -> None:
    """Stop watching; what was found goes with it, the jobs stay. Works on a tampered pin too."""
    require(by, Capability.MANAGE_PRESETS)
    require_fresh(by)
    pin = Pin.objects.select_for_update(of=("self",)).select_related("node").filter(pk=_uuid(pin_id)).first()
    if pin is None:
        raise UnknownPin()
    audit.record(Action.PIN_REMOVED, by=by, target=f"pin:{pin.pk}", detail=_facts(pin), row=sealed.end(pin))
    pin.delete()


@transaction.atomic
def resume_pin(*, by: Actor, pin_id: uuid.UUID | str) -> Pin:
    """Check again, from now on as the one who resumes. Raises `UnknownPin`, `InvalidInput`, `RowTampered`."""
    require(by, Capability.MANAGE_PRESETS)
    require_fresh(by)
    owner = find_active(by.id)
    pin = sealed.lock(Pin.objects.select_related("node").filter(pk=_uuid(pin_id)))
    if pin is None or owner is None:
        raise UnknownPin()
    _checked_values(_find(pin.preset), pin.variables)
    pin.owner_id, pin.owner_name, pin.paused_because = owner.pk, owner.email, ""
    sealed.save(pin, "owner_id", "owner_name", "paused_because")
    audit.record(Action.PIN_CHANGED, by=by, target=f"pin:{pin.pk}", detail=_facts(pin), row=pin)
    return pin


def check_now(*, by: Actor, pin_id: uuid.UUID | str) -> tuple[Batch, list[Job]]:
    """Queue a check on every node of the pin, as the one who asks. Raises `UnknownPin`, `PinMatchesNothing`."""
    require(by, Capability.RUN_JOBS)
    with transaction.atomic():
        pin = sealed.first(Pin.objects.filter(pk=_uuid(pin_id)))
        if pin is None:
            raise UnknownPin()
        reached = [node.node_id for node in targets(pin) if node.was_seen]
        if not reached:
            raise PinMatchesNothing()
        batch, jobs, _ = batches.queue(by=by, order=_order(pin), node_ids=reached[: batches.MAX_BATCH])
        DriftCheck.objects.bulk_create(DriftCheck(pin=pin, node_id=job.node_id, job=job) for job in jobs)
    return batch, jobs


def queue_due(now: datetime | None = None) -> int:
    """Queue today's checks whose minute has come; returns how many. Any number of workers may do it at once."""
    moment = now or services.database_now()
    return sum(_queue_due_of(pin, moment) for pin in sealed.with_newest(Pin.objects.filter(paused_because="")))


def targets(pin: Pin) -> list[Node]:
    """The nodes that a pin stands for now."""
    present = Node.objects.present()
    return list((present.filter(pk=pin.node_id) if pin.node_id else present.tagged(pin.tag)).order_by("node_id"))


def minute_of(pin_id: uuid.UUID, node_pk: uuid.UUID) -> int:
    """The minute of the day, in UTC, at which a node is checked for a pin; always the same one."""
    digest = hashlib.sha256(f"{pin_id}:{node_pk}".encode()).digest()
    return FIRST_MINUTE + int.from_bytes(digest[:4], "big") % SPREAD_MINUTES


def _queue_due_of(pin: Pin, moment: datetime) -> int:
    actor = _owner(pin)
    if actor is None:
        return 0
    minute, day = moment.hour * 60 + moment.minute, moment.date()
    done = set(DriftCheck.objects.filter(pin=pin, day=day).values_list("node_id", flat=True))
    reached = [node for node in targets(pin) if node.was_seen and node.pk not in done]
    due = [node for node in reached if minute_of(pin.pk, node.pk) <= minute]
    queued = 0
    for node in due:
        try:
            queued += _queue_one(pin, node, day, actor)
        except (InvalidInput, Conflict, RowTampered) as error:
            _pause(pin, _sentence(error))
            break
    return queued


def _queue_one(pin: Pin, node: Node, day: Any, actor: Actor) -> bool:
    """The row and the job commit together, and there is one row a day: a second worker finds it and does nothing."""
    try:
        with transaction.atomic():
            check = DriftCheck.objects.create(pin=pin, node=node, day=day)
            job, _ = services.queue_job(by=actor, order=_order(pin), node_id=node.node_id)
            DriftCheck.objects.filter(pk=check.pk).update(job=job)
    except IntegrityError:
        return False
    return True


def _owner(pin: Pin) -> Actor | None:
    """The one as whom the pin acts, if everything is still in order; else it is paused."""
    try:
        sealed.check(pin)
    except RowTampered as error:
        audit.note_tampered(error, by=_SYSTEM, target=f"pin:{pin.pk}")
        _pause(pin, "It was changed by something else than HyprBox: remove it, and pin again what you want watched.")
        return None
    user = find_active(str(pin.owner_id))
    if user is None:
        _pause(pin, f"Its owner {pin.owner_name} was disabled: an admin can take it over.")
        return None
    actor = actor_for(user)
    if not actor.can(Capability.RUN_JOBS):
        _pause(pin, f"Its owner {pin.owner_name} may not run jobs any more: an admin can take it over.")
        return None
    return actor


@transaction.atomic
def _pause(pin: Pin, why: str) -> None:
    if Pin.objects.filter(pk=pin.pk, paused_because="").update(paused_because=why[:300]):
        log.warning("drift.paused", pin=str(pin.pk), preset=pin.preset, why=why)
        audit.record(Action.PIN_PAUSED, by=_SYSTEM, target=f"pin:{pin.pk}", detail={"preset": pin.preset, "why": why})


_SYSTEM = Actor.system("drift")


def _order(pin: Pin) -> services.Order:
    return services.Order(pin.preset, pin.variables, mode=Mode.CHECK, expires_in_seconds=EXPIRY_SECONDS)


def _find(name: str) -> Preset:
    try:
        return presets.find_preset(name)
    except UnknownPreset as error:
        raise InvalidInput(fields={"preset": [error.message]}) from None


def _checked_values(preset: Preset, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `InvalidInput` for a preset that cannot be checked and for each bad value."""
    problems: dict[str, list[str]] = {}
    if not preset.check:
        problems["preset"] = ["This preset has no check part, so nothing can tell whether it drifted."]
    try:
        params.validate(preset.variables, variables)
    except params.InvalidVariables as error:
        problems |= {f"variables.{name}": sentences for name, sentences in error.fields.items()}
    if problems:
        raise InvalidInput(fields=problems)
    return dict(variables)


def _target(node_id: str, tag: str) -> Node | None:
    if bool(node_id) == bool(tag):
        raise InvalidInput(fields={"node_id": ["Name either a node or a tag."]})
    if tag:
        if Node.objects.present().tagged(tag).exists():
            return None
        raise InvalidInput(fields={"tag": [f"No node has the tag “{tag[:63]}”."]})
    node = Node.objects.present().called(node_id).first()
    if node is None:
        raise InvalidInput(fields={"node_id": [f"There is no node “{node_id[:63]}”."]})
    return node


def _digest(variables: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(variables, sort_keys=True, default=str).encode()).hexdigest()


def _facts(pin: Pin) -> dict[str, Any]:
    target = f"tag {pin.tag}" if pin.tag else f"node {pin.node.node_id if pin.node else ''}"
    return {"preset": pin.preset, "on": target, "owner": pin.owner_name}


def _sentence(error: HyprBoxError) -> str:
    sentences: Iterable[str] = [sentence for found in error.fields.values() for sentence in found]
    return f"It cannot be checked any more: {' '.join(sentences) or error.message}"


def _uuid(text: uuid.UUID | str) -> uuid.UUID:
    try:
        return uuid.UUID(str(text))
    except ValueError:
        raise UnknownPin() from None
