"""/api/jobs/{id}/start, output and complete, and the keys: what agents call through DRF."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox.lib import signing
from hyprbox.lib.api import IsAgent, StrictBooleanField, StrictSerializer, actor_of, parse
from hyprbox.lib.errors import Unavailable
from jobs import reports, selectors, together
from jobs.api import JobSerializer
from jobs.output import Piece
from jobs.states import CHUNK_LIMIT, RUNNING_LEASE_SECONDS, Reason, Stream
from tokens import selectors as tokens
from tokens.authentication import NodeTokenAuthentication
from tokens.errors import BadToken
from tokens.models import NodeToken

PHASES = ("check", "apply", "verify", "rollback")
STATUSES = ("succeeded", "failed", "cancelled")
MAX_OFFSET = 2**62


@extend_schema_field({"type": "string", "contentEncoding": "base64"})
class Base64Field(serializers.Field[bytes, str, str, Any]):
    """Strict base64 of at most 256 KiB."""

    def to_internal_value(self, data: Any) -> bytes:
        if not isinstance(data, str):
            raise serializers.ValidationError("Base64 text is needed.")
        try:
            raw = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise serializers.ValidationError("This is not valid base64.") from None
        if len(raw) > CHUNK_LIMIT:
            raise serializers.ValidationError(f"A chunk has at most {CHUNK_LIMIT} bytes.")
        return raw

    def to_representation(self, value: bytes) -> str:
        return base64.b64encode(value).decode()


@extend_schema_field({"type": "string", "enum": [*STATUSES, *map(str.upper, STATUSES)]})
class StatusField(serializers.Field[str, str, str, Any]):
    """succeeded, failed or cancelled, in either case."""

    def to_internal_value(self, data: Any) -> str:
        text = data.lower() if isinstance(data, str) else ""
        if text not in STATUSES:
            raise serializers.ValidationError(f"One of {', '.join(STATUSES)}.")
        return text

    def to_representation(self, value: str) -> str:
        return value


class ClaimInput(StrictSerializer):
    claim_id = serializers.UUIDField()


class ChunkInput(StrictSerializer):
    stream = serializers.ChoiceField(choices=Stream.choices)
    offset = serializers.IntegerField(min_value=0, max_value=MAX_OFFSET)
    data = Base64Field()  # type: ignore[assignment]
    skipped = StrictBooleanField(required=False, default=False)


class OutputInput(ClaimInput):
    phase = serializers.ChoiceField(choices=PHASES, required=False, allow_blank=True, allow_null=True, default="")
    chunks = serializers.ListField(child=ChunkInput(), max_length=64)


class PhaseInput(StrictSerializer):
    name = serializers.ChoiceField(choices=PHASES)
    exit_code = serializers.IntegerField(allow_null=True, required=False, min_value=0, max_value=255)
    signal = serializers.IntegerField(allow_null=True, required=False, min_value=1, max_value=64)
    duration_ms = serializers.IntegerField(allow_null=True, required=False, min_value=0, max_value=MAX_OFFSET)
    skipped = StrictBooleanField(required=False, default=False)


class CompleteInput(ClaimInput):
    status = StatusField()
    reason = serializers.ChoiceField(choices=Reason.choices, required=False, allow_null=True, allow_blank=True)
    exit_code = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=255)
    signal = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=64)
    phases = serializers.ListField(child=PhaseInput(), max_length=4)
    changed = StrictBooleanField(required=False, allow_null=True)
    outcome_unknown = StrictBooleanField(required=False, default=False)
    stdout_bytes = serializers.IntegerField(min_value=0, max_value=MAX_OFFSET)
    stderr_bytes = serializers.IntegerField(min_value=0, max_value=MAX_OFFSET)
    stdout_sha256 = serializers.RegexField(r"^[0-9a-f]{64}\Z")
    stderr_sha256 = serializers.RegexField(r"^[0-9a-f]{64}\Z")
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class AgentView(APIView):
    authentication_classes: Sequence[Any] = (NodeTokenAuthentication,)
    permission_classes: Sequence[Any] = (IsAgent,)


class ReportAuthentication(NodeTokenAuthentication):
    """The token of a removed node may still tell of the jobs that run there: else they would never hear of their cancel."""

    def find(self, text: str, request: Request) -> NodeToken:
        try:
            return super().find(text, request)
        except BadToken:
            token = tokens.find_revoked(text)
            if not selectors.may_still_report(token, job_id=request.parser_context["kwargs"]["job_id"]):
                raise
            return token


class Start(AgentView):
    def post(self, request: Request, job_id: Any) -> Response:
        given = parse(ClaimInput, request)
        together.start(by=actor_of(request), job_id=job_id, claim_id=given["claim_id"])
        return Response({"lease_seconds": RUNNING_LEASE_SECONDS})


class Output(AgentView):
    authentication_classes = (ReportAuthentication,)

    def post(self, request: Request, job_id: Any) -> Response:
        given = parse(OutputInput, request)
        receipt = reports.add_output(
            by=actor_of(request),
            job_id=job_id,
            claim_id=given["claim_id"],
            pieces=[Piece(**chunk) for chunk in given["chunks"]],
            phase=given["phase"] or "",
        )
        return Response(asdict(receipt))


class Complete(AgentView):
    authentication_classes = (ReportAuthentication,)

    def post(self, request: Request, job_id: Any) -> Response:
        given = parse(CompleteInput, request)
        claim_id = given.pop("claim_id")
        given["reason"] = given.get("reason") or ""
        given["phases"] = [dict(phase) for phase in given["phases"]]
        job = together.complete(by=actor_of(request), job_id=job_id, claim_id=claim_id, result=reports.Result(**given))
        return Response(JobSerializer(job, context={"request": request}).data)


class Keys(AgentView):
    """The key set that agents pin: public keys, so anyone may read it."""

    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request) -> Response:
        try:
            return Response(signing.key_set().as_answer())
        except signing.SigningKeyUnusable as error:
            raise Unavailable("The signing key cannot be used right now.") from error
