"""What the OpenAPI document says of /api/jobs and /api/drift, the wait for work and a job's stream."""

from __future__ import annotations

from hyprbox.lib.openapi import AGENT, ANYONE, BYTES, TEXT, TIME, Call, Page, Raw, Shape, list_of, nullable, shape
from jobs import agent_api, api, drift_api
from jobs.states import Status, Stream

INTEGER: Shape = {"type": "integer"}
BOOLEAN: Shape = {"type": "boolean"}
UUID: Shape = {"type": "string", "format": "uuid"}
JOB_ROWS: Shape = list_of({"$ref": "#/components/schemas/JobRow"})
BATCH = shape(
    id=UUID,
    preset=TEXT,
    created_by=TEXT,
    created_at=TIME,
    wave_size=nullable(INTEGER),
    stop_after_failures=nullable(INTEGER),
    stop_over_percent=nullable(INTEGER),
    stopped_at=nullable(TIME),
    stopped_because=nullable(TEXT),
    counts=shape(**{status: INTEGER for status in Status.values}),
    waves=list_of(shape(number=INTEGER, state=TEXT, jobs=INTEGER, open=INTEGER, failed=INTEGER)),
)
NEW_BATCH = shape(id=UUID, jobs=JOB_ROWS)
STOP = shape(stopped=BOOLEAN, by=nullable(TEXT), at=nullable(TIME), reason=nullable(TEXT))
NODE_STATE: dict[str, Shape] = {
    "node_id": TEXT,
    "state": TEXT,
    "drifted_since": nullable(TIME),
    "checked_at": nullable(TIME),
    "job": nullable(UUID),
}
PIN: dict[str, Shape] = {
    "id": UUID,
    "preset": TEXT,
    "variables": nullable({"type": "object", "additionalProperties": True}),
    "node_id": nullable(TEXT),
    "tag": nullable(TEXT),
    "owner": TEXT,
    "created_at": TIME,
    "paused_because": nullable(TEXT),
    "nodes": INTEGER,
    "drifted": INTEGER,
    "failed": INTEGER,
    "drifted_since": nullable(TIME),
    "summary": TEXT,
}
PIN_WITH_NODES = shape(**PIN, results=list_of(shape(**NODE_STATE)))
_IDEMPOTENCY = {"Idempotency-Key": "For 24 hours a repeat with this key makes nothing new and answers 200."}
PEOPLE = {
    "GET /api/jobs": Call("Jobs, newest first", {200: Page(api.JobRowSerializer)}, query=api.JobQuery),
    "POST /api/jobs": Call(
        "Run a preset on a node",
        {200: api.JobSerializer, 201: api.JobSerializer},
        body=api.JobInput,
        headers=_IDEMPOTENCY,
        errors=(409, 422),
        role="operators",
    ),
    "GET /api/jobs/{job_id}": Call(
        "One job", {200: api.JobSerializer}, text="`script`, `variables` and `signature` are null for viewers."
    ),
    "GET /api/jobs/{job_id}/output": Call(
        "What a job wrote",
        {200: Raw("application/octet-stream", BYTES), 206: Raw("application/octet-stream", BYTES)},
        query=api.OutputQuery,
        headers={"Range": "Bytes, counted from the first one that is kept."},
        errors=(416,),
        role="operators",
    ),
    "POST /api/jobs/{job_id}/cancel": Call(
        "Cancel a job", {200: api.JobSerializer}, body=api.CancelInput, errors=(409,), role="operators"
    ),
    "POST /api/jobs/{job_id}/retry": Call("Run a job again", {201: api.JobSerializer}, errors=(409,), role="operators"),
    "POST /api/jobs/batches": Call(
        "Run a preset on many nodes",
        {200: NEW_BATCH, 201: NEW_BATCH},
        body=api.BatchInput,
        headers=_IDEMPOTENCY,
        errors=(409, 422),
        role="operators",
        text="All or nothing.",
    ),
    "GET /api/jobs/batches/{batch_id}": Call("How far a batch is, wave by wave", {200: BATCH}),
    "POST /api/jobs/batches/{batch_id}/cancel": Call(
        "Cancel what has not ended of a batch", {200: BATCH}, errors=(409,), role="operators"
    ),
    "POST /api/jobs/batches/{batch_id}/retry": Call(
        "A new batch of those that failed",
        {201: NEW_BATCH},
        body=api.RetryInput,
        errors=(409,),
        role="operators",
        text="Of more than ten `confirm` is the preset's name.",
    ),
    "GET /api/jobs/stop": Call("Whether jobs are handed out at all", {200: STOP}),
    "POST /api/jobs/stop": Call("Hand out no more jobs", {200: STOP}, body=api.StopInput, role="operators"),
    "DELETE /api/jobs/stop": Call("Hand out jobs again", {204: None}, role="admins"),
}
DRIFT = {
    "GET /api/drift": Call(
        "All pins at a glance, and each node that drifted",
        {
            200: shape(
                pins=INTEGER,
                paused=INTEGER,
                checks=INTEGER,
                drifted=INTEGER,
                failed=INTEGER,
                results=list_of(shape(pin=UUID, preset=TEXT, **NODE_STATE)),
            )
        },
    ),
    "GET /api/drift/pins": Call(
        "The pins",
        {200: shape(count=INTEGER, next={"type": "null"}, previous={"type": "null"}, results=list_of(shape(**PIN)))},
        query=drift_api.PinQuery,
        errors=(404,),
    ),
    "POST /api/drift/pins": Call(
        "Pin a preset to a node or a tag",
        {201: PIN_WITH_NODES},
        body=drift_api.PinBody,
        errors=(404, 409),
        role="admins",
    ),
    "GET /api/drift/pins/{pin_id}": Call("One pin with the state of its nodes", {200: PIN_WITH_NODES}),
    "DELETE /api/drift/pins/{pin_id}": Call("Remove a pin", {204: None}, role="admins"),
    "POST /api/drift/pins/{pin_id}/check": Call(
        "Check a pin now",
        {201: shape(id=UUID, jobs=list_of(shape(id=UUID, node_id=TEXT)))},
        errors=(409,),
        role="operators",
    ),
    "POST /api/drift/pins/{pin_id}/resume": Call(
        "Check a paused pin again, as yourself", {200: PIN_WITH_NODES}, errors=(409,), role="admins"
    ),
}
AGENTS = {
    "GET /api/agent/keys": Call(
        "The keys that jobs are signed with",
        {
            200: shape(
                version=INTEGER,
                keys=list_of(shape(key_id=TEXT, public_key=TEXT, retired=BOOLEAN)),
                signed_by=TEXT,
                signature=TEXT,
            )
        },
        who=ANYONE,
    ),
    "POST /api/jobs/{job_id}/start": Call(
        "The agent is about to run the job",
        {200: shape(lease_seconds=INTEGER)},
        body=agent_api.ClaimInput,
        errors=(409,),
        who=AGENT,
    ),
    "POST /api/jobs/{job_id}/output": Call(
        "What the job wrote",
        {
            200: shape(
                next_offset=shape(**{stream: INTEGER for stream in Stream.values}),
                cancel_requested=BOOLEAN,
                lease_seconds=INTEGER,
                send_after_ms=INTEGER,
            )
        },
        body=agent_api.OutputInput,
        errors=(409, 416),
        who=AGENT,
        text="All chunks or none. Without chunks it renews the lease.",
    ),
    "POST /api/jobs/{job_id}/complete": Call(
        "The job has ended", {200: api.JobSerializer}, body=agent_api.CompleteInput, errors=(409,), who=AGENT
    ),
}
CALLS = {**PEOPLE, **DRIFT, **AGENTS}

# --- before Django ---

PENDING_QUERY: dict[str, tuple[bool, Shape]] = {
    "node_id": (True, {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}),
    "request_id": (True, UUID),
    "wait": (False, {"type": "number", "minimum": 0, "maximum": 30, "default": 25}),
    "reconcile": (False, {"type": "string", "enum": ["0", "1"], "default": "0"}),
}
PENDING = Call(
    "Wait for work",
    {
        200: {
            "type": "object",
            "required": ["job", "cancel", "poll_after_ms"],
            "additionalProperties": False,
            "properties": {
                "job": nullable(
                    shape(id=UUID, claim_id=UUID, payload=TEXT, signature=TEXT, key_id=TEXT, lease_seconds=INTEGER)
                ),
                "cancel": list_of(UUID),
                "poll_after_ms": INTEGER,
                "holding": list_of(shape(id=UUID, claim_id=UUID, status=TEXT, cancel_requested=BOOLEAN)),
            },
        }
    },
    parameters=PENDING_QUERY,
    who=AGENT,
    text="Answers as soon as there is work or a cancel for this node, else after `wait` seconds.",
)
STREAM = Call(
    "A job's output as it is written",
    {200: Raw("text/event-stream", TEXT)},
    role="operators",
    headers={"Last-Event-ID": "Where to go on: stdout:123,stderr:45."},
    text="Server-sent events: `stdout` and `stderr` with {offset, next_offset, text}, `status`, `done`, `expired`.",
)
LANES = {"GET /api/jobs/pending": PENDING, "GET /api/jobs/{job_id}/stream": STREAM}
