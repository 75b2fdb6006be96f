"""POST /api/nodes/heartbeat: the lane that every node takes all the time.

A plain ASGI handler before Django. It verifies the token, checks the body and hands the heartbeat to the
one writer of this process (`nodes.writer`), which commits whatever queued while the last batch was in
flight; the answer leaves after COMMIT.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from django.conf import settings

from hyprbox.lib import lanes
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError, MethodNotAllowed, NotAuthenticated, NotJson, Overloaded
from hyprbox.lib.ids import rate_key
from hyprbox.lib.threads import in_thread
from nodes import services, wire
from nodes.wire import Heartbeat
from nodes.writer import Beat, Written, writer
from tokens import secrets
from tokens.cache import VerifiedToken
from tokens.errors import BadToken, OtherNode
from tokens.secrets import Presented

MAX_ENROLLING = 64  # each takes a thread and a connection of the pool
NOBODY = Presented("", b"")


def _no_work(node_pk: uuid.UUID) -> bool:
    return False


# Whether this node should ask for work at once. The roof puts the jobs' in-memory flag here.
work_waiting: Callable[[uuid.UUID], bool] = _no_work

_by_token = lanes.TokenBucket()
_without_token = lanes.TokenBucket(rate=5, burst=15)
_bad_tokens = lanes.TokenBucket(rate=0.5, burst=30)
_anonymous: dict[str, uuid.UUID] = {}
_enrolling = 0


async def heartbeat_lane(scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
    """The ASGI handler."""
    request_id = lanes.request_id_of(scope)
    try:
        beat, node_pk, written = await _accept(scope, receive, request_id)
    except lanes.ClientGone:
        return
    except HyprBoxError as error:
        await lanes.answer_error(send, error, request_id)
        return
    body = _answer(beat, written, work_waiting(node_pk))
    if not lanes.answer_whole(scope, 202, body, request_id):
        await lanes.answer(send, 202, body, request_id)


async def drain() -> None:
    """Commit what is queued, then take nothing more: the web process is stopping."""
    await writer.drain()


async def _accept(scope: lanes.Scope, receive: lanes.Receive, request_id: str) -> tuple[Heartbeat, uuid.UUID, Written]:
    if scope["method"] != "POST":
        raise MethodNotAllowed("A heartbeat is sent with POST.")
    body = await lanes.read_body(receive, wire.MAX_BODY_BYTES)
    _require_json(scope)
    presented, token = await _token(scope)
    if token is not None:
        _by_token.take(presented.prefix)
    beat, inventory = wire.decode(body)
    if token is None:
        node_pk = await _anonymous_node(beat.node_id)
    elif token.node_pk is None:
        node_pk = await _enrol(token, presented, beat.node_id, scope, request_id)
    elif token.node_id == beat.node_id:
        node_pk = token.node_pk
    else:
        raise OtherNode()
    try:
        return beat, node_pk, await writer.submit(Beat(node_pk, beat, inventory, token))
    except BadToken:  # the node was removed
        writer.tokens.drop(presented.prefix)
        _anonymous.pop(beat.node_id, None)
        raise


def _require_json(scope: lanes.Scope) -> None:
    kind = lanes.header(scope, b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise NotJson()
    if lanes.header(scope, b"content-encoding") not in ("", "identity"):
        raise NotJson("Send the JSON as it is, without Content-Encoding.")


async def _token(scope: lanes.Scope) -> tuple[Presented, VerifiedToken | None]:
    """The caller's token, compared in constant time. None for nobody, where that is allowed."""
    try:
        text = lanes.bearer(scope)
    except NotAuthenticated:
        if settings.DEBUG and not settings.HYPRBOX_REQUIRE_NODE_TOKEN:
            return NOBODY, None
        _without_token.take(rate_key(lanes.peer_ip(scope)))
        raise
    try:
        presented = secrets.parse(text)
        found = writer.tokens.peek(presented) or await writer.look_up(presented)
        if isinstance(found, BadToken):
            raise found
    except BadToken:
        _bad_tokens.take(rate_key(lanes.peer_ip(scope)))
        raise
    return presented, found


async def _enrol(
    token: VerifiedToken, presented: Presented, node_id: str, scope: lanes.Scope, request_id: str
) -> uuid.UUID:
    """First use of a token: of many at once exactly one wins. Raises `OtherNode`, `NodeTaken`."""
    global _enrolling
    if _enrolling >= MAX_ENROLLING:
        raise Overloaded(retry_after=5)
    _enrolling += 1
    try:
        by = Actor.agent(id=str(token.id), name=node_id, ip=lanes.peer_ip(scope), request_id=request_id)
        return await in_thread(services.enrol, by=by, token_id=token.id, node_id=node_id)
    finally:
        _enrolling -= 1
        writer.tokens.drop(presented.prefix)


async def _anonymous_node(node_id: str) -> uuid.UUID:
    """The node of a heartbeat without a token: development only."""
    _by_token.take(node_id)
    if node_id not in _anonymous:
        node = await in_thread(services.ensure_node, by=Actor.system("anonymous heartbeat"), node_id=node_id)
        _anonymous[node_id] = node.pk
    return _anonymous[node_id]


def _answer(beat: Heartbeat, written: Written, is_work_waiting: bool) -> bytes:
    tail = f',"next_interval_seconds":{min(2 * beat.interval_seconds, 300)}' if written.is_crowded else ""
    return f'{{"server_time":"{written.at}","work_waiting":{"true" if is_work_waiting else "false"}{tail}}}'.encode()
