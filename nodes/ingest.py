"""POST /api/nodes/heartbeat: the lane that every node takes all the time.

A plain ASGI handler before Django. It verifies the token, checks the body and hands the heartbeat to the
one writer of this process (`nodes.writer`), which commits whatever queued while the last batch was in
flight; the answer leaves after COMMIT.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from weakref import WeakValueDictionary

import msgspec
from django.conf import settings

from audit import witnesses
from audit.checkpoints import newest
from hyprbox.lib import lanes, refusals
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HeadersTooLarge, HyprBoxError, MethodNotAllowed, NotAuthenticated, NotJson, Overloaded
from hyprbox.lib.ids import new_request_id, rate_key
from hyprbox.lib.threads import in_thread
from nodes import services, wire
from nodes.beats import Beat, WaitingBeat, Written
from nodes.wire import Heartbeat, Inventory
from nodes.writer import writer
from tokens import secrets
from tokens.cache import VerifiedToken
from tokens.errors import BadToken, OtherNode
from tokens.guesses import Guesses, bad_tokens
from tokens.secrets import Presented

MAX_ENROLLING = 64  # each takes a thread and a connection of the pool
NOBODY = Presented("", b"")


def _no_work(node_pk: uuid.UUID) -> bool:
    return False


# Whether this node should ask for work at once. The roof puts the jobs' in-memory flag here.
work_waiting: Callable[[uuid.UUID], bool] = _no_work

_by_token = lanes.TokenBucket()
_without_token = lanes.TokenBucket(rate=5, burst=15)
_guesses = Guesses(bad_tokens)
_anonymous: dict[str, uuid.UUID] = {}
_enrolling = 0
_first_uses: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


async def heartbeat_lane(scope: lanes.Scope, receive: lanes.Receive, send: lanes.Send) -> None:
    """The ASGI handler."""
    request_id = lanes.request_id_of(scope)
    try:
        beat, node_pk, written = await _accept(scope, receive, request_id)
    except lanes.ClientGone:
        return
    except HyprBoxError as error:
        if error.is_refusal:
            refusals.tell_soon(error, by=writer.tokens.caller(scope), route="heartbeat", method=scope["method"])
        await lanes.answer_error(send, error, request_id)
        return
    await lanes.answer(send, 202, _answer(beat, written, work_waiting(node_pk)), request_id)


def take_directly(scope: lanes.Scope) -> lanes.Taker | None:
    """Who takes heartbeats with these headers without a task; None when something about them is unusual.

    Usual is: JSON, no encoding, one bearer token in its form, not too much of it all. What is taken then has to fit as well: a body that
    decodes, and a token known to this process, usable and pinned to this node. The lane above does everything else, and
    says what is wrong.
    """
    try:
        lanes.require_small_headers(scope)
    except HeadersTooLarge:
        return None
    headers = dict(scope["headers"])
    if headers.get(b"content-type") != b"application/json" or b"content-encoding" in headers:
        return None
    scheme, _, text = headers.get(b"authorization", b"").partition(b" ")
    if scheme != b"Bearer" or len(headers) != len(scope["headers"]):
        return None
    try:
        presented = secrets.parse(str(text, "latin-1"))
    except BadToken:
        return None
    return _Sender(presented, str(headers.get(b"x-request-id", b""), "latin-1")).take


class _Sender:
    """Someone who shows this token. Whether it is good is looked up for each heartbeat."""

    __slots__ = ("_given_id", "_presented")

    def __init__(self, presented: Presented, given_id: str) -> None:
        self._presented, self._given_id = presented, given_id

    def take(self, body: bytes, reply: lanes.Reply) -> bool:
        presented = self._presented
        token = writer.tokens.peek(presented)
        if not isinstance(token, VerifiedToken) or token.node_pk is None:
            return False
        try:
            beat, inventory = wire.decode(body)
            if beat.node_id != token.node_id or beat.audit_fork is not None:
                return False
            _by_token.take(presented.prefix)
            writer.enqueue(_Taken(beat, inventory, token, presented.prefix, reply, new_request_id(self._given_id)))
        except HyprBoxError:
            return False
        return True


class _Taken(Beat):
    """A heartbeat that was taken directly, and where its answer goes."""

    __slots__ = ("_is_answered", "_node_pk", "_prefix", "_reply", "_request_id")

    def __init__(
        self,
        heartbeat: Heartbeat,
        inventory: Inventory | None,
        token: VerifiedToken,
        prefix: str,
        reply: lanes.Reply,
        request_id: str,
    ) -> None:
        self.node_key, self.heartbeat, self.inventory, self.token = token.node_key, heartbeat, inventory, token
        self._node_pk, self._prefix, self._reply, self._request_id = token.node_pk, prefix, reply, request_id
        self._is_answered = False

    def is_answered(self) -> bool:
        return self._is_answered

    def accept(self, written: Written) -> None:
        self._is_answered = True
        is_work_waiting = self._node_pk is not None and work_waiting(self._node_pk)
        if is_work_waiting or written.is_crowded:
            before, after = lanes.rendered(_answer(self.heartbeat, written, is_work_waiting))
        else:
            before, after = _ordinary_answer(written)
        self._reply.send(202, before + self._request_id.encode() + after)

    def refuse(self, error: HyprBoxError) -> None:
        self._is_answered = True
        if isinstance(error, BadToken):  # the node was removed
            writer.tokens.drop(self._prefix)
        self._reply.send_error(error, self._request_id)


async def drain() -> None:
    """Commit what is queued, then take nothing more: the web process is stopping."""
    await writer.drain()


async def _accept(scope: lanes.Scope, receive: lanes.Receive, request_id: str) -> tuple[Heartbeat, uuid.UUID, Written]:
    if scope["method"] != "POST":
        raise MethodNotAllowed("A heartbeat is sent with POST.")
    body = await lanes.read_body(receive, wire.MAX_BODY_BYTES)
    presented, token = await _token(scope)
    if token is not None:
        _by_token.take(presented.prefix)
    _require_json(scope)
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
        written = await writer.submit(WaitingBeat(str(node_pk), beat, inventory, token))
    except BadToken:  # the node was removed
        writer.tokens.drop(presented.prefix)
        _anonymous.pop(beat.node_id, None)
        raise
    if beat.audit_fork is not None:
        by = Actor.agent(id=str(node_pk), name=beat.node_id, ip=lanes.peer_ip(scope), request_id=request_id)
        kept, refused = map(msgspec.structs.asdict, (beat.audit_fork.kept, beat.audit_fork.refused))
        await in_thread(witnesses.note_fork, kept, refused, by=by)
    return beat, node_pk, written


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
        found = writer.tokens.peek(presented) or await _look_up(presented, scope)
        if isinstance(found, BadToken):
            raise found
    except BadToken:
        _guesses.note(rate_key(lanes.peer_ip(scope)))
        raise
    return presented, found


async def _look_up(presented: Presented, scope: lanes.Scope) -> VerifiedToken | BadToken:
    """Raises `RateLimited` for an address that guesses; a token that was good here is none."""
    if writer.tokens.remembers(presented):
        return await writer.look_up(presented)
    return await _guesses.look_up(rate_key(lanes.peer_ip(scope)), lambda: writer.look_up(presented))


async def _enrol(
    token: VerifiedToken, presented: Presented, node_id: str, scope: lanes.Scope, request_id: str
) -> uuid.UUID:
    """First use of a token: of many at once exactly one wins. Raises `OtherNode`, `NodeTaken`.

    Those with the same token come one after the other, so that a crowd of them takes one thread.
    """
    global _enrolling
    async with _first_uses.setdefault(token.key, asyncio.Lock()):
        found = writer.tokens.peek(presented) or await writer.look_up(presented)
        if isinstance(found, BadToken):
            raise found
        if found.node_pk is not None:  # somebody was faster
            if found.node_id != node_id:
                raise OtherNode()
            return found.node_pk
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
    return f'{{"server_time":"{written.at}","work_waiting":{"true" if is_work_waiting else "false"}{tail}{newest.tail()}}}'.encode()


_newest: tuple[Written | None, tuple[bytes, bytes]] = (None, (b"", b""))


def _ordinary_answer(written: Written) -> tuple[bytes, bytes]:
    """No work waits and there is no crowd: the same for the whole batch but for the request's id."""
    global _newest
    if _newest[0] is not written:
        _newest = (
            written,
            lanes.rendered(f'{{"server_time":"{written.at}","work_waiting":false{newest.tail()}}}'.encode()),
        )
    return _newest[1]
