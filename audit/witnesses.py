"""Agents keep our checkpoints as witnesses; one that was handed two which contradict each other says so.

Both are signed with our key, so together they prove that the log was written anew or went on twice, whoever brings them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from django.db import transaction

from audit import checkpoints, services
from audit.actions import Action
from audit.models import Event
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor, Capability, require

log = structlog.get_logger(__name__)


def note_fork(kept: Mapping[str, Any], refused: Mapping[str, Any], *, by: Actor) -> bool:
    """Record what an agent told, once; whether it is a proof. What is none is only logged: anybody can make it up."""
    require(by, Capability.REPORT)
    if not _is_proof(kept, refused):
        log.warning("audit.fork_unproven", node=by.name, n=kept["n"])
        return False
    target = f"audit:{kept['n']}"
    log.error("audit.forked", node=by.name, n=kept["n"], kept=kept["hash"], refused=refused["hash"])
    with transaction.atomic():
        told = Event.objects.filter(action=Action.AUDIT_FORKED, actor_id=by.id, target=target)
        if not told.filter(detail__refused__hash=refused["hash"]).exists():
            detail = {"kept": dict(kept), "refused": dict(refused), "log_has": _log_has(kept, refused)}
            services.record(Action.AUDIT_FORKED, by=by, target=target, detail=detail)
    return True


def _is_proof(kept: Mapping[str, Any], refused: Mapping[str, Any]) -> bool:
    signer = signing.signer()
    is_contradiction = kept["n"] == refused["n"] and kept["hash"] != refused["hash"]
    return is_contradiction and all(checkpoints.is_ours(one, signer) for one in (kept, refused))


def _log_has(kept: Mapping[str, Any], refused: Mapping[str, Any]) -> str:
    found = Event.objects.filter(n=kept["n"]).values_list("hash", flat=True).first()
    digest = "" if found is None else bytes(found).hex()
    return {kept["hash"]: "kept", refused["hash"]: "refused"}.get(digest, "neither")
