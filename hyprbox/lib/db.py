"""Connections beside Django's own: the lanes, the listener and the streams talk to PostgreSQL asynchronously."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
from django.db import connection, connections

# Django's own options that psycopg.connect does not take.
_DJANGO_ONLY = {"cursor_factory", "context", "pool", "prepare_threshold", "server_side_binding"}


def database_now() -> datetime:
    """The time of the current transaction by the database's clock, as a value: what is sealed cannot be an expression."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        found: datetime = cursor.fetchone()[0]
    return found


def connection_params(**overrides: Any) -> dict[str, Any]:
    """The default database's parameters for `psycopg.connect`, the test database's in tests."""
    params = connections["default"].get_connection_params()
    kept = {key: value for key, value in params.items() if key not in _DJANGO_ONLY and value is not None}
    return {**kept, **overrides}


async def async_connect(**overrides: Any) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """An autocommit connection whose statements are prepared on first use."""
    params = connection_params(**{"connect_timeout": 2, **overrides})
    return await psycopg.AsyncConnection.connect(**params, autocommit=True, prepare_threshold=0)


@contextlib.contextmanager
def cut_after(conn: psycopg.AsyncConnection[tuple[Any, ...]], seconds: float) -> Iterator[None]:
    """Cut the wire when the block takes longer: a database that hangs does not hear a polite cancel."""
    timer = asyncio.get_running_loop().call_later(seconds, cut, conn)
    try:
        yield
    finally:
        timer.cancel()


def cut(conn: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
    """Cut the wire: whoever waits for an answer hears that the connection is lost."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
