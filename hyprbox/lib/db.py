"""Connections beside Django's own: the lanes, the listener and the streams talk to PostgreSQL asynchronously."""

from __future__ import annotations

from typing import Any

import psycopg
from django.db import connections

# Django's own options that psycopg.connect does not take.
_DJANGO_ONLY = {"cursor_factory", "context", "pool", "prepare_threshold", "server_side_binding"}


def connection_params(**overrides: Any) -> dict[str, Any]:
    """The default database's parameters for `psycopg.connect`, the test database's in tests."""
    params = connections["default"].get_connection_params()
    kept = {key: value for key, value in params.items() if key not in _DJANGO_ONLY and value is not None}
    return {**kept, **overrides}


async def async_connect(**overrides: Any) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """An autocommit connection whose statements are prepared on first use."""
    params = connection_params(**{"connect_timeout": 2, **overrides})
    return await psycopg.AsyncConnection.connect(**params, autocommit=True, prepare_threshold=0)
