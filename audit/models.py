"""The audit log: append-only by triggers in the database, and chained.

`canonical` is made by a trigger when an entry is inserted; `n` and `hash` by the sequencer, within a second.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from audit.actions import Action


class EventQuerySet(models.QuerySet["Event"]):
    def newest_first(self) -> EventQuerySet:
        return self.order_by("-id")


class Event(models.Model):
    """One act: who, what, on what, when (the database's clock), and harmless facts about it.

    Names are kept as text, so that history outlives what it describes.
    """

    at = models.DateTimeField(db_default=Now(), editable=False)
    action = models.CharField(max_length=60)  # one of actions.Action
    actor_kind = models.CharField(max_length=12)
    actor_id = models.CharField(max_length=64, blank=True)
    actor_name = models.CharField(max_length=254)
    target = models.CharField(max_length=255, blank=True)
    detail = models.JSONField(default=dict)
    ip = models.CharField(max_length=45, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    # The sealed row that the act left, as table:pk, and the version it has since.
    subject = models.CharField(max_length=100, blank=True, default="")
    subject_version = models.PositiveIntegerField(null=True, blank=True)
    canonical = models.BinaryField(editable=False)
    n = models.BigIntegerField(null=True, unique=True, editable=False)
    hash = models.BinaryField(max_length=32, null=True, editable=False)

    objects = EventQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["target", "-id"], name="audit_by_target"),
            models.Index(fields=["actor_name", "-id"], name="audit_by_actor"),
            models.Index(fields=["action", "-id"], name="audit_by_action"),
            models.Index(fields=["actor_id", "-id"], name="audit_by_person", condition=models.Q(actor_kind="user")),
            models.Index(
                fields=["subject", "-subject_version"],
                name="audit_by_subject",
                condition=models.Q(subject_version__isnull=False),
            ),
            models.Index(fields=["id"], condition=models.Q(n__isnull=True), name="audit_not_yet_chained"),
        ]

    @property
    def action_label(self) -> str:
        """The action in words."""
        return Action(self.action).label if self.action in Action.values else self.action

    def __str__(self) -> str:
        return f"{self.action} {self.target} by {self.actor_name}"


class Denial(models.Model):
    """How often someone was refused in this minute, and in the last one before it: the log has the first of each."""

    key = models.TextField(primary_key=True)
    minute = models.DateTimeField(db_index=True)
    count = models.BigIntegerField()
    last_minute = models.DateTimeField(null=True)
    last_count = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.key}: {self.count} at {self.minute:%Y-%m-%d %H:%M}"


class Checkpoint(models.Model):
    """The head of the chain at one moment, signed with the key that jobs are signed with. Agents keep copies."""

    n = models.BigIntegerField(primary_key=True)
    hash = models.BinaryField(max_length=32)
    at = models.DateTimeField()
    key_id = models.CharField(max_length=16)
    signature = models.CharField(max_length=120)

    def __str__(self) -> str:
        return f"entry {self.n} at {self.at:%Y-%m-%d %H:%M:%S}"
