"""Logging in and out, and the tokens that come of it. People are in `people`, passwords in `passwords`."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from accounts import factors, families, hashing, jwt, logins, rates
from accounts.errors import RefreshTokenInvalid, WrongCredentials
from accounts.models import PageSession, RefreshFamily, User
from accounts.selectors import actor_for, find_active, find_by_email, find_family
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.errors import NotAuthenticated

GRACE = timedelta(seconds=10)
MAX_PASSWORD = 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """What a login gives to the API's caller."""

    user: User
    tokens: jwt.Pair


def check_credentials(*, email: str, password: str, by: Actor, otp: str = "") -> User:
    """The user, or `WrongCredentials` with the same work done for unknown, wrong and disabled ones.

    Who has a second factor shows it in `otp`; a wrong or missing one is like a wrong password.
    """
    return _checked(
        email,
        password,
        by,
        lambda user: factors.passes_login(user, otp, by=by),
        lambda counter: factors.pretend_to_check(counter, otp, by=by),
    )


def check_password(*, email: str, password: str, by: Actor) -> User:
    """The same without the second factor, which is the caller's to ask for."""
    return _checked(email, password, by, lambda _user: True, lambda _counter: None)


def _checked(
    email: str, password: str, by: Actor, passes: Callable[[User], bool], pretend: Callable[[str], None]
) -> User:
    """The attempt counts before the password is looked at, so that of many at once only as many as the limits allow are.

    `pretend` does the work of `passes` where that is not asked, so that a right password takes no longer than a wrong one.
    """
    rates.take_from(by.ip, "login")
    user = find_by_email(email)
    counter = rates.account_key(str(user.pk) if user else email.strip().lower())
    rates.reserve(counter)
    is_right = hashing.is_right(password[:MAX_PASSWORD], user)
    if user is not None and is_right and user.is_active:
        if passes(user):
            rates.forget(counter)
            return user
    else:
        pretend(counter)
    note_failure(by=by, email=email)
    raise WrongCredentials()


@transaction.atomic
def note_failure(*, by: Actor, email: str, why: str = "") -> None:
    """Record a login that failed, under the address that was given."""
    detail = {"why": why} if why else {}
    audit.record(Action.LOGIN_FAILED, by=by, target=_named(email.strip()), detail=detail)


def _named(email: str) -> str:
    """What was given as an address, if it is one: people type their password into the wrong field."""
    try:
        validate_email(email)
    except ValidationError:
        return "user:(no address)"
    return f"user:{email[:200]}"


@transaction.atomic
def note_login(*, user: User, by: Actor, via: str) -> Actor:
    """Record a successful login; returns the user as an actor."""
    actor = actor_for(user, ip=by.ip, request_id=by.request_id)
    User.objects.filter(pk=user.pk).update(last_login=Now())
    audit.record(Action.LOGIN_SUCCEEDED, by=actor, target=f"user:{user.email}", detail={"via": via})
    return actor


def log_in(*, email: str, password: str, by: Actor, otp: str = "", user_agent: str = "") -> Session:
    """Check the password and start a family of refresh tokens."""
    user = check_credentials(email=email, password=password, otp=otp, by=by)
    with transaction.atomic():
        note_login(user=user, by=by, via="api")
        return start_family(user, by=by, user_agent=user_agent)


def start_family(user: User, *, by: Actor, user_agent: str) -> Session:
    """Tokens for someone who has just proven who they are; in the caller's transaction."""
    now = _whole_second()
    family = RefreshFamily(
        user=user,
        token_version=user.token_version,
        ip=by.ip,
        user_agent=user_agent[:200],
        rotated_at=now,
        expires_at=now + jwt.ABSOLUTE_LIFETIME,
    )
    families.put_seal(family)
    families.put_fresh(family, now + factors.FRESH_FOR if user.has_factor else None)
    token = jwt.first_refresh(family)
    family.digest = _digest(token)
    family.save(force_insert=True)
    return Session(user, jwt.Pair(jwt.access_token(user, family.pk), token))


def refresh(*, token: str, by: Actor, user_agent: str = "") -> jwt.Pair:
    """Swap a refresh token for a new pair. An old one that comes back revokes its whole family.

    The client that swapped a token gets the same successor again for 10 s, since the first answer may have been lost.
    """
    rates.take_from(by.ip, "refresh")
    given = jwt.read_refresh(token)
    family = find_family(str(given.family), given.user_id)
    if family is None:
        raise RefreshTokenInvalid()
    client, now = _client(by, user_agent), _whole_second()
    new = jwt.successor(family, token, now)
    with transaction.atomic():
        swapped = RefreshFamily.objects.filter(pk=family.pk, digest=_digest(token), revoked_at=None).update(
            digest=_digest(new),
            previous_digest=_digest(token),
            rotated_at=now,
            rotated_by=client,
            last_used_at=Now(),
            ip=by.ip,
        )
        again = "" if swapped else _answer_again(family.pk, token, client)
        has_ended = not swapped and not again and _revoke_reused(family, by)
    if not swapped and not again:
        error = RefreshTokenInvalid()
        error.ended_for = family.user_id if has_ended else None
        raise error
    return jwt.Pair(jwt.access_token(family.user, family.pk), new if swapped else again)


def _answer_again(family_id: uuid.UUID, token: str, client: bytes) -> str:
    """The successor that `token` was swapped for moments ago by this client, or an empty string."""
    previous = {"previous_digest": _digest(token), "rotated_by": client, "rotated_at__gt": Now() - GRACE}
    family = RefreshFamily.objects.filter(pk=family_id, revoked_at=None, **previous).first()
    if family is None:
        return ""
    return jwt.successor(family, token, family.rotated_at)


def _revoke_reused(family: RefreshFamily, by: Actor) -> bool:
    """Whether it was this call that ended it."""
    if not RefreshFamily.objects.filter(pk=family.pk, revoked_at=None).update(revoked_at=Now()):
        return False
    live.publish(live.CREDENTIALS, user=family.user_id)
    detail = {"session": str(family.pk)}
    audit.record(Action.REFRESH_REUSED, by=by, target=f"user:{family.user.email}", detail=detail)
    log.warning("refresh.reused", user=str(family.user_id), ip=by.ip)
    return True


@transaction.atomic
def log_out(*, by: Actor, refresh_token: str = "", everywhere: bool = False) -> None:
    """End what the caller came with and the family of `refresh_token`; with `everywhere` all of the caller's.

    A refresh token is enough: its access token may be over. Raises `NotAuthenticated` without either.
    """
    user = None
    if everywhere:
        require(by, Capability.OWN_ACCOUNT)
        user = logins.locked(by.id)
        logins.end_all(user)
    ending = RefreshFamily.objects.none()
    if refresh_token:
        ending |= RefreshFamily.objects.filter(pk=jwt.read_refresh(refresh_token).family)
    elif not by.is_known:
        raise NotAuthenticated()
    if by.session:
        ending |= RefreshFamily.objects.filter(pk=by.session)
        PageSession.objects.filter(pk=by.session).delete()
    ended = list(ending.filter(revoked_at=None).select_related("user").select_for_update(of=("self",)))
    RefreshFamily.objects.filter(pk__in=[family.pk for family in ended]).update(revoked_at=Now())
    target = by.name if by.is_known else next((family.user.email for family in ended), "")
    for user_pk in {by.id, *(str(family.user_id) for family in ended)} - {""}:
        live.publish(live.CREDENTIALS, user=user_pk)
    if target:
        audit.record(Action.LOGOUT_DONE, by=by, target=f"user:{target}", detail={"everywhere": everywhere}, row=user)


def whoami(*, by: Actor) -> User:
    """The caller's own row."""
    user = find_active(by.id)
    if user is None:
        raise NotAuthenticated()
    return user


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _client(by: Actor, user_agent: str) -> bytes:
    """The same program on the same network, as far as a request shows it."""
    return hashlib.sha256(f"{by.ip}\n{user_agent}".encode("utf-8", "replace")).digest()


def _whole_second() -> datetime:
    return timezone.now().replace(microsecond=0)
