"""For the fault tests: the process kills itself at a named place, or has a bug that the tests must find.

Dead code unless HYPRBOX_TEST=1. `docs/explain/faults.md` lists the places and the bugs.
"""

from __future__ import annotations

import os
import signal


def is_test() -> bool:
    return os.environ.get("HYPRBOX_TEST") == "1"


def crash_point(name: str) -> None:
    """SIGKILL to ourselves when HBX_CRASH_AT names this place."""
    if is_test() and os.environ.get("HBX_CRASH_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)


def planted(bug: str) -> bool:
    """Whether HYPRBOX_PLANTED_BUG asks for this bug: tests that cannot find it prove nothing."""
    return is_test() and os.environ.get("HYPRBOX_PLANTED_BUG") == bug


def as_text(data: bytes) -> bytes:
    """The planted bug `text_output`: what is left of bytes that went through a text."""
    return data.decode("ascii", "replace").replace("\0", "\ufffd").replace("\ufffd", "?").encode()
