"""Recovery codes: ten, each good for one login without the phone. Stored is a keyed hash of each, under the user's seal."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from django.db import transaction

from accounts.models import User
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib import mackey
from hyprbox.lib.actors import Actor

COUNT = 10
LENGTH = 10
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what looks like something else


def put(user: User) -> list[str]:
    """Give a locked user new codes, this once in plain text; the caller saves the row."""
    codes = ["".join(secrets.choice(_ALPHABET) for _ in range(LENGTH)) for _ in range(COUNT)]
    user.recovery_codes = [_digest(user, code, mackey.key()) for code in codes]
    return [f"{code[:5]}-{code[5:]}" for code in codes]


def use(user: User, code: str, *, by: Actor) -> bool:
    """Whether it is one of the user's; if so, it is none any more."""
    known, plain = mackey.keys(), code.replace("-", "").lower()
    digests = [_digest(user, plain, key) for key in (*known.seals, *known.codes)]
    with transaction.atomic():
        kept = sealed.lock(User.objects.filter(pk=user.pk))
        stored = [] if kept is None else kept.recovery_codes
        found = [one for one in stored if any(hmac.compare_digest(one, digest) for digest in digests)]
        if kept is None or not found:
            return False
        kept.recovery_codes = [one for one in kept.recovery_codes if one not in found]
        sealed.save(kept, "recovery_codes")
        detail = {"left": len(kept.recovery_codes)}
        audit.record(Action.RECOVERY_USED, by=by, target=f"user:{kept.email}", detail=detail, row=kept)
    return True


def _digest(user: User, code: str, key: bytes) -> str:
    """50 bits are few for a plain hash; with this key, which is not in the database, they cannot be tried out."""
    message = b"hyprbox-recovery-v1\0" + user.pk.bytes + code.encode("utf-8", "replace")
    return hmac.digest(key, message, hashlib.sha256).hex()
