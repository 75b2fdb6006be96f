"""Django's blocking verbs, called from the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connections

from hyprbox.lib.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `verb` on a thread with a connection from the pool, and give that back.

    Raises `Unavailable` when the database is away, and what `verb` raises.
    """

    def run() -> R:
        try:
            return verb(*args, **kwargs)
        except (OperationalError, InterfaceError) as error:
            raise Unavailable() from error
        finally:
            connections.close_all()

    return await sync_to_async(run, thread_sensitive=False)()
