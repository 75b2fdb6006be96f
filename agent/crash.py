"""For tests: the process kills itself at a named place, or has a known bug. Dead code unless HYPRBOX_TEST=1."""

from __future__ import annotations

import os
import signal


def crash_point(name: str) -> None:
    if os.environ.get("HYPRBOX_TEST") == "1" and os.environ.get("HBX_CRASH_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)


def planted(bug: str) -> bool:
    """Whether HYPRBOX_PLANTED_BUG asks for this bug: tests that cannot find it prove nothing."""
    return os.environ.get("HYPRBOX_TEST") == "1" and os.environ.get("HYPRBOX_PLANTED_BUG") == bug
