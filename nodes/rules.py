"""The rules of judgement in force, from the settings and the age of this process."""

from __future__ import annotations

import time

from django.conf import settings

from nodes.status import Rules

SETTLING_SECONDS = 300.0
_started = time.monotonic()


def is_settling() -> bool:
    """For five minutes after its start this process declares no node OFFLINE: agents may not have come back yet."""
    return time.monotonic() - _started < SETTLING_SECONDS


def current() -> Rules:
    return Rules(offline_after_seconds=float(settings.HYPRBOX_OFFLINE_AFTER), is_settling=is_settling())
