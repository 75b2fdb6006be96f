"""What PostgreSQL complains of is told, and not what it tidied up afterwards."""

from __future__ import annotations

import pytest

from hyprbox.lib import postgres


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            ("performing post-bootstrap initialization ... \n"
            "2026-01-01 FATAL:  could not map shared memory: No space left on device\n"
            "child process exited with exit code 1\ninitdb: removing data directory \"data.new\"\n"),
            "2026-01-01 FATAL:  could not map shared memory: No space left on device",
        ),
        (
            "initdb: error: could not create directory \"data.new\": Permission denied\n",
            "initdb: error: could not create directory \"data.new\": Permission denied",
        ),
        ("first\nsomething odd\n\n", "something odd"),
        ("", "no reason given"),
    ],
)  # fmt: skip
def test_the_complaint_is_told(said: str, why: str) -> None:
    assert postgres._why(said) == why
