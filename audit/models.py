"""The audit log: append-only by a trigger in the database."""

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

    objects = EventQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["target", "-id"], name="audit_by_target"),
            models.Index(fields=["actor_name", "-id"], name="audit_by_actor"),
            models.Index(fields=["action", "-id"], name="audit_by_action"),
            models.Index(
                fields=["subject", "-subject_version"],
                name="audit_by_subject",
                condition=models.Q(subject_version__isnull=False),
            ),
        ]

    @property
    def action_label(self) -> str:
        """The action in words."""
        return Action(self.action).label if self.action in Action.values else self.action

    def __str__(self) -> str:
        return f"{self.action} {self.target} by {self.actor_name}"
