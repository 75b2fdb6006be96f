"""Seals on the sessions of programs: whoever writes into the database prolongs none, and makes none good for what is sensitive.

Two of them, since they change at different times: over whose it is, until when, and of which version of the account; and
over the moment until when it is fresh. A page's session has the like in its signed data.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from django.db import transaction

from accounts.models import RefreshFamily
from hyprbox.lib import mackey


def put_seal(family: RefreshFamily) -> None:
    """After `user`, `token_version` or `expires_at` was set; the caller saves it."""
    family.seal = _mac(_content(family), mackey.key())


def is_sound(family: RefreshFamily) -> bool:
    return _fits(bytes(family.seal), _content(family))


def put_fresh(family: RefreshFamily, until: datetime | None) -> None:
    """The caller saves `fresh_until` and `fresh_seal`."""
    family.fresh_until = until
    family.fresh_seal = b"" if until is None else _mac(_fresh(family.pk, until), mackey.key())


def fresh_until(family: RefreshFamily) -> datetime | None:
    """The moment, unless it is not as HyprBox left it."""
    until = family.fresh_until
    return until if until is not None and _fits(bytes(family.fresh_seal), _fresh(family.pk, until)) else None


def check_all() -> Iterator[tuple[str, str]]:
    """`(table:pk, what is wrong or "")` for every session of a program that has not ended."""
    for family in RefreshFamily.objects.filter(revoked_at=None).iterator(chunk_size=1000):
        is_right = is_sound(family) and (family.fresh_until is None or fresh_until(family) is not None)
        yield f"{RefreshFamily._meta.db_table}:{family.pk}", "" if is_right else "its seal does not fit"


def reseal_all() -> int:
    """Seal those that fit under the key that makes seals now. Returns how many."""
    count = 0
    for pk in list(RefreshFamily.objects.filter(revoked_at=None).values_list("pk", flat=True)):
        with transaction.atomic():
            family = RefreshFamily.objects.select_for_update().filter(pk=pk).first()
            if family is not None and is_sound(family):
                put_fresh(family, fresh_until(family))
                put_seal(family)
                family.save(update_fields=["fresh_until", "fresh_seal", "seal"])
                count += 1
    return count


def _content(family: RefreshFamily) -> bytes:
    ends = family.expires_at.astimezone(UTC).isoformat(timespec="microseconds")
    text = f"{uuid.UUID(str(family.pk))} {uuid.UUID(str(family.user_id))} {family.token_version} {ends}"
    return b"hyprbox-family-v1\0" + text.encode()


def _fresh(pk: uuid.UUID, until: datetime) -> bytes:
    text = f"{uuid.UUID(str(pk))} {until.astimezone(UTC).isoformat(timespec='microseconds')}"
    return b"hyprbox-fresh-v1\0" + text.encode()


def _fits(found: bytes, content: bytes) -> bool:
    return any(hmac.compare_digest(found, _mac(content, key)) for key in mackey.keys().seals)


def _mac(content: bytes, key: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)
