"""Small helpers for URL tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

View = Callable[..., HttpResponseBase]


def by_method(default: View, **views: View) -> View:
    """One address, two audiences: the view for the request's method, else `default` (which answers 405)."""

    @csrf_exempt  # DRF's own authentication classes check it where a cookie is the credential
    def dispatch(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return views.get(request.method or "", default)(request, *args, **kwargs)

    dispatch.views = views  # type: ignore[attr-defined]
    return dispatch
