"""/api/jobs for people."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox.lib import downloads
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.api import Pages, StrictBooleanField, StrictSerializer, actor_of, chosen, parse, parse_query
from jobs import batches, selectors, services, stops
from jobs.errors import RangeNotSatisfiable
from jobs.models import Batch, Job, Stop
from jobs.states import Mode, Status, Stream
from nodes.status import Status as NodeStatus

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


class JobRowSerializer(serializers.ModelSerializer[Job]):
    """A job in a list."""

    node_id = serializers.CharField(source="node.node_id", read_only=True)
    batch = serializers.UUIDField(source="batch_id", read_only=True, allow_null=True)
    retry_of = serializers.UUIDField(source="retry_of_id", read_only=True, allow_null=True)
    reason = serializers.SerializerMethodField()
    phase = serializers.SerializerMethodField()
    stdout_bytes = serializers.IntegerField(source="transcript.stdout_bytes", read_only=True)
    stderr_bytes = serializers.IntegerField(source="transcript.stderr_bytes", read_only=True)
    stdout_first_offset = serializers.IntegerField(source="transcript.stdout_first_offset", read_only=True)
    stderr_first_offset = serializers.IntegerField(source="transcript.stderr_first_offset", read_only=True)
    truncated = serializers.BooleanField(source="transcript.truncated", read_only=True)

    class Meta:
        model = Job
        fields: tuple[str, ...] = (
            "id", "node_id", "preset", "revision", "mode", "status", "reason", "phase", "changed", "exit_code", "signal",
            "outcome_unknown", "created_by", "created_at", "claimed_at", "started_at", "finished_at", "expires_at",
            "timeout_seconds", "cancel_requested_at", "contact_lost_at", "stdout_bytes", "stderr_bytes",
            "stdout_first_offset", "stderr_first_offset", "truncated", "retry_of", "batch",
        )  # fmt: skip

    def get_reason(self, job: Job) -> str | None:
        return job.reason or None

    def get_phase(self, job: Job) -> str | None:
        return job.phase or None


class JobSerializer(JobRowSerializer):
    """One whole job. `script`, `variables` and `signature` are null for viewers, and for its agent, which has them."""

    late_result = serializers.SerializerMethodField()
    script = serializers.SerializerMethodField()
    variables = serializers.SerializerMethodField()
    signature = serializers.SerializerMethodField()

    class Meta(JobRowSerializer.Meta):
        fields = (
            *JobRowSerializer.Meta.fields,
            "variables", "script", "script_sha256", "signature", "key_id", "phases", "late_result",
        )  # fmt: skip

    def _may_see(self) -> bool:
        return actor_of(self.context["request"]).can(Capability.VIEW_OUTPUT)

    def get_late_result(self, job: Job) -> dict[str, Any] | None:
        """Only what was given up without its agent's word can have one."""
        return job.late_result if job.outcome_unknown else None

    def get_script(self, job: Job) -> str | None:
        return bytes(job.script).decode("utf-8", "replace") if self._may_see() else None

    def get_variables(self, job: Job) -> dict[str, Any] | None:
        return job.variables if self._may_see() else None

    def get_signature(self, job: Job) -> str | None:
        return job.signature if self._may_see() else None


class JobInput(StrictSerializer):
    preset = serializers.CharField(max_length=63)
    variables = serializers.DictField(required=False, default=dict)
    node_id = serializers.CharField(max_length=63)
    mode = serializers.ChoiceField(choices=Mode.choices, required=False, default=Mode.APPLY)
    confirm = serializers.CharField(max_length=63, required=False, allow_blank=True, default="")
    timeout_seconds = serializers.IntegerField(required=False, allow_null=True, default=None)
    expires_in_seconds = serializers.IntegerField(required=False, allow_null=True, default=None)
    allow_background = StrictBooleanField(required=False, default=False)


def _names() -> serializers.ListField:
    return serializers.ListField(
        child=serializers.CharField(max_length=63), required=False, default=list, max_length=1000
    )


class BatchInput(JobInput):
    node_id = None  # type: ignore[assignment]
    node_ids = _names()
    groups = _names()
    tags = _names()
    statuses = serializers.ListField(
        child=serializers.ChoiceField(choices=NodeStatus.choices), required=False, default=list
    )
    wave_size = serializers.IntegerField(required=False, allow_null=True, default=None)
    stop_after_failures = serializers.IntegerField(required=False, allow_null=True, default=None)


class RetryInput(StrictSerializer):
    confirm = serializers.CharField(max_length=63, required=False, allow_blank=True, default="")


class StopInput(StrictSerializer):
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class JobQuery(StrictSerializer):
    status = serializers.ListField(child=serializers.CharField(max_length=80), required=False)
    node_id = serializers.CharField(required=False, max_length=63)
    preset = serializers.CharField(required=False, max_length=63)
    batch = serializers.UUIDField(required=False)
    created_by = serializers.CharField(required=False, max_length=254)
    since = serializers.DateTimeField(required=False)
    page = serializers.CharField(required=False)
    page_size = serializers.CharField(required=False)

    def validate_status(self, given: list[str]) -> list[str]:
        return chosen(given, Status.values)


class OutputQuery(StrictSerializer):
    stream = serializers.ChoiceField(
        choices=Stream.choices,
        default=Stream.STDOUT,
        error_messages={"invalid_choice": "“{input}” is not a stream: stdout or stderr."},
    )


class CancelInput(StrictSerializer):
    force = StrictBooleanField(required=False, default=False)


def _order(given: dict[str, Any]) -> services.Order:
    names = ("preset", "variables", "mode", "confirm", "timeout_seconds", "expires_in_seconds", "allow_background")
    return services.Order(**{name: given[name] for name in names})


class JobList(generics.ListAPIView[Job]):
    serializer_class = JobRowSerializer
    pagination_class = Pages
    queryset = Job.objects.none()

    def get_queryset(self):  # type: ignore[no-untyped-def]
        query = parse_query(JobQuery, self.request)
        query.pop("page", None)
        query.pop("page_size", None)
        return selectors.list_jobs(by=actor_of(self.request), **query)

    def post(self, request: Request) -> Response:
        given = parse(JobInput, request)
        job, is_new = services.queue_job(
            by=actor_of(request),
            order=_order(given),
            node_id=given["node_id"],
            idempotency_key=request.headers.get("Idempotency-Key", ""),
        )
        return Response(JobSerializer(job, context={"request": request}).data, status=201 if is_new else 200)


def _batch(batch: Batch, by: Actor) -> dict[str, Any]:
    """A batch without its jobs, which are a filtered list."""
    return {
        "id": str(batch.pk),
        "preset": batch.preset,
        "created_by": batch.created_by,
        "created_at": batch.created_at,
        "wave_size": batch.wave_size,
        "stop_after_failures": batch.stop_after_failures,
        "stop_over_percent": batch.stop_over_percent,
        "stopped_at": batch.stopped_at,
        "stopped_because": batch.stopped_because or None,
        "counts": selectors.counts_of_batch(by=by, batch=batch),
        "waves": [
            {"number": w.number, "state": w.state, "jobs": w.jobs, "open": w.open, "failed": w.failed}
            for w in selectors.waves(batch)
        ],
    }


class BatchList(APIView):
    def post(self, request: Request) -> Response:
        given = parse(BatchInput, request)
        names = ("node_ids", "groups", "tags", "statuses")
        batch, jobs, is_new = batches.queue_matching(
            by=actor_of(request),
            order=_order(given),
            targets=batches.Targets(**{name: tuple(given[name]) for name in names}),
            pace=batches.Pace(given["wave_size"], given["stop_after_failures"]),
            idempotency_key=request.headers.get("Idempotency-Key", ""),
        )
        rows = JobRowSerializer(jobs, many=True).data
        return Response({"id": str(batch.pk), "jobs": rows}, status=201 if is_new else 200)


class BatchDetail(APIView):
    def get(self, request: Request, batch_id: str) -> Response:
        by = actor_of(request)
        return Response(_batch(selectors.find_batch(by=by, batch_id=batch_id), by))


class BatchCancel(APIView):
    """Cancels what has not ended, waves to come included."""

    def post(self, request: Request, batch_id: str) -> Response:
        parse(StrictSerializer, request)
        by = actor_of(request)
        return Response(_batch(batches.cancel_rest(by=by, batch_id=batch_id), by))


class BatchRetry(APIView):
    """A new batch of those that failed."""

    def post(self, request: Request, batch_id: str) -> Response:
        given = parse(RetryInput, request)
        batch, jobs = batches.retry_failed(by=actor_of(request), batch_id=batch_id, confirm=given["confirm"])
        return Response({"id": str(batch.pk), "jobs": JobRowSerializer(jobs, many=True).data}, status=201)


class StopSwitch(APIView):
    """Whether jobs are handed out at all."""

    def get(self, request: Request) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        return Response(_stop(stops.current()))

    def post(self, request: Request) -> Response:
        given = parse(StopInput, request)
        return Response(_stop(stops.stop(by=actor_of(request), reason=given["reason"])))

    def delete(self, request: Request) -> Response:
        stops.resume(by=actor_of(request))
        return Response(status=204)


def _stop(found: Stop | None) -> dict[str, Any]:
    if found is None:
        return {"stopped": False, "by": None, "at": None, "reason": None}
    return {"stopped": True, "by": found.stopped_by, "at": found.stopped_at, "reason": found.reason or None}


class JobDetail(APIView):
    def get(self, request: Request, job_id: str) -> Response:
        job = selectors.job_detail(by=actor_of(request), job_id=job_id)
        return Response(JobSerializer(job, context={"request": request}).data)


class JobCancel(APIView):
    def post(self, request: Request, job_id: str) -> Response:
        given = parse(CancelInput, request)
        services.request_cancel(by=actor_of(request), job_id=job_id, force=given["force"])
        job = selectors.job_detail(by=actor_of(request), job_id=job_id)
        return Response(JobSerializer(job, context={"request": request}).data)


class JobRetry(APIView):
    def post(self, request: Request, job_id: str) -> Response:
        parse(StrictSerializer, request)
        job = services.retry_job(by=actor_of(request), job_id=job_id)
        return Response(JobSerializer(job, context={"request": request}).data, status=201)


class JobOutput(APIView):
    """Raw bytes. `Range` counts from the first byte that is kept."""

    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        stream = parse_query(OutputQuery, request)["stream"]
        job, stored = selectors.read_output(by=actor_of(request), job_id=job_id, stream=stream)
        response = downloads.offer(ranged(stored.data, request.headers.get("Range", "")), f"{job.pk}.{stream}.log")
        response.headers["X-First-Offset"] = str(stored.first_offset)
        response.headers["X-Total-Bytes"] = str(stored.total)
        return response

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(exc)
        if isinstance(exc, RangeNotSatisfiable):
            response.headers["Content-Range"] = f"bytes */{exc.detail['length']}"
        return response


def ranged(data: bytes, header: str) -> HttpResponse:
    """The whole or, for one satisfiable byte range, 206. Raises `RangeNotSatisfiable`."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or (match[2] and int(match[2]) < int(match[1])):  # what is no range is as good as none (RFC 9110)
        response = HttpResponse(data, content_type="application/octet-stream")
    else:
        first, last, suffix = match.groups()
        if suffix is not None:
            start, end = max(0, len(data) - int(suffix)), len(data)
        else:
            start, end = int(first), min(len(data), int(last) + 1 if last else len(data))
        if start >= len(data) or end <= start:
            raise RangeNotSatisfiable(detail={"length": len(data)})
        response = HttpResponse(data[start:end], status=206, content_type="application/octet-stream")
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    response.headers["Accept-Ranges"] = "bytes"
    return response
