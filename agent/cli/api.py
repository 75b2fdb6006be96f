"""One connection to the control plane: who calls, pages of results, refreshed logins, and failures as one sentence."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Generator, Mapping
from typing import Any

import click
import requests
from requests.utils import get_environ_proxies

from agent import __version__
from agent.cli import logins, masking
from agent.cli.addresses import DEFAULT_URL, check_url, read_token_file
from agent.cli.base import Settings, ask_code
from agent.cli.exits import FORBIDDEN, NOT_FOUND, REFUSED, UNREACHABLE, USAGE, LoginNeeded, Trouble, Unreachable
from agent.client import _ModernTls, _short

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
PAGE_SIZE = 200
MOST_COUNTED = 10_000
TRIES = 4
MAX_WAIT_SECONDS = 10
_EXITS = {400: USAGE, 403: FORBIDDEN, 404: NOT_FOUND, 413: USAGE, 422: USAGE, 429: UNREACHABLE}
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_UNKNOWN_NODE = frozenset({"node_id", "node_ids"})


class Api:
    """Used by several threads at once: each has a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        token = read_token_file(settings.token_file) or os.environ.get("HYPRBOX_API_TOKEN", "").strip()
        named = settings.url or os.environ.get("HYPRBOX_API_URL", "")
        self._login: logins.Login | None = None
        if token:
            saved = None if named else logins.find()
            self.url = check_url(named or (saved.url if saved else DEFAULT_URL))
        else:
            # A saved login is for one control plane: its tokens are sent to no other.
            self._login = logins.find(check_url(named)) if named else logins.find()
            self.url = self._login.url if self._login else check_url(named or DEFAULT_URL)
        self._token = token
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._refreshing = threading.Lock()
        context = click.get_current_context(silent=True)
        if context is not None:
            context.call_on_close(self.close)

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    @property
    def is_logged_in(self) -> bool:
        return bool(self._token or self._login)

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, timeout: float = ANSWER_SECONDS) -> Any:
        return _json(self.call("GET", path, params=params, timeout=(CONNECT_SECONDS, timeout)))

    def post(self, path: str, body: Mapping[str, Any], *, key: str = "", is_repeatable: bool = False) -> Any:
        """`key`: an Idempotency-Key. With one, or where it changes nothing, an answer that got lost is asked for again."""
        headers = {"Idempotency-Key": key} if key else {}
        return _json(
            self.call("POST", path, json=dict(body), headers=headers, is_repeatable=is_repeatable or bool(key))
        )

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return _json(self.call("PATCH", path, json=dict(body)))

    def delete(self, path: str) -> None:
        self.call("DELETE", path)

    def pages(self, path: str, params: Mapping[str, Any] | None = None, *, limit: int | None = None) -> list[Any]:
        """The results of all pages, or the first `limit` of them."""
        found: list[Any] = []
        size = min(PAGE_SIZE, limit or PAGE_SIZE)
        for page in range(1, 100_000):
            answer = self.get(path, {**(params or {}), "page": page, "page_size": size})
            found += answer["results"]
            if not answer["next"] or (limit is not None and len(found) >= limit):
                break
        return found if limit is None else found[:limit]

    def count(self, path: str, params: Mapping[str, Any]) -> int:
        """How many rows there are; over `MOST_COUNTED` the server says no more than that."""
        return int(self.get(path, {**params, "page_size": 1})["count"])

    def call(
        self, method: str, path: str, *, public: bool = False, is_repeatable: bool = False, **arguments: Any
    ) -> requests.Response:
        """One call. Raises a `Trouble` that says what is wrong, with the exit code for it."""
        headers = dict(arguments.pop("headers", {}) or {})
        for attempt in range(1, TRIES + 1):
            try:
                return self._stepped_up(method, path, headers, public, arguments)
            except Unreachable as error:
                if (
                    attempt == TRIES
                    or not (is_repeatable or method == "GET")
                    or not error.detail.get("worth_repeating")
                ):
                    raise
                time.sleep(max(0.3 * attempt, min(MAX_WAIT_SECONDS, float(error.detail.get("retry_after") or 0))))
        raise AssertionError("unreachable")

    def _stepped_up(
        self, method: str, path: str, headers: dict[str, str], public: bool, arguments: dict[str, Any]
    ) -> requests.Response:
        """What is sensitive wants the second factor once more: on a terminal it is asked for, and the call made again."""
        try:
            return self._authorised(method, path, headers, public, arguments)
        except Trouble as error:
            if error.code != "step_up_required" or not self._login:
                raise
            code = ask_code("This needs your second factor. One-time code")
            if not code:
                hint = f"{error} In a script, log in with it first: hyprbox login --otp"
                raise Trouble(hint, code=error.code, exit_code=FORBIDDEN) from None
        self._authorised("POST", "/api/auth/step-up", {}, False, {"json": {"otp": code}})
        return self._authorised(method, path, headers, public, arguments)

    def _authorised(
        self, method: str, path: str, headers: dict[str, str], public: bool, arguments: dict[str, Any]
    ) -> requests.Response:
        if public:
            return self._checked(self._send(method, path, headers, arguments))
        token = self.token()
        answer = self._send(method, path, {**headers, "Authorization": f"Bearer {token}"}, arguments)
        if answer.status_code == 401 and self._login is not None:
            answer.close()
            token = self.token(instead_of=token)
            answer = self._send(method, path, {**headers, "Authorization": f"Bearer {token}"}, arguments)
        return self._checked(answer)

    def _send(self, method: str, path: str, headers: Mapping[str, str], arguments: dict[str, Any]) -> requests.Response:
        given = {"timeout": (CONNECT_SECONDS, ANSWER_SECONDS), **arguments}
        try:
            return self._session.request(method, self.url + path, headers=headers, allow_redirects=False, **given)
        except requests.exceptions.SSLError as error:
            raise Unreachable(
                f"{self.url} could not prove who it is: {_short(error)}. If it has a certificate authority "
                "of your own, name its file in SSL_CERT_FILE.",
                code="tls",
            ) from None
        except requests.exceptions.RequestException as error:
            raise unreachable(self.url, error) from None
        except OSError as error:  # a CA file that is not there
            raise Unreachable(f"{self.url} cannot be called: {error}.", code="tls") from None

    def _checked(self, answer: requests.Response) -> requests.Response:
        if 200 <= answer.status_code < 300:
            return answer
        raise _failure(self, answer)

    @property
    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False  # a ~/.netrc would replace our Authorization
            session.proxies = get_environ_proxies(self.url) if self.url.startswith("https:") else {}
            session.verify = os.environ.get("SSL_CERT_FILE") or True  # a CA of one's own; never off
            session.mount("https://", _ModernTls())
            session.headers.update({"User-Agent": f"hyprbox/{__version__}", "Accept": "application/json"})
            self._local.session = session
            self._sessions.append(session)
        return session

    # --- the credential ---

    def token(self, *, instead_of: str = "") -> str:
        """What to send as a Bearer; a saved login is refreshed when it ran out or was refused. Raises `LoginNeeded`."""
        if self._token:
            return self._token
        if self._login is None:
            raise LoginNeeded(f"Log in first: hyprbox login --url {self.url}")
        with self._refreshing:
            if self._login.access == instead_of or not self._login.is_fresh:
                with masking.no_interruption(), logins.locked():
                    self._login = self._refreshed(instead_of)
            return self._login.access

    def _refreshed(self, instead_of: str) -> logins.Login:
        saved = logins.find(self.url)
        if saved is None:
            raise LoginNeeded("You were logged out meanwhile. Log in again: hyprbox login")
        if saved.is_fresh and saved.access != instead_of:
            return saved  # another process was here first
        try:
            answer = _json(
                self._checked(self._send("POST", "/api/auth/refresh", {}, {"json": {"refresh": saved.refresh}}))
            )
        except LoginNeeded:
            raise LoginNeeded(f"Your login at {self.url} has ended. Log in again: hyprbox login") from None
        pair = logins.Login(
            self.url, saved.email, answer["access"], answer["refresh"], logins.access_until(answer["access"])
        )
        logins.save(pair, is_current=False)
        return pair

    def settle(self) -> None:
        """Before the process ends by Ctrl-C: a refresh under way in another thread is let through."""
        if self._refreshing.acquire(timeout=5.0):
            self._refreshing.release()

    # --- streams ---

    def stream(self, path: str, *, last_event_id: str = "", read_seconds: float = 45.0) -> Generator[bytes, None, None]:
        """The bytes of an event stream as they come. Raises `Trouble`; a connection that broke is an `Unreachable`."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-cache"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        given = {"stream": True, "timeout": (CONNECT_SECONDS, read_seconds)}
        with self._authorised("GET", path, headers, False, given) as answer:
            # A body of chunks comes chunk by chunk; of another one, more than what is there must not be waited for.
            size = 64 * 1024 if answer.headers.get("Transfer-Encoding", "").lower() == "chunked" else 1
            try:
                yield from answer.iter_content(size)
            except (requests.exceptions.RequestException, OSError) as error:
                raise unreachable(self.url, error) from None

    def download(self, path: str, params: Mapping[str, Any] | None = None) -> requests.Response:
        """An answer whose body is read piece by piece; to be used with `with`."""
        return self.call("GET", path, params=params, stream=True)


def unreachable(url: str, error: Exception) -> Unreachable:
    why = (
        "it did not answer in time" if isinstance(error, requests.exceptions.Timeout) else _ERRNO.sub("", _short(error))
    )
    return Unreachable(f"{url} cannot be reached: {why}.", detail={"worth_repeating": True})


def _json(answer: requests.Response) -> Any:
    if answer.status_code == 204:
        return None
    try:
        return answer.json()
    except ValueError:
        raise Unreachable(f"{answer.url.split('/api/')[0]} does not answer as a HyprBox control plane does.") from None


def _failure(api: Api, answer: requests.Response) -> Trouble:
    if 300 <= answer.status_code < 400:
        return _foreign_page(api, answer)
    try:
        error = answer.json()["error"]
        code, message = str(error["code"]), str(error["message"])
        fields, detail = dict(error.get("fields") or {}), dict(error.get("detail") or {})
    except (ValueError, KeyError, TypeError):
        return _foreign_page(api, answer)
    finally:
        answer.close()
    status = answer.status_code
    if status == 401:
        return LoginNeeded(message, code=code, fields=fields, detail=detail)
    if status in (429, 502, 503, 504):
        wait = answer.headers.get("Retry-After", "")
        seconds = int(wait) if wait.isdigit() else 0
        after = f" Try again in {wait} s." if seconds and status == 429 else ""
        is_soon = status != 429 or 0 < seconds <= MAX_WAIT_SECONDS
        told = {**detail, "worth_repeating": is_soon, "retry_after": seconds}
        return Unreachable(message + after, code=code, detail=told)
    exit_code = _EXITS.get(status, UNREACHABLE if status >= 500 else REFUSED)
    if status == 400 and fields and set(fields) <= _UNKNOWN_NODE:
        exit_code = NOT_FOUND
    return Trouble(message, code=code, exit_code=exit_code, fields=fields, detail=detail)


def _foreign_page(api: Api, answer: requests.Response) -> Trouble:
    status = answer.status_code
    if 300 <= status < 400:
        where = answer.headers.get("Location", "elsewhere")
        return Unreachable(f"{api.url} sends us to {where[:200]}; name the address that answers itself.")
    if status in (502, 503, 504):
        return Unreachable(
            f"{api.url} is not up right now (its proxy says {status}).", detail={"worth_repeating": True}
        )
    return Unreachable(f"{api.url} does not answer as a HyprBox control plane does (status {status}).")
