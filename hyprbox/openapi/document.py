"""The whole document: the apps' tables, what is mounted before Django, and what all calls have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from django.urls import URLPattern, get_resolver

from accounts import schema as accounts
from audit import schema as audit
from hyprbox.lib.openapi import (
    ERROR,
    SCHEMES,
    SECURITY,
    Call,
    Raw,
    Shape,
    TableSchema,
    error_ref,
    error_responses,
    errors_of,
    operation_id,
    tag_of,
)
from hyprbox.openapi import roof
from jobs import schema as jobs
from nodes import schema as nodes
from presets import schema as presets

LANES: dict[str, Call] = {**nodes.LANES, **jobs.LANES}
_UUID: Shape = {"type": "string", "format": "uuid"}


class Described(TableSchema):
    """The inspector of every view."""

    calls = {**accounts.CALLS, **audit.CALLS, **roof.TOKENS, **nodes.CALLS, **presets.CALLS, **jobs.CALLS}


def with_doors(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """drf-spectacular's list of endpoints, and those of `by_method`, which it does not see."""
    return endpoints + [
        ("/" + _braced(route), route, method, view)
        for route, callback in routes()
        for method, view in getattr(callback, "views", {}).items()
    ]


def routes() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every address of Django's with its view: `api/jobs/<uuid:job_id>`."""
    waiting = [("", get_resolver().url_patterns)]
    while waiting:
        prefix, patterns = waiting.pop()
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLPattern):
                yield route, pattern.callback
            else:
                waiting.append((route, pattern.url_patterns))


def _braced(route: str) -> str:
    """`jobs/<uuid:job_id>` -> `jobs/{job_id}`."""
    return "/".join(
        "{" + part[1:-1].rpartition(":")[2] + "}" if part.startswith("<") else part for part in route.split("/")
    )


def complete(result: Shape, **_: Any) -> Shape:
    """drf-spectacular's hook: adds what it cannot see, and the shapes that are not serializers'."""
    for name, call in {**LANES, **roof.PLAIN}.items():
        method, path = name.split(" ")
        result["paths"].setdefault(path, {})[method.lower()] = _operation(method, path, call)
    parts = result["components"]
    parts["schemas"] |= {"Error": ERROR, **nodes.components(), **presets.COMPONENTS}
    parts["securitySchemes"] = SCHEMES
    parts["responses"] = error_responses()
    result["paths"] = dict(sorted(result["paths"].items()))
    parts["schemas"] = dict(sorted(parts["schemas"].items()))
    _tidy(result)
    return result


def _operation(method: str, path: str, call: Call) -> Shape:
    found: Shape = {
        "operationId": operation_id(method, path),
        "summary": call.summary,
        "description": call.text,
        "tags": [tag_of(path)],
        "security": SECURITY[call.who],
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _UUID} for name in _variables(path)),
            *({"name": name, "in": "header", "schema": {"type": "string"}, "description": text}
              for name, text in call.headers.items()),
            *({"name": name, "in": "query", "required": required, "schema": schema}
              for name, (required, schema) in call.parameters.items()),
        ],
        "responses": {str(status): _answer(status, answer) for status, answer in call.answers.items()},
    }  # fmt: skip
    if isinstance(call.body, Raw):
        found["requestBody"] = {"required": True, "content": {call.body.media: {"schema": call.body.schema}}}
    if path.startswith("/api/"):
        errors = {str(status): error_ref(status) for status in errors_of(method, path, call)}
    else:
        errors = {str(status): {"description": "A page that says so."} for status in (*call.errors, 429, 503)}
    found["responses"] = {**errors, **found["responses"]}
    return found


def _variables(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _answer(status: int, answer: Any) -> Shape:
    described: Shape = {"description": HTTPStatus(status).phrase}
    if answer is None:
        return described
    raw = answer if isinstance(answer, Raw) else Raw("application/json", answer)
    return {**described, "content": {raw.media: {"schema": raw.schema}}}


def _tidy(value: Any) -> None:
    r"""Python's `\Z` is JSON Schema's `$`, and what may be anything may be null."""
    inner: Any = ()
    if isinstance(value, dict):
        if {} in value.get("oneOf", ()):  # of a JSON field that may be null: anything is both
            del value["oneOf"]
        inner = value.values()
        if isinstance(pattern := value.get("pattern"), str):
            value["pattern"] = pattern.replace(r"\Z", "$")
    elif isinstance(value, list):
        inner = value
    for each in inner:
        _tidy(each)
