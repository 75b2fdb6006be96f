"""Managed servers, their newest figures, and their history.

`Node` is written by every heartbeat, so no index covers a column that a heartbeat changes and its pages
keep room for the next version of a row (HOT updates; the migration sets the fillfactor). `Heartbeat`,
`FiveMinutes` and `Hour` are partitioned by time and keyed (node, at): the migration and `nodes.history`
own their tables.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Self

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from nodes import names
from nodes.fields import RealField
from nodes.sql import StatusCase
from nodes.status import Rules, Status

SPARK_POINTS = 48


class NodeQuerySet(models.QuerySet["Node"]):
    def present(self) -> Self:
        """Nodes that were not removed."""
        return self.filter(removed_at__isnull=True)

    def seen(self) -> Self:
        """Nodes that have reported at least once, however long ago."""
        return self.filter(last_seen_at__isnull=False)

    def named(self, node_ids: Iterable[str]) -> Self:
        return self.filter(node_id__in=[node_id for node_id in node_ids if names.is_node_id(node_id)])

    def called(self, node_id: str) -> Self:
        """The node by that name, or none: what cannot be a name is not asked for."""
        return self.filter(node_id=node_id) if names.is_node_id(node_id) else self.none()

    def in_group(self, group: str) -> Self:
        return self.filter(group=group)

    def tagged(self, tag: str) -> Self:
        return self.filter(tags__contains=[tag])

    def matching(self, text: str) -> Self:
        """Whose name, address, system, group or tag contains `text`."""
        return self.filter(
            Q(node_id__icontains=text)
            | Q(display_name__icontains=text)
            | Q(group__icontains=text)
            | Q(region__icontains=text)
            | Q(tags__contains=[text])
            | Q(inventory__hostname__icontains=text)
            | Q(inventory__os__icontains=text)
            | Q(inventory__ip_addresses__icontains=text)
        )

    def judged(self, rules: Rules) -> Self:
        """With `effective_status`, by the same rule as `nodes.status.judge`."""
        return self.annotate(effective_status=StatusCase(rules))

    def with_status(self, rules: Rules, statuses: Iterable[str]) -> Self:
        return self.judged(rules).filter(effective_status__in=list(statuses))


class Node(models.Model):
    """One managed server. `id` is never reused; `node_id` is a name that is free again after a removal."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    node_id = models.CharField(max_length=names.MAX_LENGTH, validators=[RegexValidator(names.PATTERN)])
    display_name = models.CharField(max_length=120, blank=True, default="")
    group = models.CharField(max_length=63, blank=True, default="")
    tags = ArrayField(models.CharField(max_length=63), blank=True, default=list)
    notes = models.TextField(max_length=10_000, blank=True, default="")
    concurrency = models.PositiveSmallIntegerField(default=1, help_text="How many jobs may run at once.")
    created_at = models.DateTimeField(db_default=Now())
    removed_at = models.DateTimeField(null=True, blank=True)

    # What the agent said last.
    region = models.CharField(max_length=63, blank=True, default="")
    agent_version = models.CharField(max_length=40, blank=True, default="")
    interval_seconds = models.PositiveIntegerField(default=60)
    first_seen_at = models.DateTimeField(null=True, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    cpu_percent = models.FloatField(null=True, blank=True)
    memory_percent = models.FloatField(null=True, blank=True)
    disk_percent = models.FloatField(null=True, blank=True)
    metrics = models.JSONField(default=dict, blank=True, help_text="All that the last heartbeat measured.")
    inventory = models.JSONField(default=dict, blank=True)
    inventory_at = models.DateTimeField(null=True, blank=True)
    clock_offset_seconds = models.FloatField(null=True, blank=True, help_text="Its clock minus the database's.")

    # Which machine this is, and the highest that its agent counted: told by its first heartbeat. From then on heartbeats
    # are compared with it. `misfit` says what of the last one did not fit; `sightings` is what `nodes.clones` remembers.
    machine_id = models.CharField(max_length=64, blank=True, default="")
    instance_id = models.CharField(max_length=64, blank=True, default="")
    beat = models.BigIntegerField(null=True, blank=True)
    identified_at = models.DateTimeField(null=True, blank=True)
    misfit = models.CharField(max_length=8, null=True, blank=True)
    sightings = models.JSONField(default=dict, db_default={}, blank=True)
    clone_suspected_at = models.DateTimeField(null=True, blank=True)

    # The status that was announced last, and since when. What holds now is always computed: `nodes.status`.
    announced_status = models.CharField(max_length=8, choices=Status.choices, default=Status.UNKNOWN)
    announced_at = models.DateTimeField(db_default=Now())

    objects = NodeQuerySet.as_manager()

    class Meta:
        ordering = ["node_id"]
        constraints = [
            models.UniqueConstraint(
                fields=["node_id"], condition=Q(removed_at__isnull=True), name="nodes_node_one_of_a_name"
            ),
            models.CheckConstraint(condition=Q(announced_status__in=Status.values), name="nodes_node_status"),
        ]

    def __str__(self) -> str:
        return self.node_id

    @property
    def is_removed(self) -> bool:
        return self.removed_at is not None

    @property
    def was_seen(self) -> bool:
        """Whether it ever reported."""
        return self.last_seen_at is not None

    @property
    def label(self) -> str:
        """What a person reads: the display name, or the node_id."""
        return self.display_name or self.node_id


class StatusFlip(models.Model):
    """A change of a node's effective status, as it was noticed."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="flips", db_index=False)
    at = models.DateTimeField(db_default=Now())
    before = models.CharField(max_length=8, choices=Status.choices)
    after = models.CharField(max_length=8, choices=Status.choices)
    reasons = models.JSONField(default=list)

    class Meta:
        indexes = [
            models.Index(fields=["node", "-at"], name="nodes_flip_node_at"),
            models.Index(fields=["-at"], name="nodes_flip_at"),
        ]

    def __str__(self) -> str:
        return f"{self.before} -> {self.after}"


class Sparkline(models.Model):
    """The last 48 buckets of one node, drawn without reading its history. A missing bucket is null.

    `ends_at` is the end of the newest bucket; `step_seconds` grows with the node's age up to 1,800 (24 hours).
    """

    node = models.OneToOneField(Node, on_delete=models.CASCADE, primary_key=True, related_name="sparkline")
    ends_at = models.DateTimeField()
    step_seconds = models.PositiveIntegerField()
    cpu_percent = ArrayField(RealField(null=True), size=SPARK_POINTS)
    memory_percent = ArrayField(RealField(null=True), size=SPARK_POINTS)
    disk_percent = ArrayField(RealField(null=True), size=SPARK_POINTS)

    def __str__(self) -> str:
        return f"{self.node_id} until {self.ends_at}"


class Measurement(models.Model):
    """A row of history: what was measured of `node` at `at` (the database's clock)."""

    pk = models.CompositePrimaryKey("node", "at")
    node = models.UUIDField()
    at = models.DateTimeField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.node} at {self.at}"


class Heartbeat(Measurement):
    """One accepted heartbeat. Daily partitions, kept for a week."""

    cpu_percent = RealField(null=True)
    memory_percent = RealField(null=True)
    disk_percent = RealField(null=True)
    load_1 = RealField(null=True)
    net_rx_bps = RealField(null=True)
    net_tx_bps = RealField(null=True)


class Rollup(Measurement):
    """Averages and maxima of the bucket that begins at `at`."""

    samples = models.PositiveIntegerField()
    cpu_percent_avg = RealField(null=True)
    cpu_percent_max = RealField(null=True)
    memory_percent_avg = RealField(null=True)
    memory_percent_max = RealField(null=True)
    disk_percent_avg = RealField(null=True)
    disk_percent_max = RealField(null=True)
    load_1_avg = RealField(null=True)
    load_1_max = RealField(null=True)
    net_rx_bps_avg = RealField(null=True)
    net_rx_bps_max = RealField(null=True)
    net_tx_bps_avg = RealField(null=True)
    net_tx_bps_max = RealField(null=True)

    class Meta(Measurement.Meta):
        abstract = True


class FiveMinutes(Rollup):
    """Daily partitions, kept for 30 days."""


class Hour(Rollup):
    """Monthly partitions, kept for a year."""
