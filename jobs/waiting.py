"""GET /api/jobs/pending: the long poll in which every idle agent spends its life.

It verifies the token, then sleeps on an in-memory event until its node has work; an idle fleet costs the
database next to nothing. The claim itself is `jobs.together`'s.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from hyprbox.lib import lanes, refusals
from hyprbox.lib.asking import Asking
from hyprbox.lib.errors import Forbidden, HyprBoxError, InvalidInput, MethodNotAllowed, NotAuthenticated, Unavailable
from hyprbox.lib.ids import rate_key
from hyprbox.lib.threads import in_thread
from jobs.claims import Claim
from jobs.queue import Held, board
from jobs.states import CLAIM_LEASE_SECONDS
from jobs.together import together
from nodes import names
from tokens import secrets
from tokens.cache import TokenCache, VerifiedToken
from tokens.errors import BadToken, OtherNode
from tokens.guesses import Guesses, bad_tokens
from tokens.services import retire_predecessors

MAX_WAIT_SECONDS = 30.0
DEFAULT_WAIT_SECONDS = 25.0
RECHECK_TOKEN_SECONDS = 4.0
SHED_POLL_MS = 5000  # for wait=0: nobody polls without waiting in a tight loop
CANCEL_POLL_MS = 1000  # a cancel is repeated until the job has ended, but not at full speed


def _wake(node_pk: uuid.UUID) -> None:
    """A token of the node has changed: its polls look whether it is theirs."""
    board.wake(node_pk)


async def recheck_tokens(conn: Any) -> None:
    """All that wait, in one statement: an idle fleet must not cost one for each agent. The roof makes it the board's."""
    await _tokens.recheck(conn)


async def _resolve(presented: list[secrets.Presented]) -> dict[secrets.Presented, VerifiedToken | BadToken]:
    async with board.connection.use() as conn:
        return dict(zip(presented, await _tokens.resolve(conn, presented), strict=True))


_tokens = TokenCache(on_change=_wake)
_resolving = Asking(_resolve)
_retired: set[uuid.UUID] = set()  # rotated tokens whose predecessors have ended, as far as this process knows
_buckets = lanes.TokenBucket()
_guesses = Guesses(bad_tokens)


@dataclass(frozen=True, slots=True)
class Poll:
    node_id: str
    request_id: uuid.UUID
    wait: float
    reconcile: bool


def parse_query(query: bytes) -> Poll:
    """Raises `InvalidInput` naming each bad parameter."""
    try:
        given = dict(
            parse_qsl(query.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(query), max_num_fields=20)
        )
    except (UnicodeDecodeError, ValueError):
        raise InvalidInput("The query string cannot be read.") from None
    problems: dict[str, list[str]] = {}
    for name in set(given) - {"node_id", "request_id", "wait", "reconcile"}:
        problems[name] = ["Unknown parameter; known are: node_id, request_id, wait, reconcile."]
    node_id = given.get("node_id", "")
    if not names.is_node_id(node_id):
        problems["node_id"] = [
            "Letters, digits, dot, dash and underscore, at most 63, beginning with a letter or digit."
        ]
    request_id = _uuid(given.get("request_id", ""))
    if request_id is None:
        problems["request_id"] = ["A UUID that you made for this request."]
    wait = _seconds(given.get("wait", str(DEFAULT_WAIT_SECONDS)))
    if wait is None:
        problems["wait"] = [f"Seconds from 0 to {MAX_WAIT_SECONDS:.0f}."]
    if given.get("reconcile", "0") not in ("0", "1"):
        problems["reconcile"] = ["0 or 1."]
    if problems or request_id is None or wait is None:
        raise InvalidInput(fields=problems)
    return Poll(node_id, request_id, wait, given.get("reconcile") == "1")


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MAX_WAIT_SECONDS else None


async def waiting_lane(scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
    """The ASGI handler, mounted before Django."""
    request_id = lanes.request_id_of(scope)
    try:
        if scope["method"] != "GET":
            raise MethodNotAllowed("This address is read with GET.")
        presented, token = await _caller(scope)
        _buckets.take(presented.prefix)
        poll = parse_query(scope.get("query_string", b""))
        _must_be_of(token, poll.node_id)
        answer = await _answer(poll, presented, token, receive)
    except lanes.ClientGone:
        return
    except HyprBoxError as error:
        if error.is_refusal:
            refusals.tell_soon(error, by=_tokens.caller(scope), route="pending", method=scope["method"])
        await lanes.answer_error(send, error, request_id)
        return
    except asyncio.CancelledError:  # the server stops and waits for nobody; that is no error of ours to be logged
        await lanes.answer_error(send, Unavailable("The control plane is restarting."), request_id)
        return
    await lanes.answer(send, 200, lanes.encode(answer), request_id)


async def _caller(scope: lanes.Scope) -> tuple[secrets.Presented, VerifiedToken]:
    """Raises `NotAuthenticated`, `BadToken`; `RateLimited` for an address that shows no good token time and again."""
    try:
        presented = secrets.parse(_node_token(scope))
        if _tokens.peek(presented) is None and not _tokens.remembers(presented):
            address = rate_key(lanes.peer_ip(scope))
            return presented, _good(await _guesses.look_up(address, lambda: _resolving.one(presented)))
        return presented, await _usable(presented)
    except NotAuthenticated:
        _guesses.note(rate_key(lanes.peer_ip(scope)))
        raise


def _node_token(scope: lanes.Scope) -> str:
    text = lanes.bearer(scope)
    if not text.startswith(secrets.SCHEME):
        raise NotAuthenticated("This address takes a node token.")
    return text


async def _usable(presented: secrets.Presented) -> VerifiedToken:
    """Raises `BadToken`, `Unavailable`."""
    token = _tokens.peek(presented)
    if token is None:
        token = await _resolving.one(presented)
    return _good(token)


def _good(found: VerifiedToken | BadToken) -> VerifiedToken:
    """Raises `BadToken`."""
    if isinstance(found, BadToken):
        raise found
    return found


def _must_be_of(token: VerifiedToken, node_id: str) -> None:
    """Raises `Forbidden` for a token of no node, `OtherNode`."""
    if not token.node_id or token.node_pk is None:
        raise Forbidden("This token belongs to no node yet: send a heartbeat first.")
    if token.node_id != node_id:
        raise OtherNode()


async def _answer(
    poll: Poll, presented: secrets.Presented, token: VerifiedToken, receive: lanes.Receive
) -> dict[str, Any]:
    node_pk = token.node_pk
    assert node_pk is not None
    await board.ensure()
    await _retire_predecessor(token)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + poll.wait
    gone = loop.create_task(_until_gone(receive))
    try:
        holding = await board.holding(node_pk) if poll.reconcile else None
        with board.waiting(node_pk) as event:
            while True:
                event.clear()
                if gone.done():
                    raise lanes.ClientGone()
                if board.has_work(node_pk) or poll.reconcile:
                    found = await _look(poll, node_pk, lambda: not gone.done())
                    if found is not None:
                        return _body(*found, holding, 0 if found[0] else CANCEL_POLL_MS)
                remaining = deadline - loop.time()
                if holding is not None or remaining <= 0:
                    return _body(None, [], holding, SHED_POLL_MS if poll.wait < 1 and holding is None else 0)
                await _first_of(event, gone, min(remaining, RECHECK_TOKEN_SECONDS))
                _must_be_of(await _usable(presented), poll.node_id)
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _retire_predecessor(token: VerifiedToken) -> None:
    """The successor of a rotation is used: the old token ends, as after a heartbeat."""
    if token.replaces is not None and token.id not in _retired:
        await in_thread(retire_predecessors, [token.id])
        _retired.add(token.id)


async def _look(poll: Poll, node_pk: uuid.UUID, is_wanted: Callable[[], bool]) -> tuple[Claim | None, list[str]] | None:
    board.settle(node_pk)  # before the look: a hint that comes meanwhile counts again
    try:
        claim = await together.claim(node_pk=node_pk, request_id=poll.request_id, is_wanted=is_wanted)
        cancels = await board.cancels(node_pk)
    except HyprBoxError:
        board.mark(node_pk)
        raise
    if claim is None and not cancels:
        return None
    if cancels or claim is None or claim.has_room:
        board.mark(node_pk)  # there may be more; else whatever makes room says so
    return claim, cancels


async def _first_of(event: asyncio.Event, gone: asyncio.Task[None], seconds: float) -> None:
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _until_gone(receive: lanes.Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(claim: Claim | None, cancels: list[str], holding: list[Held] | None, poll_after_ms: int) -> dict[str, Any]:
    body: dict[str, Any] = {"job": None, "cancel": cancels, "poll_after_ms": poll_after_ms}
    if claim is not None:
        body["job"] = {
            "id": str(claim.job_id),
            "claim_id": str(claim.claim_id),
            "payload": base64.b64encode(claim.payload).decode(),
            "signature": claim.signature,
            "key_id": claim.key_id,
            "lease_seconds": CLAIM_LEASE_SECONDS,
        }
    if holding is not None:
        body["holding"] = [
            {
                "id": str(h.job_id),
                "claim_id": str(h.claim_id),
                "status": h.status,
                "cancel_requested": h.cancel_requested,
            }
            for h in holding
        ]
    return body
