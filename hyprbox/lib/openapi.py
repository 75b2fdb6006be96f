"""What the OpenAPI document says of a call. Each app has a table of its calls in its `schema.py`; views stay free of it.

Shapes come from the serializers: one that is strict is closed in the document too, and an answer has all its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar

from drf_spectacular.drainage import warn
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from hyprbox.lib.api import Pages, StrictSerializer
from hyprbox.lib.paging import MOST_COUNTED

Shape = dict[str, Any]
PERSON, AGENT, ANYONE = "person", "agent", "anyone"
SECURITY: dict[str, list[Shape]] = {
    PERSON: [{"accessToken": []}, {"apiKey": []}, {"tokenCookie": []}, {"sessionCookie": []}],
    AGENT: [{"nodeToken": []}],
    ANYONE: [{}],
}
SCHEMES: Shape = {
    "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "From a login."},
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, hbak_..., for programs."},
    "nodeToken": {"type": "http", "scheme": "bearer", "description": "A node's token, hbnt_..., for agents only."},
    "tokenCookie": {
        "type": "apiKey", "in": "cookie", "name": "hb_token",
        "description": "The access token as a cookie; whatever writes needs X-CSRFToken as well.",
    },
    "sessionCookie": {
        "type": "apiKey", "in": "cookie", "name": "hb_session",
        "description": "The dashboard's session; whatever writes needs X-CSRFToken as well.",
    },
}  # fmt: skip
# What any call may be answered with, whoever asks: unreadable requests, credentials, roles and origins, rates, load.
ALWAYS = (400, 401, 403, 429, 503)
ERROR: Shape = {
    "type": "object",
    "description": "The one shape of every error. `fields` names inputs that cannot be used, `detail` holds facts.",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "fields", "detail"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string", "pattern": "^[a-z0-9_]+$"},
                "message": {"type": "string"},
                "fields": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
                "detail": {"type": "object", "additionalProperties": True},
            },
        }
    },
}
TEXT: Shape = {"type": "string"}
BYTES: Shape = {"type": "string", "format": "binary"}
TIME: Shape = {"type": "string", "format": "date-time"}


@dataclass(frozen=True)
class Page:
    """An answer that is a page of these rows."""

    rows: type[serializers.Serializer[Any]]


@dataclass(frozen=True)
class Raw:
    """An answer or a body that is not JSON of a serializer: its media type and JSON schema."""

    media: str
    schema: Shape


@dataclass(frozen=True)
class Call:
    """One method of one address. `answers` by status, None for no body; `errors` beyond those that always may come.

    `who` shows which credential; `role` is told in the description. `headers` are request headers by name.
    `parameters` tells the query where no serializer reads it: whether it is required, and its schema.
    """

    summary: str
    answers: Mapping[int, Any]
    body: Any = None
    query: type[serializers.Serializer[Any]] | None = None
    errors: tuple[int, ...] = ()
    who: str = PERSON
    role: str = ""
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, tuple[bool, Shape]] = field(default_factory=dict)


def nullable(schema: Shape) -> Shape:
    return {"anyOf": [schema, {"type": "null"}]}


def shape(**properties: Shape) -> Shape:
    """A JSON object with exactly these members."""
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }


def list_of(schema: Shape) -> Shape:
    return {"type": "array", "items": schema}


def error_ref(status: int) -> Shape:
    return {"$ref": f"#/components/responses/Error{status}"}


_ERRORS = {
    400: "What was sent cannot be used; `fields` says what and why.",
    401: "No credential, or one that is bad, expired or revoked.",
    403: "A known caller who may not do this.",
    404: "Not there, or not for this caller to see.",
    409: "Not possible in the present state.",
    413: "The body is over the limit.",
    415: "The body is not in the format that this address takes.",
    416: "The bytes asked for, or before those sent, are not stored.",
    422: "This Idempotency-Key was used for another request.",
    429: "Too many requests.",
    503: "The database is away, or there is more to do than can be taken.",
}


def error_responses() -> Shape:
    """The document's `components.responses`."""
    found: Shape = {}
    for status, text in _ERRORS.items():
        answer: Shape = {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        if status in (429, 503):
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
        if status == 401:
            answer["headers"] = {"WWW-Authenticate": {"schema": TEXT}}
        found[f"Error{status}"] = answer
    return found


def errors_of(method: str, path: str, call: Call) -> list[int]:
    """The statuses of the errors that this call may be answered with."""
    found = {*ALWAYS, *call.errors}
    if "{" in path or any(isinstance(answer, Page) for answer in call.answers.values()):
        found.add(404)
    if method in ("POST", "PUT", "PATCH"):
        found |= {413, 415}
    return sorted(found)


class TableSchema(AutoSchema):
    """drf-spectacular's inspector, told by a table instead of guessing. The roof fills `calls`."""

    calls: ClassVar[Mapping[str, Call]] = {}

    @property
    def call(self) -> Call:
        key = f"{self.method} {self.path}"
        if key not in self.calls:
            warn(f"{key} is in no schema.py: say there what it takes and answers.")
            return Call(key, {200: None})
        return self.calls[key]

    def get_operation(self, *args: Any, **kwargs: Any) -> Shape | None:
        operation: Shape | None = super().get_operation(*args, **kwargs)
        if operation:
            for status in errors_of(self.method, self.path, self.call):
                operation["responses"][str(status)] = error_ref(status)
        return operation

    def get_operation_id(self) -> str:
        return operation_id(self.method, self.path)

    def get_summary(self) -> str:
        return self.call.summary

    def get_description(self) -> str:  # type: ignore[override]
        return " ".join(part for part in (self.call.text, f"For {self.call.role}." if self.call.role else "") if part)

    def get_tags(self) -> list[str]:
        return [tag_of(self.path)]

    def get_auth(self) -> list[Shape]:
        return SECURITY[self.call.who]

    def get_filter_backends(self) -> list[Any]:
        return []

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False

    def get_override_parameters(self) -> list[Any]:
        call = self.call
        found: list[Any] = [call.query] if call.query else []
        if any(isinstance(answer, Page) for answer in call.answers.values()):
            found += [_page("page", 1_000_000), _page("page_size", Pages.max_page_size)]
        found += [OpenApiParameter(name, str, "header", description=text) for name, text in call.headers.items()]
        return found

    def get_request_serializer(self) -> Any:
        body = self.call.body
        if isinstance(body, Raw):
            return {body.media: body.schema}
        if isinstance(body, tuple):
            return {each.media: each.schema for each in body}
        return body

    def get_response_serializers(self) -> Any:
        found: dict[Any, OpenApiResponse] = {}
        for status, answer in self.call.answers.items():
            text = HTTPStatus(status).phrase
            if isinstance(answer, Raw | tuple):
                for each in answer if isinstance(answer, tuple) else (answer,):
                    found[status, each.media] = OpenApiResponse(each.schema, text)
            elif isinstance(answer, Page):
                found[status] = OpenApiResponse(self._page_of(answer), text)
            else:
                found[status] = OpenApiResponse(answer, text)
        return found

    def _page_of(self, page: Page) -> Shape:
        rows = self.resolve_serializer(page.rows, "response").ref
        link = nullable({"type": "string", "format": "uri"})
        told = f"Counted to {MOST_COUNTED:,}; one more stands for all that are more."
        count = {"type": "integer", "minimum": 0, "maximum": MOST_COUNTED + 1, "description": told}
        return shape(count=count, next=link, previous=link, results=list_of(rows))

    def _map_basic_serializer(self, serializer: Any, direction: str) -> Shape:
        """What is strict in the code is closed here; every field of an answer is there."""
        mapped: Shape = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, StrictSerializer):
            mapped["additionalProperties"] = False
        else:
            properties = mapped.get("properties", {})
            mapped["required"] = sorted(properties)
            for name in properties:
                properties[name] = {key: value for key, value in properties[name].items() if key != "readOnly"}
        return mapped


def _page(name: str, largest: int) -> OpenApiParameter:
    return OpenApiParameter(name, {"type": "integer", "minimum": 1, "maximum": largest}, "query")


def operation_id(method: str, path: str) -> str:
    """`POST /api/jobs/{job_id}/cancel` -> `post_jobs_by_job_id_cancel`."""
    parts = [
        f"by_{p[1:-1]}" if p.startswith("{") else p.replace(".", "_") for p in path.split("/") if p not in ("", "api")
    ]
    return "_".join([method.lower(), *parts])


def tag_of(path: str) -> str:
    parts = path.strip("/").split("/")
    return parts[1] if parts[0] == "api" else "server"
