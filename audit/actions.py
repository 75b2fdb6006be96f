"""The catalogue of what is audited, as `noun.past`. A new act gets its line here first."""

from __future__ import annotations

from django.db import models


class Action(models.TextChoices):
    LOGIN_SUCCEEDED = "login.succeeded", "Logged in"
    LOGIN_FAILED = "login.failed", "Failed to log in"
    LOGOUT_DONE = "logout.done", "Logged out"
    REFRESH_REUSED = "refresh.reused", "An old refresh token was used again"
    PASSWORD_CHANGED = "password.changed", "Changed a password"
    USER_CREATED = "user.created", "Created a user"
    USER_CHANGED = "user.changed", "Changed a user"
    TOKEN_CREATED = "token.created", "Created a node token"
    TOKEN_PINNED = "token.pinned", "A node token was used for the first time"
    TOKEN_ROTATED = "token.rotated", "Rotated a node token"
    TOKEN_REVOKED = "token.revoked", "Revoked a node token"
    NODE_CREATED = "node.created", "Created a node"
    NODE_CHANGED = "node.changed", "Changed a node"
    NODE_REMOVED = "node.removed", "Removed a node"
    CLONE_SUSPECTED = "node.clone_suspected", "Two machines report as one node"
    JOB_QUEUED = "job.queued", "Queued a job"
    JOB_CANCEL_REQUESTED = "job.cancel_requested", "Asked for a job to be cancelled"
    JOB_CANCELLED = "job.cancelled", "Cancelled a job"
    JOB_FORCE_CANCELLED = "job.force_cancelled", "Ended a job without its node's word"
    JOB_LOST = "job.lost", "A job's outcome is unknown"
    JOB_EXPIRED = "job.expired", "A job expired before its node came for it"
    JOB_RESULT_LATE = "job.result_late", "A result arrived after the job was given up"
    JOB_REFUSED = "job.refused", "An agent refused a job"
    OUTPUT_CONFLICTED = "job.output_conflicted", "An agent sent other bytes for stored output"
    ROW_SEALED = "row.sealed", "Sealed a row that existed before"
    ROW_TAMPERED = "row.tampered", "A row was changed behind HyprBox's back, and refused"
    BATCH_QUEUED = "batch.queued", "Queued a batch of jobs"
