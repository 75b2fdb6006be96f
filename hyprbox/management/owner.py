"""Django's connection as the role that owns the tables: for migrations and `audit_prune`, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection, transaction

from hyprbox.lib import roles

T = TypeVar("T")
_WHO = ("USER", "PASSWORD", "HOST", "PORT", "OPTIONS")


@contextmanager
def as_owner() -> Iterator[None]:
    """Within the block the default connection is the owner's, in every thread: not for processes that serve.

    Changes nothing where there is one role for everything, or the process is the owner's already.
    """
    owner, ours = settings.HYPRBOX_OWNER_DATABASE, connection.settings_dict
    if not owner or owner["USER"] == ours["USER"]:
        yield
        return
    kept = {name: ours[name] for name in _WHO}
    _hang_up()
    ours.update({name: owner[name] for name in _WHO})
    try:
        yield
    finally:
        _hang_up()
        ours.update(kept)


def refuse() -> None:
    """Raises CommandError where `grant` would."""
    _with_cursor(roles.refuse)


def grant() -> list[str]:
    """Give the app's role what it needs; the tables for which that was news. Raises CommandError.

    To be called as the owner. Where there is one role for everything it has all rights already.
    """
    return _with_cursor(roles.grant) or []


def _with_cursor(act: Callable[[roles.Cursor, str], T]) -> T | None:
    if not settings.HYPRBOX_APP_ROLE:
        return None
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            return act(cursor, settings.HYPRBOX_APP_ROLE)
    except roles.CannotGrant as error:
        raise CommandError(str(error)) from error


def _hang_up() -> None:
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]  # of the PostgreSQL backend
