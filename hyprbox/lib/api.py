"""The API's common ground: strict JSON in, one error shape out, pages of results, default deny."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest
from rest_framework import exceptions, serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from hyprbox.lib import errors
from hyprbox.lib.actors import Actor, Kind
from hyprbox.lib.middleware import as_hyprbox_error, tell_refusal
from hyprbox.lib.paging import MOST_PAGES, LongPaginator

MAX_DEPTH = 20
MAX_KEYS = 1000

log = structlog.get_logger(__name__)


def actor_of(request: Request | HttpRequest) -> Actor:
    """Who calls. DRF's authentication classes fill `request.auth` with the actor."""
    auth = getattr(request, "auth", None)
    if isinstance(auth, Actor):
        return auth
    http = getattr(request, "_request", request)
    actor = getattr(http, "actor", None)
    if isinstance(actor, Actor) and actor.kind is Kind.ANONYMOUS:
        return actor
    return Actor.anonymous(ip=getattr(http, "client_ip", ""), request_id=getattr(http, "id", ""))


class IsPerson(BasePermission):
    """A logged-in person or a program with a person's key. The default of every route."""

    def has_permission(self, request: Request, view: object) -> bool:
        return actor_of(request).kind is Kind.USER


class IsAgent(BasePermission):
    """An agent with a node token."""

    def has_permission(self, request: Request, view: object) -> bool:
        return actor_of(request).kind is Kind.AGENT


class AlwaysJSON(BaseContentNegotiation):
    """The API speaks JSON whatever the Accept header says."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        return next((p for p in parsers if p.media_type == kind), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


def _no_constant(name: str) -> Any:
    raise errors.MalformedBody(f"{name} is not a JSON number.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise errors.MalformedBody(f"{text[:40]} is too large for a number.")
    return number


def check_shape(value: Any) -> None:
    """Refuse what no honest client sends: deep nesting, thousands of keys, NUL, lone surrogates."""
    stack, keys = [(value, 1)], 0
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise errors.MalformedBody(f"The JSON is nested deeper than {MAX_DEPTH} levels.")
        if isinstance(item, dict):
            keys += len(item)
            if keys > MAX_KEYS:
                raise errors.MalformedBody(f"The JSON has more than {MAX_KEYS} keys.")
            for key, inner in item.items():
                _check_text(key)
                stack.append((inner, depth + 1))
        elif isinstance(item, list):
            stack.extend((inner, depth + 1) for inner in item)
        elif isinstance(item, str):
            _check_text(item)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise errors.MalformedBody("The JSON contains a NUL character, which no field takes.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise errors.MalformedBody("The JSON contains half of a surrogate pair, which is not a character.") from None


class StrictJSONParser(BaseParser):
    """JSON with limits. An empty body is an empty object."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        raw = stream.read()
        if not raw.strip():
            return {}
        try:
            value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
        except UnicodeDecodeError:
            raise errors.MalformedBody("The body is not valid UTF-8.") from None
        except RecursionError:
            raise errors.MalformedBody(f"The JSON is nested deeper than {MAX_DEPTH} levels.") from None
        except ValueError as error:
            raise errors.MalformedBody(f"The body is not valid JSON: {error}.") from None
        check_shape(value)
        if not isinstance(value, dict):
            raise errors.MalformedBody("The body must be a JSON object.")
        return value


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that refuses unknown keys by name."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(str(key) for key in set(data) - set(self.fields))
            if unknown:
                known = ", ".join(name for name, f in self.fields.items() if not f.read_only)
                raise serializers.ValidationError({key: [f"Unknown field; known are: {known}."] for key in unknown})
        return super().to_internal_value(data)


class StrictBooleanField(serializers.BooleanField):
    """Only true and false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


def parse(serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """The request's body checked by `serializer`. Raises `InvalidInput` with the fields that are wrong."""
    checked = serializer(data=request.data)
    if not checked.is_valid():
        raise errors.InvalidInput(fields=flatten(checked.errors))
    return dict(checked.validated_data)


def parse_query(serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """The query string checked by `serializer`; empty values count as absent."""
    for key, values in request.query_params.lists():
        if "\0" in key or any("\0" in value for value in values):
            raise errors.InvalidInput(fields={key.replace("\0", ""): ["NUL is not allowed."]})
    data: dict[str, Any] = {}
    many = {name for name, f in serializer().fields.items() if isinstance(f, serializers.ListField)}
    for key, values in request.query_params.lists():
        kept = [value for value in values if value != ""]
        if kept:
            data[key] = kept if key in many else kept[-1]
    checked = serializer(data=data)
    if not checked.is_valid():
        raise errors.InvalidInput(fields=flatten(checked.errors))
    return dict(checked.validated_data)


def chosen(given: list[str], known: Sequence[str]) -> list[str]:
    """`?status=OFFLINE&status=WARNING`, or both in one with a comma; case does not matter."""
    wanted = [part.strip().upper() for text in given for part in text.split(",") if part.strip()]
    if unknown := set(wanted) - set(known):
        raise serializers.ValidationError(f"{min(unknown)} is not one of {', '.join(known)}.")
    return wanted


def flatten(found: Any, prefix: str = "") -> dict[str, list[str]]:
    """DRF's nested errors as `{"variables.PORT": ["..."]}`."""
    if isinstance(found, dict):
        out: dict[str, list[str]] = {}
        for key, inner in found.items():
            name = "" if key == "non_field_errors" else str(key)
            out.update(flatten(inner, ".".join(part for part in (prefix, name) if part)))
        return out
    if isinstance(found, list) and found and isinstance(found[0], dict | list):
        out = {}
        for index, inner in enumerate(found):
            if inner:
                out.update(flatten(inner, f"{prefix}[{index}]"))
        return out
    sentences = [str(item) for item in found] if isinstance(found, list) else [str(found)]
    return {prefix or "body": sentences}


class Pages(PageNumberPagination):
    """`page` and `page_size` (at most 200); out of range is 400, not a surprise. `count` is that of `LongPaginator`."""

    django_paginator_class = LongPaginator
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def get_page_size(self, request: Request) -> int | None:
        text = request.query_params.get("page_size", "")
        if text and not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= self.max_page_size):
            raise errors.InvalidInput(fields={"page_size": [f"A whole number from 1 to {self.max_page_size}."]})
        return int(text) if text else self.page_size

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        text = request.query_params.get("page", "")
        if text and not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_PAGES):
            raise errors.InvalidInput(fields={"page": ["A whole number from 1."]})
        try:
            return super().paginate_queryset(queryset, request, view)
        except exceptions.NotFound:
            raise errors.NotFound("There is no such page of results.") from None


_DRF: dict[type[Exception], type[errors.HyprBoxError]] = {
    exceptions.NotAuthenticated: errors.NotAuthenticated,
    exceptions.AuthenticationFailed: errors.NotAuthenticated,
    exceptions.PermissionDenied: errors.Forbidden,
    exceptions.NotFound: errors.NotFound,
    exceptions.UnsupportedMediaType: errors.NotJson,
}


def translate(error: Exception) -> errors.HyprBoxError | None:
    """Any exception a DRF view raises, as one of ours; None for a defect."""
    if isinstance(error, exceptions.ValidationError):
        return errors.InvalidInput(fields=flatten(error.detail))
    if isinstance(error, exceptions.MethodNotAllowed):
        return errors.MethodNotAllowed(str(error.detail))
    if isinstance(error, exceptions.ParseError):
        return errors.MalformedBody()
    for kind, ours in _DRF.items():
        if isinstance(error, kind):
            return ours()
    return as_hyprbox_error(error)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's hook: every failure leaves in the one shape; a defect leaves as 500 with a request id only."""
    request = context["request"]
    known = translate(error)
    if known is None:
        log.error("api.failed", path=request.path, exc_info=error)
        if settings.DEBUG and getattr(settings, "HYPRBOX_RAISE_DEFECTS", False):
            raise error
        known = errors.defect()
    tell_refusal(request._request, known, getattr(request, "_auth", None))
    headers = {"Retry-After": str(known.retry_after)} if known.retry_after is not None else {}
    if known.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    response = Response(known.as_dict(), status=known.status, headers=headers)
    response.exception = True
    return response
