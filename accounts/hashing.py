"""bcrypt, at most four at once in a process: each takes a core for ~0.2 s, and more would starve everything else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth import hashers

from accounts.models import User
from hyprbox.lib.errors import Overloaded

_SLOTS = threading.BoundedSemaphore(4)
WAIT_SECONDS = 5.0


@contextmanager
def _slot() -> Iterator[None]:
    if not _SLOTS.acquire(timeout=WAIT_SECONDS):
        raise Overloaded("Too many people log in at this moment. Try again.")
    try:
        yield
    finally:
        _SLOTS.release()


def hashed(password: str) -> str:
    """What is stored of a password. Raises `Overloaded` when four others are being hashed for too long."""
    with _slot():
        return hashers.make_password(password)


def is_right(password: str, user: User | None) -> bool:
    """Whether it is this user's password; the same work is done when there is no such user."""
    with _slot():
        if user is not None and hashers.is_password_usable(user.password):
            return hashers.check_password(password, user.password)
        hashers.make_password(password)
        return False
