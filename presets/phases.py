"""The phase table: which phase follows, and what a job's phases add up to.

    phase     exit 0                     exit 1                         any other
    check     already so, nothing to do  not so: apply                  failed, nothing was applied
    apply     verify                     rollback, failed               the same
    verify    succeeded, changed         rollback, failed               the same
    rollback  recorded                   recorded                       recorded

A phase that is not in the preset is passed over. In mode "check" only `check` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALREADY_SO = 0
NOT_SO = 1


@dataclass(frozen=True)
class PhaseExit:
    """How one phase ended: an exit code, or the signal that killed it."""

    name: str
    exit_code: int | None
    signal: int | None = None

    @property
    def passed(self) -> bool:
        return self.exit_code == 0 and self.signal is None


@dataclass(frozen=True)
class Verdict:
    """What the phases mean. `phase` is the deciding one; `rolled_back` is None when no rollback ran."""

    status: str
    phase: str
    exit_code: int | None
    reason: str | None = None
    changed: bool | None = None
    signal: int | None = None
    rolled_back: bool | None = None


def next_phase(parts: Sequence[str], mode: str, done: Sequence[PhaseExit]) -> str | None:
    """The phase to run after those in `done`, or None when the job is decided."""
    if mode == "check":
        if "check" not in parts:
            raise ValueError("A preset without a check cannot be run in mode check.")
        return None if done else "check"
    if not done:
        return "check" if "check" in parts else "apply"
    last = done[-1]
    if last.name == "check":
        return "apply" if last.exit_code == NOT_SO and last.signal is None else None
    if last.name == "apply" and last.passed:
        return "verify" if "verify" in parts else None
    if last.name in ("apply", "verify") and not last.passed:
        return "rollback" if "rollback" in parts else None
    return None


def verdict(mode: str, done: Sequence[PhaseExit]) -> Verdict:
    """What a job whose phases all ran amounts to. `done` holds at least one phase."""
    rollback = done[-1] if done[-1].name == "rollback" else None
    deciding = done[-2] if rollback else done[-1]
    rolled_back = rollback.passed if rollback else None
    if deciding.name == "check" and deciding.signal is None and deciding.exit_code in (ALREADY_SO, NOT_SO):
        changed = mode == "check" and deciding.exit_code == NOT_SO
        return Verdict("SUCCEEDED", "check", deciding.exit_code, changed=changed)
    if deciding.passed:
        return Verdict("SUCCEEDED", deciding.name, 0, changed=True)
    reason = "verify_failed" if deciding.name == "verify" else "exit" if deciding.signal is None else "signal"
    return Verdict(
        "FAILED",
        deciding.name,
        deciding.exit_code,
        reason=reason,
        changed=False if deciding.name == "check" else None,
        signal=deciding.signal,
        rolled_back=rolled_back,
    )
