"""The rules of judgement in force, from the settings and the age of this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from django.conf import settings

from nodes.status import Rules

SETTLING_SECONDS = 300.0
_started = time.monotonic()


def is_settling() -> bool:
    """For five minutes after its start this process declares no node OFFLINE: agents may not have come back yet."""
    return time.monotonic() - _started < SETTLING_SECONDS


@contextlib.contextmanager
def without_settling() -> Iterator[None]:
    """For a command, which takes no heartbeats: its own age says nothing about the silence of a node."""
    global _started
    before, _started = _started, float("-inf")
    try:
        yield
    finally:
        _started = before


def current() -> Rules:
    return Rules(offline_after_seconds=float(settings.HYPRBOX_OFFLINE_AFTER), is_settling=is_settling())
