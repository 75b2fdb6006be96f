"""The statement without a cursor: values, errors, large parameters, a wire that is cut. (Here, where a database is at hand.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from hyprbox.lib import db
from hyprbox.lib.prepared import Prepared

pytestmark = pytest.mark.django_db(transaction=True)


def run(work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]) -> None:
    async def whole() -> None:
        conn = await db.async_connect()
        try:
            await work(conn)
        finally:
            await conn.close()

    asyncio.run(whole())


def test_it_gives_the_first_row_again_and_again() -> None:
    async def work(conn: psycopg.AsyncConnection[Any]) -> None:
        statement = Prepared(conn, "s", "SELECT $1::int + 1, NULL, $2::text")
        for number in range(3):
            assert await statement.run((b"%d" % number, "ä".encode())) == [b"%d" % (number + 1), None, "ä".encode()]
            assert (await (await conn.execute("SELECT 7")).fetchone()) == (7,)  # a cursor may come between

    run(work)


def test_a_parameter_larger_than_the_sockets_buffer_arrives() -> None:
    async def work(conn: psycopg.AsyncConnection[Any]) -> None:
        statement = Prepared(conn, "s", "SELECT length($1::text)")
        assert await statement.run((b"x" * 20_000_000,)) == [b"20000000"]

    run(work)


def test_an_error_is_psycopgs_own_and_the_connection_lives() -> None:
    async def work(conn: psycopg.AsyncConnection[Any]) -> None:
        statement = Prepared(conn, "s", "SELECT 1 / $1::int")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await statement.run((b"0",))
        assert await statement.run((b"1",)) == [b"1"]
        with pytest.raises(psycopg.errors.SyntaxError):
            await Prepared(conn, "t", "SELEKT 1").run(())

    run(work)


def test_a_connection_that_is_ended_is_an_operational_error() -> None:
    async def work(conn: psycopg.AsyncConnection[Any]) -> None:
        statement = Prepared(conn, "s", "SELECT pg_terminate_backend(pg_backend_pid()), $1::int")
        with pytest.raises(psycopg.OperationalError):
            await statement.run((b"1",))
        assert conn.closed

    run(work)
