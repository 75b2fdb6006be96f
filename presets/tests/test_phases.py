"""The phase table: which phase follows which exit, and what they add up to."""

from __future__ import annotations

import pytest

from presets.phases import PhaseExit, next_phase, verdict

ALL = ("check", "apply", "verify", "rollback")


def walk(parts: tuple[str, ...], exits: dict[str, int], mode: str = "apply") -> list[PhaseExit]:
    done: list[PhaseExit] = []
    while (name := next_phase(parts, mode, done)) is not None:
        done.append(PhaseExit(name, exits.get(name, 0)))
    return done


@pytest.mark.parametrize(
    ("parts", "mode", "exits", "ran", "status", "reason", "changed", "exit_code", "rolled_back"),
    [
        (ALL, "apply", {"check": 0}, "check", "SUCCEEDED", None, False, 0, None),
        (ALL, "apply", {"check": 1}, "check apply verify", "SUCCEEDED", None, True, 0, None),
        (ALL, "apply", {"check": 69}, "check", "FAILED", "exit", False, 69, None),
        (ALL, "apply", {"check": 1, "apply": 1}, "check apply rollback", "FAILED", "exit", None, 1, True),
        (ALL, "apply", {"check": 1, "apply": 7}, "check apply rollback", "FAILED", "exit", None, 7, True),
        (ALL, "apply", {"check": 1, "verify": 1}, "check apply verify rollback", "FAILED", "verify_failed", None, 1, True),
        (ALL, "apply", {"check": 1, "verify": 9, "rollback": 2}, "check apply verify rollback", "FAILED", "verify_failed", None, 9, False),
        (("apply",), "apply", {}, "apply", "SUCCEEDED", None, True, 0, None),
        (("apply",), "apply", {"apply": 3}, "apply", "FAILED", "exit", None, 3, None),
        (("apply", "verify"), "apply", {"verify": 1}, "apply verify", "FAILED", "verify_failed", None, 1, None),
        (("check", "apply"), "apply", {"check": 1}, "check apply", "SUCCEEDED", None, True, 0, None),
        (ALL, "check", {"check": 0}, "check", "SUCCEEDED", None, False, 0, None),
        (ALL, "check", {"check": 1}, "check", "SUCCEEDED", None, True, 1, None),
        (ALL, "check", {"check": 2}, "check", "FAILED", "exit", False, 2, None),
    ],
)  # fmt: skip
def test_the_table(
    parts: tuple[str, ...],
    mode: str,
    exits: dict[str, int],
    ran: str,
    status: str,
    reason: str | None,
    changed: bool | None,
    exit_code: int,
    rolled_back: bool | None,
) -> None:
    done = walk(parts, exits, mode)
    assert [phase.name for phase in done] == ran.split()
    found = verdict(mode, done)
    assert (found.status, found.reason, found.changed) == (status, reason, changed)
    assert (found.exit_code, found.rolled_back) == (exit_code, rolled_back)


def test_a_signal_fails_and_rolls_back() -> None:
    done = [PhaseExit("check", 1), PhaseExit("apply", None, 9)]
    assert next_phase(ALL, "apply", done) == "rollback"
    found = verdict("apply", [*done, PhaseExit("rollback", 0)])
    assert (found.status, found.reason, found.signal, found.phase) == ("FAILED", "signal", 9, "apply")


def test_a_check_killed_by_a_signal_applies_nothing() -> None:
    done = [PhaseExit("check", None, 15)]
    assert next_phase(ALL, "apply", done) is None
    assert verdict("apply", done).changed is False


def test_mode_check_needs_a_check() -> None:
    with pytest.raises(ValueError, match="without a check"):
        next_phase(("apply",), "check", [])
