"""One prepared statement on an asynchronous connection, without what a cursor does for every call.

For the statement that runs all the time: parameters and values are text that the caller makes and reads, the result is
its first row. A cursor costs about twice the CPU per call. Not for use while the connection does anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

Row = list[bytes | None]


class Prepared:
    def __init__(self, conn: psycopg.AsyncConnection[tuple[object, ...]], name: str, statement: str) -> None:
        """`statement` has its parameters as $1, $2, ...; it is prepared when it is first run."""
        self._pg = conn.pgconn
        self._name = name.encode()
        self._statement = statement.encode()
        self._is_prepared = False
        self._answer: asyncio.Future[pq.abc.PGresult] | None = None
        self._last: pq.abc.PGresult | None = None

    async def run(self, parameters: Sequence[bytes]) -> Row:
        """The first row. Raises psycopg's errors; after an `OperationalError` the connection may be closed."""
        if not self._is_prepared:
            self._pg.send_prepare(self._name, self._statement)
            await self._result()
            self._is_prepared = True
        self._pg.send_query_prepared(self._name, parameters)
        result = await self._result()
        return [result.get_value(0, column) for column in range(result.nfields)]

    async def _result(self) -> pq.abc.PGresult:
        loop, socket = asyncio.get_running_loop(), self._pg.socket
        self._answer, self._last = loop.create_future(), None
        loop.add_reader(socket, self._read)
        try:
            if self._pg.flush():
                loop.add_writer(socket, self._write)
            result = await self._answer
        finally:
            loop.remove_reader(socket)
            loop.remove_writer(socket)
            self._answer = None
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise error_from_result(result)
        return result

    def _write(self) -> None:
        try:
            if not self._pg.flush():
                asyncio.get_running_loop().remove_writer(self._pg.socket)
        except psycopg.Error as error:
            self._fail(error)

    def _read(self) -> None:
        try:
            self._pg.consume_input()
            while not self._pg.is_busy():
                result = self._pg.get_result()
                if result is None:  # all of it has come
                    self._finish()
                    return
                self._last = result
        except psycopg.Error as error:
            self._fail(error)

    def _finish(self) -> None:
        if self._answer is None or self._answer.done():
            return
        if self._last is None:
            self._answer.set_exception(psycopg.OperationalError("the server sent no result"))
        else:
            self._answer.set_result(self._last)

    def _fail(self, error: psycopg.Error) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
