"""The job's states and the arrows between them. Pure: `docs/explain/jobs.md` draws the picture."""

from __future__ import annotations

from typing import Final

from django.db.models import TextChoices


class Status(TextChoices):
    QUEUED = "QUEUED", "Queued"
    RUNNING = "RUNNING", "Running"
    SUCCEEDED = "SUCCEEDED", "Succeeded"
    FAILED = "FAILED", "Failed"
    CANCELLED = "CANCELLED", "Cancelled"


class Reason(TextChoices):
    """Why a job failed."""

    EXIT = "exit", "the script ended with an error"
    SIGNAL = "signal", "the script was ended by a signal"
    TIMEOUT = "timeout", "the script took longer than it was allowed"
    VERIFY_FAILED = "verify_failed", "the change could not be verified"
    EXPIRED = "expired", "the node did not come for it in time"
    SIGNATURE_INVALID = "signature_invalid", "the agent could not verify the signature"
    SECRET_UNRESOLVED = "secret_unresolved", "a secret was not found on the node"
    CLOCK_SKEW = "clock_skew", "the node's clock is off by more than an hour"
    REFUSED = "refused", "the agent refused it"
    LOST = "lost", "the node never reported the outcome"
    HOST_REBOOTED = "host_rebooted", "the node rebooted while it ran"
    RUNNER_KILLED = "runner_killed", "its runner was killed"
    AGENT_ERROR = "agent_error", "the agent failed"


class Mode(TextChoices):
    APPLY = "apply", "Apply"
    CHECK = "check", "Check only"


class Stream(TextChoices):
    STDOUT = "stdout", "stdout"
    STDERR = "stderr", "stderr"


ARROWS: Final[dict[str, frozenset[str]]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
TERMINAL: Final = frozenset(status for status, following in ARROWS.items() if not following)
# An agent may end a claim that never started for these reasons only: then nothing ran.
REFUSALS: Final = frozenset({Reason.SIGNATURE_INVALID, Reason.REFUSED, Reason.SECRET_UNRESOLVED, Reason.CLOCK_SKEW})
# The server alone decides these.
SERVER_REASONS: Final = frozenset({Reason.EXPIRED, Reason.LOST})

OUTPUT_CAP: Final = 4 * 1024 * 1024  # bytes kept of each stream
CHUNK_LIMIT: Final = 256 * 1024  # bytes of one chunk
CLAIM_LEASE_SECONDS: Final = 30
CLAIMS_LOCK: Final = 0x6879_7072  # "hypr", an advisory lock: whoever holds it gives the nodes' places away
RUNNING_LEASE_SECONDS: Final = 60
LOST_AFTER_SECONDS: Final = 300  # past the time-out, without contact
LATE_RESULT_DAYS: Final = 7
OBEY_SECONDS: Final = 60  # after which a cancel that had no effect may be forced


def can_move(before: str, after: str) -> bool:
    return after in ARROWS[before]
