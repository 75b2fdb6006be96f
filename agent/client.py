"""Talking to the control plane: TLS always verified, no redirects, every call bounded and repeatable."""

from __future__ import annotations

import json
import os
import random
import ssl
import threading
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from agent import __version__
from agent.config import Config

MAX_BACKOFF_SECONDS = 60.0
MAX_UNAUTHORISED_SECONDS = 300.0
CALM_SECONDS = 60.0
OUTAGE_SECONDS = 5.0
SPREAD_SECONDS = 30.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024  # a job with a script of 1 MiB, twice in base64, is below 3
MAX_ANSWER_SECONDS = 60.0


class CallFailed(Exception):
    """No useful answer. `status` is 0 when there was none at all."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        detail: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after
        self.detail = detail or {}

    @property
    def is_worth_repeating(self) -> bool:
        """Whether the same call may succeed later: no answer, overload, or a credential that comes back.

        A refusal without our code in it is not the control plane's: a proxy's error page must not cost a result.
        """
        return self.status in (0, 401, 403, 429) or self.status >= 500 or not self.code


class _ModernTls(HTTPAdapter):
    """TLS 1.2 or newer, whatever the system's OpenSSL would still allow."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=_modern_context(), **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """The same through a proxy: for what is on its other side."""
        return super().proxy_manager_for(proxy, ssl_context=_modern_context(), **options)


def _modern_context() -> ssl.SSLContext:
    """It trusts whom the system trusts; requests adds the authorities that it brings along."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Client:
    """One thread's connection to the control plane."""

    def __init__(self, config: Config) -> None:
        self._base = config.api_url
        self._session = requests.Session()
        # A ~/.netrc would replace our Authorization, and a proxy of the environment would see it.
        self._session.trust_env = False
        if config.proxy:  # a tunnel: TLS goes through it to the control plane, so it sees no token
            self._session.proxies = {"https": config.proxy}
        self._session.verify = os.environ.get("SSL_CERT_FILE") or True  # a CA of one's own; never off
        self._session.mount("https://", _ModernTls())
        self._session.headers.update(
            {
                "Authorization": f"Bearer {config.token}",
                "User-Agent": f"hyprnode/{__version__}",
                "Accept": "application/json",
            }
        )

    def get(self, path: str, params: dict[str, Any] | None = None, *, timeout: float = 10.0) -> dict[str, Any]:
        return self._call("GET", path, params=params, timeout=timeout)

    def post(self, path: str, body: dict[str, Any], *, timeout: float = 20.0) -> dict[str, Any]:
        return self._call("POST", path, json=body, timeout=timeout)

    def close(self) -> None:
        self._session.close()

    def _call(self, method: str, path: str, *, timeout: float, **arguments: Any) -> dict[str, Any]:
        try:
            with self._session.request(
                method, self._base + path, timeout=(10.0, timeout), allow_redirects=False, stream=True, **arguments
            ) as answer:
                content = _content(answer)
        except OSError as error:  # requests' own are such, and so is a CA file that is not there
            raise CallFailed(f"{method} {path}: {_short(error)}") from error
        if 200 <= answer.status_code < 300:
            return _json(content)
        raise _failure(method, path, answer, content)


def _content(answer: requests.Response) -> bytes:
    """The body, unless it is larger or slower than any true one. Raises `CallFailed`, `OSError`."""
    content, deadline = bytearray(), time.monotonic() + MAX_ANSWER_SECONDS
    for part in answer.iter_content(64 * 1024):
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise CallFailed(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise CallFailed(f"the answer took longer than {MAX_ANSWER_SECONDS:.0f} s")
    return bytes(content)


def _json(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):  # an empty page of a proxy, too: it must not pass for an acknowledgement
        raise CallFailed("the answer is not JSON: is this address really a HyprBox control plane?")
    return data


def _failure(method: str, path: str, answer: requests.Response, content: bytes) -> CallFailed:
    code, message, detail = "", answer.reason or "", {}
    try:
        error = json.loads(content)["error"]
        code, message, detail = str(error["code"]), str(error["message"]), dict(error.get("detail") or {})
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    retry_after = answer.headers.get("Retry-After", "")
    return CallFailed(
        f"{method} {path}: {answer.status_code} {message}".strip(),
        status=answer.status_code,
        code=code,
        detail=detail,
        retry_after=float(retry_after) if retry_after.isdigit() else None,
    )


def _short(error: BaseException) -> str:
    reason = getattr(error, "args", [error])[0]
    inner = getattr(reason, "reason", reason)
    return str(inner).split("object at")[0].rsplit(": ", 1)[-1][:200] or type(error).__name__


class Backoff:
    """Full jitter: a sleep from 0 to min(60 s, 1 s * 2^n); forgotten after a minute of success."""

    def __init__(self, *, spread: bool = False) -> None:
        """`spread` is for polls: after an outage that lasted, a fleet comes back over half a minute."""
        self._spread = spread
        self._failures = 0
        self._failing_since: float | None = None
        self._succeeded_at: float | None = None

    @property
    def is_failing(self) -> bool:
        return self._failures > 0

    def succeeded(self) -> None:
        now = time.monotonic()
        self._failing_since = None
        if self._succeeded_at is None:
            self._succeeded_at = now
        if now - self._succeeded_at >= CALM_SECONDS:
            self._failures = 0

    def failed(self, error: CallFailed) -> float:
        """How many seconds to wait now."""
        now = time.monotonic()
        if self._succeeded_at is not None and now - self._succeeded_at >= CALM_SECONDS:
            self._failures = 0
        self._succeeded_at = None
        self._failing_since = self._failing_since or now
        self._failures = min(self._failures + 1, 16)
        if error.retry_after is not None:
            return min(error.retry_after, 300.0) * random.uniform(1.0, 1.2)
        least, limit = 0.0, min(MAX_BACKOFF_SECONDS, 1.0 * 2 ** (self._failures - 1))
        if error.status in (401, 403):
            least, limit = 1.0, min(MAX_UNAUTHORISED_SECONDS, 2.0 * 2**self._failures)
        elif self._spread and now - self._failing_since >= OUTAGE_SECONDS:
            limit = max(limit, SPREAD_SECONDS)
        return max(least, random.uniform(0, limit))


def sleep(stop: threading.Event, seconds: float) -> bool:
    """Wait; True when it is time to stop."""
    return stop.wait(max(0.0, seconds))
