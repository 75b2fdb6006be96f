"""A job in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hyprbox.lib.templatetags.ui import look_of
from jobs import summary
from jobs.models import Job
from jobs.states import Reason, Status
from nodes.models import Node

NOW = datetime(2026, 11, 23, 14, 32, tzinfo=UTC)


def phase(name: str, exit_code: int | None = 0, **over: Any) -> dict[str, Any]:
    return {"name": name, "exit_code": exit_code, "signal": None, "duration_ms": 1200, "skipped": False, **over}


def told(**over: Any) -> summary.Summary:
    fields = {"status": "RUNNING", "parts": ["check", "apply", "verify", "rollback"], "phases": [], "mode": "apply"}
    fields |= {"expires_at": NOW + timedelta(hours=3), "started_at": NOW - timedelta(seconds=72), "phase": "apply"}
    return summary.of(Job(**{**fields, **over}), NOW)


@pytest.mark.parametrize("reason", Reason.values)
def test_every_failure_has_a_sentence(reason: str) -> None:
    sentence = told(status="FAILED", reason=reason, finished_at=NOW).sentence
    assert sentence.endswith(".") and sentence != "It failed."


@pytest.mark.parametrize("status", Status.values)
def test_every_state_has_a_look_and_a_sentence(status: str) -> None:
    shown = told(status=status)
    assert look_of(shown.look).word and shown.sentence.endswith(".")


def test_a_job_of_a_node_that_seems_to_be_two_says_so() -> None:
    node = Node(node_id="web-1", clone_suspected_at=NOW)
    assert "Two machines" in told(status="QUEUED", node=node).sentence
    assert "Two machines" not in told(status="QUEUED", node=Node(node_id="web-1")).sentence


def test_a_rolled_back_job_says_so() -> None:
    phases = [phase("apply"), phase("verify", 1), phase("rollback")]
    shown = told(status="FAILED", reason="verify_failed", exit_code=1, phases=phases, finished_at=NOW)
    assert shown.look == "ROLLED_BACK"
    assert shown.sentence == "Verify failed (exit 1), so HyprBox put back what it had changed."


def test_a_failed_rollback_is_loud() -> None:
    phases = [phase("apply", 2), phase("rollback", 1)]
    shown = told(status="FAILED", reason="exit", exit_code=2, phases=phases)
    assert shown.look == "FAILED" and "rollback failed too" in shown.sentence


def test_an_unknown_outcome_has_a_look_of_its_own() -> None:
    assert told(status="CANCELLED", outcome_unknown=True).look == "OUTCOME_UNKNOWN"


def test_steps_follow_the_phases() -> None:
    shown = told(phases=[phase("check", 1)], phase="apply")
    assert [(step.label, step.tone, step.is_current) for step in shown.steps] == [
        ("Check", "ok", False), ("Apply", "run", True), ("Verify", "off", False), ("Rollback", "off", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "tones"),
    [("", "off off off off"), ("apply", "ok run off off"), ("verify", "ok ok run off"), ("rollback", "ok off off run")],
)
def test_what_a_running_job_left_behind_is_done(now: str, tones: str) -> None:
    assert " ".join(step.tone for step in told(phase=now).steps) == tones


def test_a_check_alone_has_one_step() -> None:
    shown = told(mode="check", status="SUCCEEDED", changed=True, phases=[phase("check", 1)], finished_at=NOW)
    assert [step.label for step in shown.steps] == ["Check"]
    assert shown.sentence == "An apply would change something."


def test_a_skipped_apply_is_shown_as_skipped() -> None:
    phases = [phase("check"), phase("apply", None, skipped=True)]
    shown = told(status="SUCCEEDED", changed=False, phases=phases, finished_at=NOW, phase="")
    skipped = "skipped: already as wanted"
    assert [step.note for step in shown.steps][1:] == [skipped, skipped, "skipped"]
    assert shown.sentence == "It was already as wanted, so apply was skipped and nothing was changed."


def test_each_step_has_its_exit_code_and_its_duration() -> None:
    phases = [phase("check", 1), phase("apply"), phase("verify", 3), phase("rollback", None, signal=9)]
    shown = told(status="FAILED", reason="verify_failed", exit_code=3, phases=phases, finished_at=NOW, phase="")
    assert [(step.tone, step.note.replace("\u00a0", " ")) for step in shown.steps] == [
        ("ok", "not so yet, exit 1 after 1.2 s"),
        ("ok", "exit 0 after 1.2 s"),
        ("crit", "exit 3 after 1.2 s"),
        ("crit", "signal 9 after 1.2 s"),
    ]


def test_a_failure_without_a_rollback_part_says_what_stays() -> None:
    over = {"parts": ["apply", "verify"], "status": "FAILED", "reason": "verify_failed", "exit_code": 1}
    shown = told(**over, phases=[phase("apply"), phase("verify", 1)], finished_at=NOW)
    assert shown.sentence == "Verify failed (exit 1). There is no rollback part: what was changed by then stays."
    nothing = told(**over | {"reason": "expired", "exit_code": None}, phases=[], finished_at=NOW)
    assert "rollback" not in nothing.sentence
