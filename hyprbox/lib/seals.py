"""A seal as arithmetic on plain values. `hyprbox.lib.rowmac` tells what it is for."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from typing import Any

CONTEXT = b"hyprbox-row-v1\0"


def canonical(table: str, pk: Any, version: int, fields: Mapping[str, Any]) -> bytes:
    """The bytes under a seal. Different values never give the same bytes. Raises `TypeError` for kinds it does not know."""
    content = [table, _plain(pk), version, sorted((name, _plain(value)) for name, value in fields.items())]
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """JSON in which every kind but text, number, truth value and null is marked, so that none passes for another."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return str(value)  # of a TextChoices, its value
        case bytes() | bytearray() | memoryview():
            return {"bytes": bytes(value).hex()}
        case uuid.UUID():
            return {"uuid": value.hex}
        case dt.datetime():
            return {"time": value.astimezone(dt.UTC).isoformat(timespec="microseconds")}
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {"dict": sorted([str(name), _plain(item)] for name, item in value.items())}
    raise TypeError(f"A {type(value).__name__} cannot be sealed: load the row as the database has it first.")


def mac(key: bytes, table: str, pk: Any, version: int, fields: Mapping[str, Any]) -> bytes:
    """The seal. 32 bytes."""
    return over(key, canonical(table, pk, version, fields))


def over(key: bytes, content: bytes) -> bytes:
    """The seal over canonical bytes. 32 bytes."""
    return hmac.digest(key, CONTEXT + content, hashlib.sha256)
