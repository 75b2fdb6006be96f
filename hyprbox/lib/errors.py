"""The errors a caller can be told about: one family, one sentence each, the same for pages and API.

A class' docstring is its message, its name in snake_case its code. `fields` maps the name of an input to
a list of sentences; `detail` holds facts for programs. Anything else that is raised is a defect and
reaches the caller only as a request id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar


def code_of(name: str) -> str:
    """`JobNotCancellable` -> `job_not_cancellable`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class HyprBoxError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    is_refusal: ClassVar[bool] = False  # whether the audit log hears that a caller got this

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            cls.code = code_of(cls.__name__)

    def __init__(
        self,
        message: str | None = None,
        *,
        fields: Mapping[str, list[str]] | None = None,
        detail: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.fields = dict(fields or {})
        self.detail = dict(detail or {})
        self.retry_after = retry_after
        super().__init__(self.message)

    def as_dict(self) -> dict[str, Any]:
        """The body of `api.md`'s one error shape."""
        return {"error": {"code": self.code, "message": self.message, "fields": self.fields, "detail": self.detail}}


def defect() -> HyprBoxError:
    """What a caller hears of an error that nobody foresaw; the log has the rest."""
    return HyprBoxError("Something went wrong on the server. The request id helps to find it in the log.")


class InvalidInput(HyprBoxError):
    """Some of what was sent cannot be used; each field says why."""

    status = 400


class MalformedBody(InvalidInput):
    """The body is not valid JSON."""


class SearchTooSlow(InvalidInput):
    """The search took longer than two seconds and was stopped: look for something more exact."""


class NotAuthenticated(HyprBoxError):
    """Log in first, or send a valid token."""

    status = 401
    is_refusal = True


class Forbidden(HyprBoxError):
    """Your role does not allow this."""

    status = 403
    is_refusal = True


class StepUpRequired(Forbidden):
    """Show your second factor first: this needs one that is not older than five minutes."""

    is_refusal = False  # a page asks for it, and what was asked goes on


class SecondFactorRequired(Forbidden):
    """Your role needs a second factor: set one up in your profile first."""


class NotFound(HyprBoxError):
    """There is nothing here by that name."""

    status = 404


class MethodNotAllowed(HyprBoxError):
    """This address does not take that method."""

    status = 405


class TooSlow(HyprBoxError):
    """The request did not arrive within 30 seconds."""

    status = 408


class Conflict(HyprBoxError):
    """This is not possible in the present state."""

    status = 409


class BodyTooLarge(HyprBoxError):
    """The body is larger than this address takes."""

    status = 413


class NotJson(HyprBoxError):
    """Send JSON with the header Content-Type: application/json."""

    status = 415


class HeadersTooLarge(HyprBoxError):
    """The headers are larger than 16 KiB: most often that is a cookie."""

    status = 431


class RateLimited(HyprBoxError):
    """Too many requests. Wait a moment, then try again."""

    status = 429

    def __init__(self, message: str | None = None, *, retry_after: int = 1, **kwargs: Any) -> None:
        super().__init__(message, retry_after=max(1, retry_after), **kwargs)


class Unavailable(HyprBoxError):
    """The database cannot be reached right now. Nothing was changed; try again."""

    status = 503

    def __init__(self, message: str | None = None, *, retry_after: int | None = 2, **kwargs: Any) -> None:
        super().__init__(message, retry_after=retry_after, **kwargs)


class Overloaded(Unavailable):
    """The server has more to do than it can take. Nothing was changed; try again."""
