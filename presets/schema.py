"""What the OpenAPI document says of /api/presets."""

from __future__ import annotations

from hyprbox.lib.openapi import TEXT, TIME, Call, Raw, Shape, list_of, nullable, shape
from presets import api
from presets.documents import PARTS

INTEGER: Shape = {"type": "integer"}
OBJECT: Shape = {"type": "object", "additionalProperties": True}
VARIABLE: Shape = {
    "type": "object",
    "required": ["name", "type"],
    "properties": {"name": TEXT, "type": TEXT, "required": {"type": "boolean"}, "default": {}, "help": TEXT},
    "additionalProperties": True,
    "description": "With the keys of its type: min, max, pattern, choices, max_length and so on.",
}
_HEAD: dict[str, Shape] = {
    "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]{1,62}$"},
    "title": TEXT,
    "description": TEXT,
    "category": TEXT,
    "risk": {"type": "string", "enum": ["safe", "confirm", "dangerous"]},
    "systems": list_of(TEXT),
    "tested": list_of(TEXT),
    "timeout_seconds": INTEGER,
    "variables": list_of(VARIABLE),
}
_PARTS: dict[str, Shape] = {part: TEXT for part in PARTS}
_FACTS: dict[str, Shape] = {
    "parts": list_of({"type": "string", "enum": list(PARTS)}),
    "revision": TEXT,
    "builtin": {"type": "boolean"},
}
_CUSTOM: dict[str, Shape] = {
    "number": INTEGER,
    "saved_by": TEXT,
    "saved_at": nullable(TIME),
    "origin": nullable(TEXT),
    "archived": {"type": "boolean"},
}
DOCUMENT = {**shape(**_HEAD), "properties": {**_HEAD, **_PARTS}}
SUMMARY = {**shape(**_HEAD, **_FACTS), "properties": {**_HEAD, **_FACTS, **_CUSTOM}}
WHOLE = {
    **shape(**_HEAD, **_FACTS, warnings=list_of(TEXT)),
    "properties": {**_HEAD, **_FACTS, **_CUSTOM, **_PARTS, "warnings": list_of(TEXT)},
}
_FACTS_OF_REVISION: dict[str, Shape] = {
    "revision": TEXT,
    "number": INTEGER,
    "author": TEXT,
    "note": TEXT,
    "waived": list_of(TEXT),
    "created_at": TIME,
}
COMPONENTS: dict[str, Shape] = {
    "PresetDocument": DOCUMENT,
    "PresetSummary": SUMMARY,
    "Preset": WHOLE,
    # What is sent may leave out all that has a default; what it may hold in detail is told by the answer.
    "PresetDraft": {**DOCUMENT, "required": ["name", "apply"]},
}


def _ref(name: str) -> Shape:
    return {"$ref": f"#/components/schemas/{name}"}


def _all_of(rows: Shape) -> Shape:
    return shape(count=INTEGER, next={"type": "null"}, previous={"type": "null"}, results=list_of(rows))


_BODY = (
    Raw("application/json", _ref("PresetDraft")),
    *(Raw(f"application/{kind}", TEXT) for kind in ("yaml", "x-yaml")),
)
_IF_MATCH = {"If-Match": "The ETag of the revision that was edited; 409 when it is not the newest any more."}
CALLS = {
    "GET /api/presets": Call("The presets", {200: _all_of(_ref("PresetSummary"))}, query=api.ListQuery),
    "POST /api/presets": Call(
        "Make a preset", {201: _ref("Preset")}, body=_BODY, query=api.SaveQuery, errors=(409,), role="admins"
    ),
    "GET /api/presets/{name}": Call("One preset", {200: _ref("Preset")}, errors=(409,)),
    "PUT /api/presets/{name}": Call(
        "Save the next revision of a preset",
        {200: _ref("Preset")},
        body=_BODY,
        query=api.SaveQuery,
        headers=_IF_MATCH,
        errors=(409,),
        role="admins",
    ),
    "POST /api/presets/{name}/render": Call(
        "The script with these values, exactly as it would run",
        {200: shape(script=TEXT, sha256=TEXT, revision=TEXT, warnings=list_of(TEXT))},
        body=api.RenderBody,
        errors=(409,),
        role="operators",
        text="`warnings` are sentences, of what looks like a secret in a variable that is stored, for instance.",
    ),
    "GET /api/presets/{name}/export": Call(
        "The document as YAML", {200: Raw("application/yaml", _ref("PresetDocument"))}, errors=(409,)
    ),
    "GET /api/presets/{name}/revisions": Call(
        "A preset's revisions, newest first", {200: _all_of(shape(**_FACTS_OF_REVISION))}, errors=(409,)
    ),
    "GET /api/presets/{name}/revisions/{number}": Call(
        "One revision",
        {200: shape(**_FACTS_OF_REVISION, document=_ref("PresetDocument"), source=TEXT)},
        errors=(409,),
    ),
    "GET /api/presets/{name}/diff": Call(
        "How two revisions differ",
        {200: shape(old=INTEGER, new=INTEGER, diff=TEXT)},
        query=api.DiffQuery,
        errors=(409,),
    ),
    "POST /api/presets/{name}/duplicate": Call(
        "Copy a preset under another name", {201: _ref("Preset")}, body=api.DuplicateBody, errors=(409,), role="admins"
    ),
    "POST /api/presets/{name}/archive": Call("Put a preset away", {200: _ref("Preset")}, errors=(409,), role="admins"),
    "POST /api/presets/{name}/restore": Call("Take it out again", {200: _ref("Preset")}, errors=(409,), role="admins"),
}
