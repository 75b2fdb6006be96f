"""Downloads: what the browser is told to do with them."""

from __future__ import annotations

from typing import TypeVar

from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

Answer = TypeVar("Answer", bound=HttpResponseBase)


def offer(response: Answer, name: str) -> Answer:
    """The response as a file to be saved under `name`, which we make: of ids and of names that have a form of their own.

    The header is RFC 6266's, so that a name that is not plain ASCII, or has a quote in it, cannot become something else.
    """
    if "/" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no file name")
    response.headers["Content-Disposition"] = content_disposition_header(True, name)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
