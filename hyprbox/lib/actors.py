"""Who acts, and what they may do. Every verb in a `services.py` starts with `require(by, Capability.X)`."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.db import models
from django.http import HttpRequest
from django.utils import timezone

from hyprbox.lib.errors import Forbidden, NotAuthenticated, SecondFactorRequired, StepUpRequired


class Role(models.TextChoices):
    """A person's role. Each one may do all that the one before it may."""

    VIEWER = "viewer", "Viewer"
    OPERATOR = "operator", "Operator"
    ADMIN = "admin", "Admin"


class Capability(enum.StrEnum):
    """One thing that someone may or may not do."""

    VIEW_FLEET = "view_fleet"
    VIEW_OUTPUT = "view_output"  # a job's script, variables, output and stream
    RUN_JOBS = "run_jobs"  # queue, cancel, retry
    EDIT_NODES = "edit_nodes"  # names, groups, tags, notes
    FORCE_CANCEL = "force_cancel"
    REMOVE_NODES = "remove_nodes"
    MANAGE_TOKENS = "manage_tokens"
    MANAGE_PRESETS = "manage_presets"
    MANAGE_USERS = "manage_users"
    VIEW_AUDIT = "view_audit"
    VIEW_OWN_AUDIT = "view_own_audit"  # what one did oneself, and whether the log is intact
    OWN_ACCOUNT = "own_account"  # one's own password, sessions and keys; never with a key
    REPORT = "report"  # an agent, about its own node


_VIEWER = frozenset({Capability.VIEW_FLEET, Capability.OWN_ACCOUNT})
_OPERATOR = _VIEWER | {
    Capability.VIEW_OUTPUT,
    Capability.RUN_JOBS,
    Capability.EDIT_NODES,
    Capability.VIEW_OWN_AUDIT,
}
_ADMIN = _OPERATOR | {
    Capability.FORCE_CANCEL,
    Capability.REMOVE_NODES,
    Capability.MANAGE_TOKENS,
    Capability.MANAGE_PRESETS,
    Capability.MANAGE_USERS,
    Capability.VIEW_AUDIT,
}
CAPABILITIES: dict[str, frozenset[Capability]] = {Role.VIEWER: _VIEWER, Role.OPERATOR: _OPERATOR, Role.ADMIN: _ADMIN}


class Scope(models.TextChoices):
    """What an API key is for. It never allows more than its owner's role does at that moment."""

    READ = "read", "Read"
    RUN = "run", "Run jobs"
    ADMIN = "admin", "Administer"


_READ = frozenset({Capability.VIEW_FLEET, Capability.VIEW_OUTPUT, Capability.VIEW_AUDIT, Capability.VIEW_OWN_AUDIT})
_RUN = frozenset({Capability.RUN_JOBS, Capability.EDIT_NODES, Capability.FORCE_CANCEL})
# One's own password, sessions and keys are in no scope: a key that leaked makes no other one.
SCOPES: dict[str, frozenset[Capability]] = {
    Scope.READ: _READ,
    Scope.RUN: _READ | _RUN,
    Scope.ADMIN: frozenset(Capability) - {Capability.OWN_ACCOUNT, Capability.REPORT},
}


class Kind(enum.StrEnum):
    """What sort of caller an actor is."""

    USER = "user"
    AGENT = "agent"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is behind a request, a command or a background task.

    `id` is the user's or the node's primary key as text, `name` what the audit shows (e-mail, node_id),
    `ip` the client's address as far as it can be trusted, `session` the id of the page session or of the family of
    refresh tokens it came with (empty for keys and agents), `fresh_until` until when that is good for sensitive acts,
    `key` the prefix of the API key that a program came with instead. `has_factor`: the person has a second factor;
    `needs_factor`: their role asks for one that they do not have yet, and until then they may do nothing else.
    """

    kind: Kind
    id: str = ""
    name: str = ""
    capabilities: frozenset[Capability] = field(default_factory=frozenset)
    role: str = ""
    ip: str = ""
    request_id: str = ""
    session: str = ""
    fresh_until: datetime | None = None
    key: str = ""
    has_factor: bool = False
    needs_factor: bool = False

    @classmethod
    def anonymous(cls, *, ip: str = "", request_id: str = "") -> Actor:
        return cls(Kind.ANONYMOUS, name="anonymous", ip=ip, request_id=request_id)

    @classmethod
    def system(cls, name: str) -> Actor:
        """A command on the control plane's own host, or a background task: it may do everything."""
        return cls(Kind.SYSTEM, name=name, capabilities=frozenset(Capability))

    @classmethod
    def user(
        cls,
        *,
        id: str,
        name: str,
        role: str,
        ip: str = "",
        request_id: str = "",
        session: str = "",
        fresh_until: datetime | None = None,
        scopes: Iterable[str] | None = None,
        key: str = "",
        has_factor: bool = False,
        needs_factor: bool = False,
    ) -> Actor:
        """A person; with `scopes` a program that shows one of this person's keys."""
        allowed = CAPABILITIES.get(role, frozenset())
        if scopes is not None:
            allowed &= frozenset().union(*(SCOPES.get(scope, frozenset()) for scope in scopes))
        if needs_factor:
            allowed &= {Capability.OWN_ACCOUNT}
        return cls(
            Kind.USER, id, name, allowed, role, ip, request_id, session, fresh_until, key, has_factor, needs_factor
        )

    @classmethod
    def agent(cls, *, id: str, name: str, ip: str = "", request_id: str = "") -> Actor:
        return cls(Kind.AGENT, id, name, frozenset({Capability.REPORT}), ip=ip, request_id=request_id)

    @property
    def is_known(self) -> bool:
        return self.kind is not Kind.ANONYMOUS

    def can(self, capability: str) -> bool:
        return capability in self.capabilities


def require(by: Actor, capability: Capability) -> None:
    """Raises `NotAuthenticated` for callers without a credential, `Forbidden` for those who may not."""
    if by.can(capability):
        return
    if by.needs_factor:
        raise SecondFactorRequired()
    raise Forbidden() if by.is_known else NotAuthenticated()


def require_fresh(by: Actor) -> None:
    """For sensitive acts, right after `require`: people with a second factor have shown it within the last minutes.

    Raises `StepUpRequired`; for API keys always, since a program has none to show.
    """
    if by.needs_factor:
        raise SecondFactorRequired()
    if not by.has_factor or (by.fresh_until is not None and by.fresh_until > timezone.now()):
        return
    if by.key:
        raise StepUpRequired("Its owner has a second factor, which an API key cannot show: do this signed in.")
    raise StepUpRequired()


def set_actor(request: HttpRequest, actor: Actor) -> None:
    """Note who is behind a request; once, by the middleware."""
    request.actor = actor  # type: ignore[attr-defined]


def actor_of(request: HttpRequest) -> Actor:
    """Who is behind a request, known or anonymous."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    return actor
