"""Tokens that let one agent speak for one node."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from hyprbox.lib.rowmac import Sealed


class NodeTokenQuerySet(models.QuerySet["NodeToken"]):
    def usable(self) -> NodeTokenQuerySet:
        """Neither revoked nor expired, by the database's clock."""
        return self.filter(revoked_at=None).exclude(expires_at__lte=Now())


class NodeToken(Sealed):
    """Prefix and digest of one token. `node_id` is empty until the token is pinned to a node."""

    SEALED = ("prefix", "digest", "node_id", "node_pk", "expires_at", "revoked_at")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    prefix = models.CharField(max_length=8, db_index=True)
    digest = models.BinaryField(max_length=32)
    node_id = models.CharField(max_length=63, blank=True, default="", db_index=True)
    node_pk = models.UUIDField(null=True, blank=True, db_index=True)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    replaces = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="successors")

    objects = NodeTokenQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at"]
        verbose_name = "node token"

    def __str__(self) -> str:
        return f"{self.name} (hbnt_{self.prefix}…)"
