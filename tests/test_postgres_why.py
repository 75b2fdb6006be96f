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
        (
            ("2026-11-30 09:03:50.344 UTC [16629] LOG:  starting PostgreSQL 18.4\n"
            "2026-11-30 09:03:50.344 UTC [16629] FATAL:  could not write lock file: No space left on device\n"
            "2026-11-30 09:03:50.371 UTC [16629] LOG:  database system is shut down\n"),
            "FATAL:  could not write lock file: No space left on device",
        ),
        ("first\nsomething odd\n\n", "something odd"),
        ("", "no reason given"),
    ],
)  # fmt: skip
def test_the_complaint_is_told(said: str, why: str) -> None:
    assert postgres._why(said) == why
