"""The log as a download, for the page and for the API."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse

from audit import services
from audit.exports import FORMATS
from hyprbox.lib import downloads
from hyprbox.lib.actors import Actor


def as_file(by: Actor, wanted: dict[str, Any]) -> StreamingHttpResponse:
    """The export as a download; `wanted` is what `ExportQuery` gives."""
    kind = wanted.pop("format")
    lines = services.export_log(by=by, kind=kind, wanted=wanted)
    response = StreamingHttpResponse(lines, content_type=FORMATS[kind])
    return downloads.offer(response, f"hyprbox-audit.{kind}")
