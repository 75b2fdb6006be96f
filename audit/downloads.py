"""The log as a download, for the page and for the API."""

from __future__ import annotations

from typing import Any

from audit import services
from audit.exports import FORMATS
from hyprbox.lib import downloads
from hyprbox.lib.actors import Actor
from hyprbox.lib.lanes import TokenBucket

heavy = TokenBucket(rate=10 / 60, burst=10)  # exports and verifications, for each person


def as_file(by: Actor, wanted: dict[str, Any]) -> downloads.RowsResponse:
    """The export as a download; `wanted` is what `ExportQuery` gives."""
    heavy.take(by.id)
    kind = wanted.pop("format")
    lines = services.export_log(by=by, kind=kind, wanted=wanted)
    response = downloads.RowsResponse(lines, content_type=FORMATS[kind])
    return downloads.offer(response, f"hyprbox-audit.{kind}")
