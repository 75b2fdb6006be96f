"""How a job ended, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.cli.printing import took

_REASONS = {
    "exit": "the script ended with an error",
    "signal": "the script was ended by a signal",
    "timeout": "it took longer than it was allowed",
    "verify_failed": "the change could not be verified",
    "expired": "the server did not come for it in time",
    "signature_invalid": "the agent could not verify its signature",
    "secret_unresolved": "a secret was not found on the server",
    "clock_skew": "the server's clock is off by more than an hour",
    "refused": "the agent refused it",
    "lost": "the server never reported the outcome",
    "host_rebooted": "the server rebooted while it ran",
    "runner_killed": "its runner was killed",
    "agent_error": "the agent failed",
}


def sentence(job: Mapping[str, Any]) -> str:
    """`web-1: failed, the change could not be verified (exit code 1); it was rolled back.`"""
    return f"{job['node_id']}: {_end(job)}{_unknown(job)}."


def _unknown(job: Mapping[str, Any]) -> str:
    return "; what it has done is not known" if job.get("outcome_unknown") else ""


def _end(job: Mapping[str, Any]) -> str:
    status, changed = job["status"], job.get("changed")
    seconds = took(job)
    within = f" in {seconds}" if seconds else ""
    if status == "SUCCEEDED" and job.get("mode") == "check":
        return ("would change" if changed else "is as wanted, nothing would change") + within.replace(" in", ", in")
    if status == "SUCCEEDED":
        return "succeeded" + ("" if changed is not False else ", was as wanted already") + within
    if status == "CANCELLED":
        return "cancelled"
    if status == "FAILED":
        reason = str(job.get("reason") or "")
        return "failed, " + _REASONS.get(reason, reason or "for an unknown reason") + _code(job) + _rollback(job)
    return str(status).lower()


def _code(job: Mapping[str, Any]) -> str:
    if job.get("exit_code") is not None:
        return f" (exit code {job['exit_code']})"
    is_ours = job.get("reason") == "timeout" or job.get("signal") is None  # the agent's own signal is no news
    return "" if is_ours else f" (signal {job['signal']})"


def _rollback(job: Mapping[str, Any]) -> str:
    for phase in job.get("phases") or []:
        if phase["name"] == "rollback" and not phase.get("skipped"):
            return "; it was rolled back" if phase.get("exit_code") == 0 else "; the rollback failed too"
    return ""
