"""Jobs and what they wrote."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any, ClassVar, Final

from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models import Lookup, Q
from django.db.models.functions import Now

from hyprbox.lib.rowmac import Sealed
from jobs.states import TERMINAL, Mode, Reason, Status
from nodes.models import Node


class JobQuerySet(models.QuerySet["Job"]):
    def light(self) -> JobQuerySet:
        """Without what a list never shows."""
        return self.defer("script", "payload", "signature", "variables", "late_result")

    def newest_first(self) -> JobQuerySet:
        return self.order_by("-created_at", "-id")

    def unfinished(self, *, node_pk: uuid.UUID | None = None) -> JobQuerySet:
        """Those that have not ended, of one node or of all."""
        notes = OpenJob.objects.all() if node_pk is None else OpenJob.objects.filter(node_id=node_pk)
        return self.filter(pk__in=notes.values("job_id"), finished_at=None)

    def in_status(self, *statuses: str) -> JobQuerySet:
        """Found by what holds for the statuses, because no index knows a status."""
        if statuses and set(statuses) <= {Status.QUEUED, Status.RUNNING}:
            return self.unfinished().filter(status__in=statuses)
        found = self.filter(status__in=statuses)
        if statuses and all(status in _HELD_BY for status in statuses):
            held_by = {_HELD_BY[status] for status in statuses}
            found = found.filter(reduce(or_, [made() for made in held_by]))
        return found


class OpenJob(models.Model):
    """That a job has not ended: a trigger notes it when the job is queued, and whoever ends the job deletes it.

    It stands beside the job and not in an index on it: that would have to know when a job ended, and then the end of each
    would be written into all indexes of the history. A row that was left behind does no harm; the job says what is true.
    """

    job = models.OneToOneField("Job", primary_key=True, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    node_id = models.UUIDField()
    created_at = models.DateTimeField()

    class Meta:
        indexes: ClassVar = [
            # An empty poll stays as fast with a million finished jobs as with none.
            models.Index(fields=["node_id", "created_at", "job"], name="jobs_open"),
        ]

    def __str__(self) -> str:
        return f"{self.job_id} on {self.node_id}"


@models.UUIDField.register_lookup
class _AnyOf(Lookup):
    """As `__in`, for an array: that can be looked up in an index also where it is one alternative of several."""

    lookup_name = "any_of"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        lhs, lhs_params = self.process_lhs(compiler, connection)
        rhs, rhs_params = self.process_rhs(compiler, connection)
        return f"{lhs} = ANY({rhs})", [*lhs_params, *rhs_params]


def _is_noted() -> Q:
    """That a job is among the open ones, for where that is one alternative of several."""
    return Q(pk__any_of=ArraySubquery(OpenJob.objects.values("job_id")))


# What every job in a status fulfils, as the guarding triggers see to it, and few others do. There is an index for each.
_HELD_BY: Final[dict[str, Callable[[], Q]]] = {
    Status.QUEUED: _is_noted,
    Status.RUNNING: _is_noted,
    Status.FAILED: lambda: ~Q(reason=""),
    Status.CANCELLED: lambda: Q(cancel_requested_at__isnull=False),
}


class Batch(models.Model):
    """Several jobs that were queued as one act, all at once or in waves.

    `next_wave` is the wave to be released next; None when there is none. `stop_over_percent` is the usual rule for when
    to stop, `stop_after_failures` somebody's own; both hold where both are set. `author_id` is the person's whose rights its
    waves need; None where a command of the host queued it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    preset = models.CharField(max_length=63)
    preset_title = models.CharField(max_length=200, blank=True, default="")
    created_by = models.CharField(max_length=254)
    author_id = models.UUIDField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    wave_size = models.PositiveIntegerField(null=True, blank=True)
    stop_after_failures = models.PositiveIntegerField(null=True, blank=True)
    stop_over_percent = models.PositiveSmallIntegerField(null=True, blank=True)
    next_wave = models.PositiveIntegerField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    stopped_because = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["id"], name="jobs_batch_in_waves", condition=Q(next_wave__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.preset} ({self.id})"


class Job(models.Model):
    """One script for one node, frozen and signed when it was queued.

    `claim_id` names the agent's hold on it: QUEUED with a claim is handed out but not started. `script`
    and `payload` are exact bytes. Times are the database's. `author_id` is the person without whose rights it is not handed
    out, None for a command of the host; `cancelled_because` is a sentence that says who or what asked for the end.

    The row moves often, so no index knows what a claim, a start or a good end writes: PostgreSQL then puts the new version
    beside the old one and touches no index. What a status goes with is the guarding trigger's, not a CHECK's: that would be read again
    for each statement.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="+", db_index=False)
    batch = models.ForeignKey(
        Batch, null=True, blank=True, on_delete=models.SET_NULL, related_name="jobs", db_index=False
    )
    retry_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retries", db_index=False
    )
    # Of a batch in waves. Held: its wave has not come, so no agent is handed it.
    wave = models.IntegerField(default=0, db_default=0)
    held = models.BooleanField(default=False, db_default=False)
    created_by = models.CharField(max_length=254)
    author_id = models.UUIDField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()

    preset = models.CharField(max_length=63)
    preset_title = models.CharField(max_length=200)
    risk = models.CharField(max_length=10)
    revision = models.CharField(max_length=64)
    mode = models.CharField(max_length=5, choices=Mode.choices, default=Mode.APPLY)
    parts = models.JSONField(default=list)
    variables = models.JSONField(default=dict)
    script = models.BinaryField()
    script_sha256 = models.CharField(max_length=64)
    payload = models.BinaryField()
    signature = models.CharField(max_length=100)
    key_id = models.CharField(max_length=16)
    timeout_seconds = models.IntegerField()
    allow_background = models.BooleanField(default=False, db_default=False)

    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    reason = models.CharField(max_length=20, choices=Reason.choices, blank=True, default="")
    phase = models.CharField(max_length=8, blank=True, default="")
    phases = models.JSONField(default=list)
    changed = models.BooleanField(null=True, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    signal = models.IntegerField(null=True, blank=True)
    outcome_unknown = models.BooleanField(default=False)
    late_result = models.JSONField(null=True, blank=True)

    claim_id = models.UUIDField(null=True, blank=True)
    request_id = models.UUIDField(null=True, blank=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancelled_because = models.CharField(max_length=400, blank=True, default="", db_default="")
    contact_lost_at = models.DateTimeField(null=True, blank=True)
    completion_sha256 = models.CharField(max_length=64, blank=True, default="")

    objects = JobQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["node", "-created_at"], name="jobs_of_node"),
            models.Index(fields=["-created_at", "-id"], name="jobs_newest"),
            models.Index(fields=["preset", "-created_at"], name="jobs_of_preset"),
            models.Index(fields=["-created_at", "-id"], name="jobs_failed", condition=~Q(reason="")),
            models.Index(
                fields=["-created_at", "-id"],
                name="jobs_cancelled",
                condition=Q(cancel_requested_at__isnull=False),
            ),
            models.Index(fields=["batch"], name="jobs_of_batch", condition=Q(batch__isnull=False)),
            models.Index(fields=["retry_of"], name="jobs_retries", condition=Q(retry_of__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.preset} on {self.node_id} ({self.status})"

    @property
    def is_finished(self) -> bool:
        return self.status in TERMINAL

    @property
    def can_be_cancelled(self) -> bool:
        return not self.is_finished and not (self.status == Status.RUNNING and self.cancel_requested_at is not None)


class Stop(models.Model):
    """While its one row is there, no agent is handed a job."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    stopped_by = models.CharField(max_length=254)
    stopped_at = models.DateTimeField(db_default=Now(), editable=False)
    reason = models.CharField(max_length=300, blank=True, default="")

    def __str__(self) -> str:
        return f"stopped by {self.stopped_by}"


class Transcript(models.Model):
    """How much of each stream is known. Narrow, because every piece of output updates it.

    `*_bytes` is how much the script wrote, `*_first_offset` where the kept part begins.
    """

    job = models.OneToOneField(Job, primary_key=True, on_delete=models.CASCADE, related_name="transcript")
    stdout_bytes = models.BigIntegerField(default=0)
    stderr_bytes = models.BigIntegerField(default=0)
    stdout_first_offset = models.BigIntegerField(default=0)
    stderr_first_offset = models.BigIntegerField(default=0)
    stdout_sha256 = models.CharField(max_length=64, blank=True, default="")
    stderr_sha256 = models.CharField(max_length=64, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.stdout_bytes} + {self.stderr_bytes} bytes of {self.job_id}"

    @property
    def truncated(self) -> bool:
        return self.stdout_first_offset > 0 or self.stderr_first_offset > 0


class OutputChunk(models.Model):
    """Bytes that a script wrote, at their true offset. `bytea`, because output need not be text."""

    pk = models.CompositePrimaryKey("job_id", "stream", "offset")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="chunks", db_index=False)
    stream = models.CharField(max_length=6)
    offset = models.BigIntegerField()
    data = models.BinaryField()
    phase = models.CharField(max_length=8, blank=True)
    received_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return f"{self.stream} of {self.job_id} from {self.offset}"


class IdempotencyKey(models.Model):
    """What a caller's `Idempotency-Key` led to; kept for 24 hours."""

    id = models.BigAutoField(primary_key=True)
    user_id = models.UUIDField()
    key = models.CharField(max_length=200)
    body_sha256 = models.CharField(max_length=64)
    job = models.ForeignKey(Job, null=True, on_delete=models.CASCADE, related_name="+")
    batch = models.ForeignKey(Batch, null=True, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user_id", "key"], name="jobs_idempotency_once")]

    def __str__(self) -> str:
        return self.key


class Pin(Sealed):
    """A preset with its variables that one node, or every node with a tag, is to keep fulfilling: checked every night.

    It acts with its owner's rights. `paused_because` says why it does not check any more; empty while it does.
    """

    SEALED = ("preset", "variables", "digest", "node_id", "tag", "owner_id", "owner_name")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    preset = models.CharField(max_length=63, db_index=True)
    variables = models.JSONField(default=dict)
    digest = models.CharField(max_length=64)  # of the variables
    node = models.ForeignKey(Node, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    tag = models.CharField(max_length=63, blank=True, default="")
    owner_id = models.UUIDField()  # no foreign key: a pin whose owner is gone is paused, and says so
    owner_name = models.CharField(max_length=254)
    paused_because = models.CharField(max_length=300, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=(Q(node=None) & ~Q(tag="")) | (Q(node__isnull=False) & Q(tag="")),
                name="jobs_pin_has_one_target",
            ),
            models.UniqueConstraint(
                fields=["preset", "digest", "node", "tag"], nulls_distinct=False, name="jobs_pinned_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.preset} on {self.tag or self.node_id}"


class DriftCheck(models.Model):
    """One check job of a pin. `day` is set for the nightly ones, of which there is one per pin, node and day."""

    id = models.BigAutoField(primary_key=True)
    pin = models.ForeignKey(Pin, on_delete=models.CASCADE, related_name="checks")
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="+", db_index=False)
    day = models.DateField(null=True, blank=True)
    job = models.OneToOneField(Job, null=True, on_delete=models.CASCADE, related_name="drift_check")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["pin", "node", "day"], name="jobs_checked_once_a_day"),
        ]
        indexes: ClassVar = [models.Index(fields=["node", "pin", "-created_at"], name="jobs_drift_of_node")]

    def __str__(self) -> str:
        return f"{self.pin_id} on {self.node_id}"
