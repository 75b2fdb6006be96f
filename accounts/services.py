"""Logging in and out, tokens, and the people themselves."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from accounts import jwt, rates
from accounts.errors import EmailTaken, RefreshTokenInvalid, RegistrationClosed, WrongCredentials
from accounts.models import RefreshFamily, User
from accounts.selectors import actor_for, find_active
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Capability, Kind, Role, require
from hyprbox.lib.errors import InvalidInput, NotAuthenticated
from hyprbox.lib.ids import rate_key

# bcrypt takes ~0.2 s of a core: more than four at once would starve everything else in the process.
_HASHERS = threading.BoundedSemaphore(4)
LOGINS_PER_MINUTE = 10
REGISTRATIONS_PER_MINUTE = 5


@dataclass(frozen=True, slots=True)
class Session:
    """What a login gives to the API's caller."""

    user: User
    tokens: jwt.Pair


def check_credentials(*, email: str, password: str, by: Actor) -> User:
    """The user, or `WrongCredentials` with the same work done for unknown, wrong and disabled ones."""
    account = f"login-account:{email.strip().lower()[:150]}"
    rates.take(f"login-ip:{rate_key(by.ip)}", limit=LOGINS_PER_MINUTE)
    rates.refuse_while_blocked(account)
    user = User.objects.filter(email__iexact=email.strip()).first() if "\0" not in email else None
    with _HASHERS:
        if user is None:
            make_password(password[:1024])
            is_right = False
        else:
            is_right = check_password(password, user.password)
    if user is not None and is_right and user.is_active:
        rates.forget(account)
        return user
    with transaction.atomic():
        rates.note_failure(account)
        audit.record(Action.LOGIN_FAILED, by=by, target=f"user:{email.strip()[:200]}")
    raise WrongCredentials()


@transaction.atomic
def note_login(*, user: User, by: Actor, via: str) -> Actor:
    """Record a successful login; returns the user as an actor."""
    actor = actor_for(user, ip=by.ip, request_id=by.request_id)
    User.objects.filter(pk=user.pk).update(last_login=Now())
    audit.record(Action.LOGIN_SUCCEEDED, by=actor, target=f"user:{user.email}", detail={"via": via})
    return actor


def log_in(*, email: str, password: str, by: Actor) -> Session:
    """Check the password and start a family of refresh tokens."""
    user = check_credentials(email=email, password=password, by=by)
    with transaction.atomic():
        note_login(user=user, by=by, via="api")
        return Session(user, _new_family(user))


def _new_family(user: User) -> jwt.Pair:
    family_id = uuid.uuid4()
    refresh = jwt.refresh_token(user, family_id)
    RefreshFamily.objects.create(
        id=family_id,
        user=user,
        current_jti=refresh["jti"],
        expires_at=timezone.now() + jwt.ABSOLUTE_LIFETIME,
    )
    return jwt.Pair(jwt.access_token(user), str(refresh))


def refresh(*, token: str, by: Actor) -> jwt.Pair:
    """Swap a refresh token for a new pair. An old one that comes back revokes its whole family."""
    user_id, version, family_id, jti = jwt.read_refresh(token)
    user = find_active(user_id)
    if user is None or user.token_version != version:
        raise RefreshTokenInvalid()
    new = jwt.refresh_token(user, family_id)
    with transaction.atomic():
        moved = RefreshFamily.objects.filter(
            pk=family_id, user=user, current_jti=jti, revoked_at=None, expires_at__gt=Now()
        ).update(current_jti=new["jti"])
        if moved:
            return jwt.Pair(jwt.access_token(user), str(new))
        killed = RefreshFamily.objects.filter(pk=family_id, revoked_at=None).update(revoked_at=Now())
        if killed:
            audit.record(Action.REFRESH_REUSED, by=by, target=f"user:{user.email}")
    raise RefreshTokenInvalid()


@transaction.atomic
def log_out(*, by: Actor, refresh_token: str = "", everywhere: bool = False) -> None:
    """End one family, or with `everywhere` every token and page session of the caller."""
    if everywhere and by.kind is Kind.USER:
        User.objects.filter(pk=by.id).update(token_version=F("token_version") + 1)
        RefreshFamily.objects.filter(user_id=by.id, revoked_at=None).update(revoked_at=Now())
    elif refresh_token:
        _, _, family_id, _ = jwt.read_refresh(refresh_token)
        RefreshFamily.objects.filter(pk=family_id, revoked_at=None).update(revoked_at=Now())
    if by.is_known:
        audit.record(Action.LOGOUT_DONE, by=by, target=f"user:{by.name}", detail={"everywhere": everywhere})


def check_password_rules(password: str, user: User | None = None) -> None:
    """Raises `InvalidInput` naming every rule that `password` breaks."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvalidInput(fields={"password": list(error.messages)}) from None


def create_user(*, by: Actor, email: str, password: str, name: str = "", role: str = Role.VIEWER) -> User:
    """A new person. Raises `InvalidInput` or `EmailTaken`."""
    require(by, Capability.MANAGE_USERS)
    return _create(by=by, email=email, password=password, name=name, role=role)


def register(*, by: Actor, email: str, password: str, name: str, is_open: bool) -> Session:
    """Someone makes an account for themselves, where that is allowed; the very first one becomes admin."""
    if not is_open:
        raise RegistrationClosed()
    rates.take(f"register-ip:{rate_key(by.ip)}", limit=REGISTRATIONS_PER_MINUTE)
    with transaction.atomic():
        with connection.cursor() as cursor:  # two first users at once: exactly one becomes admin
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('accounts.first_user'))")
        role = Role.VIEWER if User.objects.exists() else Role.ADMIN
        user = _create(by=by, email=email, password=password, name=name, role=role)
        return Session(user, _new_family(user))


@transaction.atomic
def _create(*, by: Actor, email: str, password: str, name: str, role: str) -> User:
    email = email.strip()
    user = User(email=User.objects.normalize_email(email), name=name.strip() or email.partition("@")[0], role=role)
    try:
        validate_email(email)
    except ValidationError:
        raise InvalidInput(fields={"email": [f"“{email}” is not an e-mail address."]}) from None
    if role not in Role.values:
        raise InvalidInput(fields={"role": [f"One of {', '.join(Role.values)}."]})
    check_password_rules(password, user)
    with _HASHERS:
        user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise EmailTaken() from None
    audit.record(Action.USER_CREATED, by=by, target=f"user:{user.email}", detail={"role": role})
    return user


def change_password(*, by: Actor, current: str, new: str) -> None:
    """Set a new password; every other token and session of the user dies."""
    user = find_active(by.id)
    if user is None:
        raise WrongCredentials()
    rates.refuse_while_blocked(f"login-account:{user.email.lower()}")
    with _HASHERS:
        is_right = check_password(current, user.password)
    if not is_right:
        rates.note_failure(f"login-account:{user.email.lower()}")
        raise InvalidInput(fields={"current": ["This is not your current password."]})
    try:
        check_password_rules(new, user)
    except InvalidInput as error:
        raise InvalidInput(fields={"new": error.fields["password"]}) from None
    with _HASHERS:
        digest = make_password(new)
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(password=digest, token_version=F("token_version") + 1)
        RefreshFamily.objects.filter(user=user, revoked_at=None).update(revoked_at=Now())
        audit.record(Action.PASSWORD_CHANGED, by=by, target=f"user:{user.email}")


@transaction.atomic
def set_password(*, by: Actor, email: str, password: str) -> None:
    """An admin, or someone on the host, sets another's password."""
    require(by, Capability.MANAGE_USERS)
    user = User.objects.filter(email__iexact=email).first()
    if user is None:
        raise InvalidInput(fields={"email": [f"There is no user “{email}”."]})
    check_password_rules(password, user)
    User.objects.filter(pk=user.pk).update(
        password=make_password(password), is_active=True, token_version=F("token_version") + 1
    )
    audit.record(Action.PASSWORD_CHANGED, by=by, target=f"user:{user.email}")


def password_problems(password: str, user: User | None = None) -> list[str]:
    """The rules that a password breaks, as sentences."""
    try:
        check_password_rules(password, user)
    except InvalidInput as error:
        return error.fields["password"]
    return []


def whoami(*, by: Actor) -> User:
    """The caller's own row."""
    user = find_active(by.id)
    if user is None:
        raise NotAuthenticated()
    return user
