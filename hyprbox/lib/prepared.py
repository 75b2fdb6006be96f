"""Prepared statements without what a cursor does for every call.

For the statements that run all the time: parameters are text that the caller makes. A cursor costs about twice the CPU
per call, and planning as much again. Not for use while the connection does anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.waiting import Ready, Wait

T = TypeVar("T")
Row = list[bytes | None]
Call = tuple[str, Sequence[bytes]]
_KNOWN = "_prepared_statements"  # an attribute of a connection
_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.PIPELINE_SYNC)


class Statement:
    """One statement for all of a process' synchronous connections, Django's among them; each prepares it once.

    It leaves with whatever uses the connection next, so in the transaction nothing overtakes it, and with a COMMIT in one
    round trip. What came next raises its error: then nothing is committed.
    """

    def __init__(self, name: str, statement: str) -> None:
        """`statement` has its parameters as $1, $2, ..."""
        self.name = name.encode()
        self.text = statement.encode()

    def send(self, conn: psycopg.Connection[Any], parameters: Sequence[str | bytes | None]) -> None:
        """Within the connection's transaction; bytes are text already encoded. Raises `psycopg.DataError` for NUL."""
        encoded = [value.encode() if isinstance(value, str) else value for value in parameters]
        if b"\0" in b"".join([value for value in encoded if value is not None]):
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        waiting = conn.__dict__.get("wait")
        if not isinstance(waiting, _Waiting):
            if not conn.autocommit and conn.pgconn.transaction_status == pq.TransactionStatus.IDLE:
                conn.execute("SELECT")  # psycopg begins a transaction with its own first statement only
            waiting = _Waiting(conn)
            conn.wait = waiting  # type: ignore[method-assign, assignment]
        waiting.calls.append((self, encoded))


_COMMIT: tuple[Statement, list[bytes | None]] = (Statement("commit", "COMMIT"), [])


class _Waiting:
    """In place of the `wait` of a connection, through which psycopg does all it does, while statements are to be sent."""

    __slots__ = ("_conn", "calls")

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self.calls: list[tuple[Statement, list[bytes | None]]] = []

    def __call__(self, following: PQGen[T], *args: Any, **named: Any) -> T:
        conn = self._conn
        del conn.wait  # from here on it is psycopg's own again
        what = getattr(following, "__name__", "")
        if what == "_commit_gen":
            following.close()
            self.calls.append(_COMMIT)
            following = self._exchange()  # type: ignore[assignment] # whose value is None, as a COMMIT's is
        elif what != "_rollback_gen":  # of which nothing would stay
            following = self._before(following)
        return conn.wait(following, *args, **named)

    def _before(self, following: PQGen[T]) -> PQGen[T]:
        yield from self._exchange()
        return (yield from following)

    def _exchange(self) -> PQGen[None]:
        """One round trip for all of them."""
        pg = self._conn.pgconn
        known: _Known = self._conn.__dict__.get(_KNOWN) or self._conn.__dict__.setdefault(_KNOWN, _Known())
        suffix = known.suffix
        fresh = {statement.name: statement.text for statement, _ in self.calls if statement.name not in known.prepared}
        results: list[pq.abc.PGresult] = []
        pg.enter_pipeline_mode()
        try:
            for name, text in fresh.items():
                pg.send_prepare(name + suffix, text)
            for statement, parameters in self.calls:
                pg.send_query_prepared(statement.name + suffix, parameters)
            pg.pipeline_sync()
            while pg.flush():
                if (yield Wait.RW) & Ready.R:
                    pg.consume_input()
            while True:
                while pg.is_busy():
                    yield Wait.R
                    pg.consume_input()
                if (result := pg.get_result()) is None:  # between two statements
                    continue
                if result.status == pq.ExecStatus.PIPELINE_SYNC:
                    break
                results.append(result)
        finally:
            with contextlib.suppress(psycopg.Error):  # it is broken, and that is being raised
                pg.exit_pipeline_mode()
        known.prepared.update(name for name, result in zip(fresh, results, strict=False) if result.status in _GOOD)
        try:
            _check(results)
        except psycopg.errors.InvalidSqlStatementName:  # somebody said DEALLOCATE, of these or of all
            known.forget()
            raise


class _Known:
    """The names of what a connection has prepared; there each ends in `suffix`."""

    __slots__ = ("prepared", "suffix")

    def __init__(self) -> None:
        self.prepared: set[bytes] = set()
        self.suffix = b""

    def forget(self) -> None:
        """All are prepared anew, under other names: some of the old ones may be there still."""
        self.prepared.clear()
        self.suffix += b"_"


class _Exchange:
    """One exchange at a time with the server: what has been sent leaves, and its results come."""

    def __init__(self, conn: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self._pg = conn.pgconn
        self._answer: asyncio.Future[list[pq.abc.PGresult]] | None = None
        self._results: list[pq.abc.PGresult] = []

    async def _exchange(self) -> list[pq.abc.PGresult]:
        loop, socket = asyncio.get_running_loop(), self._pg.socket
        self._answer, self._results = loop.create_future(), []
        self._attach(loop, socket)
        try:
            if self._pg.flush():
                loop.add_writer(socket, self._write)
                try:
                    return await self._answer
                finally:
                    loop.remove_writer(socket)
            return await self._answer
        finally:
            self._answer = None
            self._rest(loop, socket)

    def _attach(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        loop.add_reader(socket, self._read)

    def _rest(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        """The exchange is over."""
        loop.remove_reader(socket)

    def _write(self) -> None:
        try:
            if not self._pg.flush():
                asyncio.get_running_loop().remove_writer(self._pg.socket)
        except psycopg.Error as error:
            self._fail(error)

    def _read(self) -> None:
        if self._answer is None:
            self._wake_idle()
            return
        try:
            self._pg.consume_input()
            while not self._pg.is_busy():
                if self._take(self._pg.get_result()):
                    self._finish()
                    return
        except psycopg.Error as error:
            self._fail(error)

    def _wake_idle(self) -> None:
        """Something came that no exchange waits for: a notice, or the end of the connection."""

    def _take(self, result: pq.abc.PGresult | None) -> bool:
        """Whether this was the last one."""
        raise NotImplementedError

    def _finish(self) -> None:
        if self._answer is None or self._answer.done():
            return
        if not self._results:
            self._answer.set_exception(psycopg.OperationalError("the server sent no result"))
        else:
            self._answer.set_result(self._results)

    def _fail(self, error: psycopg.Error) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Prepared(_Exchange):
    """One statement, whose result is its first row, as text."""

    def __init__(self, conn: psycopg.AsyncConnection[tuple[object, ...]], name: str, statement: str) -> None:
        """`statement` has its parameters as $1, $2, ...; it is prepared when it is first run."""
        super().__init__(conn)
        self._name = name.encode()
        self._statement = statement.encode()
        self._is_prepared = False

    async def run(self, parameters: Sequence[bytes]) -> Row:
        """The first row. Raises psycopg's errors; after an `OperationalError` the connection may be closed."""
        if not self._is_prepared:
            self._pg.send_prepare(self._name, self._statement)
            _check(await self._exchange())
            self._is_prepared = True
        self._pg.send_query_prepared(self._name, parameters)
        result = _check(await self._exchange())[-1]
        return [result.get_value(0, column) for column in range(result.nfields)]

    def _take(self, result: pq.abc.PGresult | None) -> bool:
        if result is not None:
            self._results = [result]
        return result is None


class Pipeline(_Exchange):
    """Several statements that go out together and are one transaction: no BEGIN, no COMMIT, one round trip.

    The connection stays in libpq's pipeline mode, so nothing else can use it any more. Rows come in binary. Its socket is
    listened to all the time, which saves two system calls an exchange: `detach()` before the connection is closed.
    """

    def __init__(self, conn: psycopg.AsyncConnection[tuple[object, ...]], statements: Mapping[str, str]) -> None:
        """`statements` by name, with their parameters as $1, $2, ...; they are prepared with the first run."""
        super().__init__(conn)
        self._statements = statements
        self._is_prepared = False
        self._awaited = 0  # so many results are waited for; 0: all, and the COMMIT
        self._listening: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._pg.enter_pipeline_mode()

    async def run(
        self, calls: Sequence[Call], before_commit: Callable[[list[list[Row]]], None] | None = None
    ) -> list[list[Row]]:
        """The rows of each call. Raises psycopg's errors: then none of the calls has done anything.

        `before_commit` sees the rows while the transaction is still open, at the price of one more round trip.
        """
        expected = self._send(calls)
        results: list[pq.abc.PGresult] = []
        if before_commit is not None:
            self._pg.send_flush_request()
            self._awaited = expected
            results = _check(await self._exchange())
            before_commit([_rows(result) for result in results[-len(calls) :]])
            self._awaited = 0
        self._pg.pipeline_sync()
        results += _check(await self._exchange())
        self._is_prepared = True
        return [_rows(result) for result in results[expected - len(calls) : expected]]

    def detach(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            loop, socket = self._listening
            self._listening = None
            if not loop.is_closed():
                loop.remove_reader(socket)

    def _attach(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        if self._listening is None:
            self._listening = loop, socket
            loop.add_reader(socket, self._read)

    def _rest(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        pass

    def _fail(self, error: psycopg.Error) -> None:
        self.detach()  # at once: libpq may have closed the socket, and its number may be another's soon
        super()._fail(error)

    def _wake_idle(self) -> None:
        # Whatever it is, the next exchange reads it; a socket that stays readable must not wake the loop for ever.
        self.detach()

    def _send(self, calls: Sequence[Call]) -> int:
        """How many results there will be."""
        expected = len(calls)
        if not self._is_prepared:
            for name, statement in self._statements.items():
                self._pg.send_prepare(name.encode(), statement.encode())
            expected += len(self._statements)
        for name, parameters in calls:
            self._pg.send_query_prepared(name.encode(), parameters, result_format=pq.Format.BINARY)
        return expected

    def _take(self, result: pq.abc.PGresult | None) -> bool:
        if result is None:  # between two statements
            return False
        self._results.append(result)
        return result.status == pq.ExecStatus.PIPELINE_SYNC or len(self._results) == self._awaited


def _check(results: list[pq.abc.PGresult]) -> list[pq.abc.PGresult]:
    for result in results:
        if result.status not in _GOOD:
            raise error_from_result(result)
    return results


def _rows(result: pq.abc.PGresult) -> list[Row]:
    columns = range(result.nfields)
    return [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
