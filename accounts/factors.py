"""Second factors: codes of an authenticator app, recovery codes and passkeys; showing one, and showing it again.

What a user has is under the seal of their row: nobody takes a factor away, or puts one there, by writing into the database.
"""

from __future__ import annotations

import contextlib
import hmac
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyotp
import structlog
from django.db import transaction

from accounts import families, logins, passkeys, passwords, rates, recovery
from accounts.errors import FactorNeeded, NoFactor, OwnAccount, StepUpImpossible, UnknownPasskey
from accounts.models import Passkey, RefreshFamily, User
from accounts.selectors import find_active
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import secretbox
from hyprbox.lib.actors import Actor, Capability, require, require_fresh
from hyprbox.lib.db import database_now
from hyprbox.lib.errors import Conflict, InvalidInput, NotAuthenticated, RateLimited

log = structlog.get_logger(__name__)

FRESH_FOR = timedelta(minutes=5)
STEP_SECONDS = 30
DIGITS = 6
WRONG = "This code is not right, or was used before."
WRONG_PASSKEY = "This passkey is not one of yours, or it was asked for too long ago: try again."


@dataclass(frozen=True, slots=True)
class Proof:
    """What someone shows: a code of the app or a recovery code, or a passkey's answer to `challenge`."""

    otp: str = ""
    passkey: str = ""
    challenge: bytes = b""


# --- showing a factor ---


def is_proven(user: User, proof: Proof, *, by: Actor) -> bool:
    """Whether this is a factor of the user; a code works once. Counts first: raises `TooManyLogins` after many wrong ones."""
    counter = rates.account_key(f"factor:{user.pk}")
    rates.reserve(counter)
    if not _is_right(user, proof, by):
        return False
    rates.forget(counter)
    return True


def passes_login(user: User, otp: str, *, by: Actor) -> bool:
    """The same for a login over the API, where whatever is wrong looks alike."""
    if not user.has_factor:
        return True
    try:
        return is_proven(user, Proof(otp), by=by)
    except RateLimited:
        return False


def pretend_to_check(counter: str, otp: str, *, by: Actor) -> None:
    """What a wrong code costs, for an attempt whose password was wrong already: its answer takes as long."""
    with contextlib.suppress(RateLimited):
        rates.reserve(rates.account_key(f"no factor:{counter}"))
        _is_right(User(pk=uuid.uuid4()), Proof(otp), by)


def _is_right(user: User, proof: Proof, by: Actor) -> bool:
    if proof.passkey:
        return passkeys.is_right(user, proof.passkey, proof.challenge)
    code = "".join(proof.otp.split())
    if len(code) == DIGITS and code.isascii() and code.isdigit():
        return user.has_totp and _is_next(user, code)
    return bool(code) and recovery.use(user, code, by=by)


def _is_next(user: User, code: str) -> bool:
    """Of several at once with the same code, one: the step is written where the one before it is smaller."""
    try:
        step = step_of(seed_of(user), code)
    except secretbox.SecretsKeyUnusable as error:  # recovery codes and passkeys still open the door
        log.error("factor.unreadable", user=str(user.pk), why=str(error))
        return False
    return step is not None and bool(User.objects.filter(pk=user.pk, totp_step__lt=step).update(totp_step=step))


def step_of(seed: str, code: str) -> int | None:
    """The time step of a code, this one or one beside it (RFC 6238, 5.2), or None."""
    app, now = pyotp.TOTP(seed, digits=DIGITS, interval=STEP_SECONDS), int(time.time()) // STEP_SECONDS
    found = [step for step in (now - 1, now, now + 1) if hmac.compare_digest(app.generate_otp(step), code)]
    return found[-1] if found else None


def step_up(*, by: Actor, proof: Proof) -> datetime:
    """Show a factor again: until the moment that is returned the session may do what is sensitive.

    A family of refresh tokens is marked here; who holds a page's session marks that. Raises `InvalidInput`,
    `TooManyLogins`, `NoFactor`, `StepUpImpossible` for a token that is no part of a session.
    """
    require(by, Capability.OWN_ACCOUNT)
    user = _own(by)
    if not user.has_factor:
        raise NoFactor()
    if not by.session:
        raise StepUpImpossible()
    if not is_proven(user, proof, by=by):
        with transaction.atomic():
            audit.record(Action.STEP_UP_FAILED, by=by, target=f"user:{user.email}")
        sentence = WRONG_PASSKEY if proof.passkey else WRONG
        raise InvalidInput(fields={"passkey" if proof.passkey else "otp": [sentence]})
    with transaction.atomic():
        until = database_now() + FRESH_FOR
        family = RefreshFamily.objects.select_for_update().filter(pk=by.session, user_id=by.id).first()
        if family is not None:
            families.put_fresh(family, until)
            family.save(update_fields=["fresh_until", "fresh_seal"])
        audit.record(Action.STEP_UP_DONE, by=by, target=f"user:{user.email}")
    return until


# --- having one ---


def confirm(*, by: Actor, password: str) -> User:
    """Before a first factor the password is asked for, before any other change a factor. Raises `InvalidInput`."""
    require(by, Capability.OWN_ACCOUNT)
    user = _own(by)
    if user.has_factor:
        require_fresh(by)
    else:
        passwords.confirm_current(user, password, by=by, field="password")
    return user


def new_seed() -> str:
    return pyotp.random_base32()


def address_of(seed: str, user: User, host: str) -> str:
    """The otpauth:// address that an authenticator app reads from a QR code."""
    return pyotp.TOTP(seed, digits=DIGITS, interval=STEP_SECONDS).provisioning_uri(
        name=user.email, issuer_name=f"HyprBox {host}"
    )


def add_totp(*, by: Actor, seed: str, code: str) -> tuple[User, list[str]]:
    """The app is the caller's factor from now on. Returns the recovery codes too, if these are the first.

    `seed` is one that was made for this caller after `confirm`. Raises `InvalidInput` unless `code` is one of the app's.
    """
    require(by, Capability.OWN_ACCOUNT)
    step = step_of(seed, "".join(code.split()))
    if step is None:
        raise InvalidInput(fields={"code": ["This is not the app’s code. Is the clock of your phone right?"]})
    with transaction.atomic():
        user = _own(by, lock=True)
        _check_may_add(by, user)
        user.totp_key_id, user.totp_seed = secretbox.encrypt(seed.encode(), place=place_of(user))
        user.totp_step = step
        codes = _first_codes(user)
        _changed(user, by, Action.FACTOR_ADDED, "app", "totp_seed", "totp_key_id", "totp_step")
    return user, codes


def add_passkey(*, by: Actor, name: str, answer: str, challenge: bytes) -> tuple[User, list[str]]:
    """A passkey is the caller's factor from now on. Returns the recovery codes too, if these are the first.

    `challenge` is one that was made for this caller after `confirm`. Raises `InvalidInput`, `Conflict`.
    """
    require(by, Capability.OWN_ACCOUNT)
    with transaction.atomic():
        user = _own(by, lock=True)
        _check_may_add(by, user)
        made = passkeys.register(user, name=name, answer=answer, challenge=challenge)
        audit.record(Action.PASSKEY_CREATED, by=by, target=f"user:{user.email}", detail={"name": made.name}, row=made)
        codes = _first_codes(user)
        _changed(user, by, Action.FACTOR_ADDED, f"passkey “{made.name}”")
    return user, codes


def remove_totp(*, by: Actor, password: str) -> User:
    """The app's codes are nothing any more. Raises `InvalidInput` for a wrong password, `FactorNeeded`."""
    _confirm_twice(by, password)
    with transaction.atomic():
        user = _own(by, lock=True)
        if not user.has_totp:
            raise NoFactor()
        user.totp_seed, user.totp_key_id = b"", ""
        _removed(user, by, "app", "totp_seed", "totp_key_id")
    return user


def remove_passkey(*, by: Actor, passkey_id: uuid.UUID, password: str) -> User:
    """Raises `UnknownPasskey`, `InvalidInput` for a wrong password, `FactorNeeded`."""
    _confirm_twice(by, password)
    with transaction.atomic():
        user = _own(by, lock=True)
        found = Passkey.objects.filter(pk=passkey_id, user=user).first()
        if found is None:
            raise UnknownPasskey()
        _end_passkey(found, user, by)
        _removed(user, by, f"passkey “{found.name}”")
    return user


def renew_codes(*, by: Actor) -> tuple[User, list[str]]:
    """Ten new recovery codes; those that were there are nothing any more."""
    require(by, Capability.OWN_ACCOUNT)
    require_fresh(by)
    with transaction.atomic():
        user = _own(by, lock=True)
        if not user.has_factor:
            raise NoFactor()
        codes = recovery.put(user)
        sealed.save(user, "recovery_codes")
        audit.record(Action.RECOVERY_RENEWED, by=by, target=f"user:{user.email}", row=user)
    return user, codes


def reset(*, by: Actor, user_id: uuid.UUID) -> User:
    """An admin takes someone's factors away, who lost them, and signs them out everywhere."""
    require(by, Capability.MANAGE_USERS)
    require_fresh(by)
    with transaction.atomic():
        user = logins.locked(user_id)
        if str(user.pk) == by.id:
            raise OwnAccount("Your own second factor you remove in your profile; another admin can take it away.")
        if not user.has_factor:
            raise NoFactor(f"{user.email} has no second factor.")
        for passkey in Passkey.objects.filter(user=user):
            _end_passkey(passkey, user, by)
        user.totp_seed, user.totp_key_id, user.has_factor, user.recovery_codes = b"", "", False, []
        logins.end_all(user, "totp_seed", "totp_key_id", "has_factor", "recovery_codes")
        audit.record(Action.FACTOR_RESET, by=by, target=f"user:{user.email}", row=user)
    rates.forget(rates.account_key(f"factor:{user.pk}"))
    return user


def reencrypt(*, by: Actor) -> int:
    """Put every seed under the key that encrypts now. Returns how many. Raises `SecretsKeyUnusable`."""
    require(by, Capability.MANAGE_USERS)
    count, current = 0, next(iter(secretbox.keys()))
    for pk in User.objects.exclude(totp_key_id__in=["", current]).values_list("pk", flat=True):
        with transaction.atomic():
            user = logins.locked(pk)
            seed = seed_of(user).encode()
            user.totp_key_id, user.totp_seed = secretbox.encrypt(seed, place=place_of(user))
            sealed.save(user, "totp_key_id", "totp_seed")
            detail = {"key": user.totp_key_id}
            audit.record(Action.FACTOR_ENCRYPTED, by=by, target=f"user:{user.email}", detail=detail, row=user)
            count += 1
    return count


def seed_of(user: User) -> str:
    """Raises `SecretsKeyUnusable`."""
    return secretbox.decrypt(user.totp_key_id, bytes(user.totp_seed), place=place_of(user)).decode()


def place_of(user: User) -> str:
    return f"totp:{user.pk}"


def _own(by: Actor, *, lock: bool = False) -> User:
    user = sealed.lock(User.objects.filter(pk=by.id, is_active=True)) if lock else find_active(by.id)
    if user is None:
        raise NotAuthenticated()
    return user


def _check_may_add(by: Actor, user: User) -> None:
    """Somebody else may have added one since the caller's row was read."""
    if user.has_factor and not by.has_factor:
        raise Conflict("You have a second factor by now. Reload the page.")
    if user.has_factor:
        require_fresh(by)


def _confirm_twice(by: Actor, password: str) -> None:
    require(by, Capability.OWN_ACCOUNT)
    require_fresh(by)
    passwords.confirm_current(_own(by), password, by=by, field="password")


def _end_passkey(passkey: Passkey, user: User, by: Actor) -> None:
    detail = {"name": passkey.name}
    audit.record(Action.PASSKEY_REMOVED, by=by, target=f"user:{user.email}", detail=detail, row=sealed.end(passkey))
    passkey.delete()


def _first_codes(user: User) -> list[str]:
    return [] if user.has_factor else recovery.put(user)


def _changed(user: User, by: Actor, action: Action, what: str, *fields: str) -> None:
    user.has_factor = True
    logins.end_all(user, "has_factor", "recovery_codes", *fields, but=by.session)
    audit.record(action, by=by, target=f"user:{user.email}", detail={"factor": what}, row=user)


def _removed(user: User, by: Actor, what: str, *fields: str) -> None:
    user.has_factor = user.has_totp or Passkey.objects.filter(user=user).exists()
    if user.needs_factor:
        raise FactorNeeded()
    if not user.has_factor:
        user.recovery_codes = []
    logins.end_all(user, "has_factor", "recovery_codes", *fields, but=by.session)
    audit.record(Action.FACTOR_REMOVED, by=by, target=f"user:{user.email}", detail={"factor": what}, row=user)
