"""What the OpenAPI document says of /api/nodes, the heartbeat and the fleet's stream."""

from __future__ import annotations

from typing import Any

import msgspec

from hyprbox.lib.openapi import AGENT, TEXT, TIME, Call, Page, Raw, Shape, list_of, nullable, shape
from nodes import api, wire
from nodes.series import METRICS, SPARK_METRICS, Range
from nodes.status import Status

NUMBER: Shape = {"type": "number"}
STATUS: Shape = {"type": "string", "enum": list(Status.values)}
REASON = shape(code=TEXT, status=STATUS, message=TEXT)
INVENTORY: Shape = {"$ref": "#/components/schemas/Inventory"}

HISTORY = shape(
    range={"type": "string", "enum": list(Range.values)},
    step_seconds={"type": "integer"},
    starts_at=TIME,
    ends_at=TIME,
    series=shape(**{name: list_of({"type": "array", "minItems": 3, "maxItems": 3}) for name in METRICS}),
)
_POINTS = list_of(nullable(NUMBER))
SPARKS = shape(
    range={"type": "string", "enum": list(Range.values)},
    nodes={
        "type": "object",
        "additionalProperties": shape(
            ends_at=TIME, step_seconds={"type": "integer"}, **{name: _POINTS for name in SPARK_METRICS}
        ),
    },
)
ACTIVITY = shape(
    results=list_of(shape(at=TIME, kind=TEXT, title=TEXT, detail=TEXT, status=TEXT, ref=TEXT, extra={"type": "object"}))
)
STATUS_ANSWER = shape(
    node_id=TEXT, status=STATUS, reasons=list_of(REASON), since=nullable(TIME), last_seen_at=nullable(TIME)
)
CALLS = {
    "GET /api/nodes": Call(
        "The fleet", {200: Page(api.NodeSerializer)}, query=api.NodeQuery, text="`status` and `tag` narrow it down."
    ),
    "GET /api/nodes/{node_id}": Call("One node", {200: api.NodeDetailSerializer}),
    "PATCH /api/nodes/{node_id}": Call(
        "Name, group, tag or annotate a node", {200: api.NodeDetailSerializer}, body=api.NodePatch, role="operators"
    ),
    "DELETE /api/nodes/{node_id}": Call(
        "Remove a node",
        {204: None},
        errors=(409,),
        role="admins",
        text="Its queued jobs are cancelled and its token ends; what happened stays in the audit log.",
    ),
    "GET /api/nodes/{node_id}/status": Call("A node's status and its reasons", {200: STATUS_ANSWER}),
    "POST /api/nodes/{node_id}/confirm-machine": Call(
        "Say that a node is one machine",
        {200: api.NodeDetailSerializer},
        errors=(409,),
        role="admins",
        text="After two were suspected: the machine of its next heartbeat is the node, and jobs are handed out again.",
    ),
    "GET /api/nodes/{node_id}/history": Call(
        "A node's measurements over time",
        {200: HISTORY},
        query=api.RangeQuery,
        text="A point is [start of its bucket, average, maximum]; empty buckets are left out. At most 500 points.",
    ),
    "GET /api/nodes/{node_id}/activity": Call(
        "What happened to a node, newest first", {200: ACTIVITY}, query=api.ActivityQuery
    ),
    "GET /api/nodes/sparks": Call(
        "Short series of many nodes at once", {200: SPARKS}, query=api.SparksQuery, text="48 points each."
    ),
}


# --- before Django: what `nodes.wire` takes, and the stream ---

HEARTBEAT = Call(
    "Tell how a node is",
    {
        202: {
            "type": "object",
            "required": ["server_time", "work_waiting"],
            "additionalProperties": False,
            "properties": {
                "server_time": TIME,
                "work_waiting": {"type": "boolean"},
                "next_interval_seconds": {"type": "integer"},
                "audit_checkpoint": shape(n={"type": "integer"}, hash=TEXT, at=TIME, key_id=TEXT, signature=TEXT),
            },
        }
    },
    body=Raw("application/json", {"$ref": "#/components/schemas/Heartbeat"}),
    who=AGENT,
    text="Only a known node's token, or a fresh one, which it pins to the node.",
)
STREAM = Call(
    "The fleet as it changes",
    {200: Raw("text/event-stream", TEXT)},
    text="Server-sent events: `snapshot`, then `heartbeat`, `status` and `activity`; `expired` when the credential ends.",
)
LANES = {"POST /api/nodes/heartbeat": HEARTBEAT, "GET /api/stream/nodes": STREAM}


def components() -> dict[str, Any]:
    """The shapes of a heartbeat, as the lane's own decoder has them."""
    _, found = msgspec.json.schema_components(
        [wire.Heartbeat, wire.Inventory, wire.Metrics, wire.AuditFork], ref_template="#/components/schemas/{name}"
    )
    found["Heartbeat"]["properties"]["inventory"] = nullable(INVENTORY)
    return found
