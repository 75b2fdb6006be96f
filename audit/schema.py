"""What the OpenAPI document says of /api/audit."""

from __future__ import annotations

from rest_framework import serializers

from audit import api
from hyprbox.lib.openapi import TEXT, Call, Page, Raw


class LogHead(serializers.Serializer[None]):
    n = serializers.IntegerField()
    hash = serializers.CharField()


class FirstBad(serializers.Serializer[None]):
    n = serializers.IntegerField()
    kind = serializers.CharField()
    why = serializers.CharField()


class Verification(serializers.Serializer[None]):
    """`intact` is null when it cannot be told; `why` says the reason."""

    intact = serializers.BooleanField(allow_null=True)
    checked = serializers.IntegerField()
    head = LogHead()
    first_bad = FirstBad(allow_null=True)
    checkpoints = serializers.IntegerField()
    signed_to = serializers.IntegerField()
    sealed_to = serializers.IntegerField()
    pending = serializers.IntegerField()
    seconds = serializers.FloatField()
    why = serializers.CharField(allow_blank=True)


CALLS = {
    "GET /api/audit": Call(
        "The audit log, newest first",
        {200: Page(api.EventSerializer)},
        query=api.EventListQuery,
        role="operators",
        text="Operators get what they did themselves. `before` is an id: only entries older than that one. "
        "`next` uses it, and is as fast at the end of a long log as at its beginning.",
    ),
    "GET /api/audit/export": Call(
        "The audit log as a file",
        {200: (Raw("application/x-ndjson", TEXT), Raw("text/csv", TEXT))},
        query=api.ExportQuery,
        role="operators",
        text="What the list would show, streamed. In CSV no cell begins as a formula would.",
    ),
    "GET /api/audit/verify": Call("Whether the audit log is intact", {200: Verification}, role="operators"),
}
