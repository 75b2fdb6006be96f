"""Other sites whose scripts may call the API: none, or those of `HYPRBOX_CORS_ORIGINS`, each named exactly.

An ASGI middleware before everything but the agents' lanes, which no browser calls. What an origin is not named for gets no
header, so the browser keeps the answer from it; nothing is reflected, and there is no wildcard.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from hyprbox.lib import headers, lanes

METHODS = b"GET, POST, PUT, PATCH, DELETE"
ALLOWED = b"Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID, Range, X-CSRFToken, X-Request-Id"
EXPOSED = b"Content-Disposition, Content-Range, ETag, Retry-After, X-First-Offset, X-Request-Id, X-Total-Bytes"
KEPT_SECONDS = b"600"
_VARY = (b"vary", b"Origin")


class Origins:
    def __init__(self, app: lanes.App) -> None:
        self._app = app

    async def __call__(self, scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
        allowed: list[str] = settings.HYPRBOX_CORS_ORIGINS
        if not allowed or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        origin = lanes.header(scope, b"origin")
        added = _granted(origin) if origin in allowed else [_VARY]
        if scope["method"] == "OPTIONS" and origin and lanes.header(scope, b"access-control-request-method"):
            await _preflight(scope, send, added if origin in allowed else None)
            return

        async def with_grant(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, with_grant)


def _granted(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", EXPOSED),
        _VARY,
    ]


async def _preflight(scope: lanes.Scope, send: lanes.Send, granted: list[tuple[bytes, bytes]] | None) -> None:
    """204 either way; without the grant the browser does not send the request itself."""
    sent = [(b"cache-control", b"no-store"), (b"x-request-id", lanes.request_id_of(scope).encode()), *headers.RAW]
    if granted is None:
        sent.append(_VARY)
    else:
        sent += [
            *granted,
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ALLOWED),
            (b"access-control-max-age", KEPT_SECONDS),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": sent})
    await send({"type": "http.response.body", "body": b""})
