"""Presets that admins made here. The built-in ones are files, `presets.catalogue`."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from hyprbox.lib.rowmac import Sealed


class CustomPreset(Sealed):
    """A preset by its name, and which of its revisions is in use. It is archived, never deleted: jobs name it."""

    SEALED = ("name", "head", "origin", "created_by", "archived_at")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True)
    head = models.PositiveIntegerField(default=1)
    origin = models.CharField(max_length=63, blank=True, default="")  # the preset it was duplicated from
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    archived_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class PresetRevision(Sealed):
    """One saved state of a preset; the database refuses to change it.

    `document` is the canonical JSON that jobs are rendered from, `source` the YAML as its author wrote it, `sha256` the
    revision that jobs name. `waived` are the codes of lint errors that the author overruled.
    """

    SEALED = ("preset_id", "number", "document", "source", "sha256", "author", "note", "waived")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    preset = models.ForeignKey(CustomPreset, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField()
    document = models.TextField()
    source = models.TextField()
    sha256 = models.CharField(max_length=64)
    author = models.CharField(max_length=254)
    note = models.CharField(max_length=200, blank=True, default="")
    waived = models.JSONField(default=list)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["preset", "number"], name="presets_one_revision_per_number")
        ]

    def __str__(self) -> str:
        return f"{self.preset_id} revision {self.number}"
