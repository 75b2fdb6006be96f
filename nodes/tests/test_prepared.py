"""The statements without a cursor: values, errors, large parameters, a wire that is cut. (Here, where a database is at hand.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from hyprbox.lib import db
from hyprbox.lib.prepared import Prepared, Statement

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


def test_a_statement_works_on_djangos_connections_and_in_their_transactions() -> None:
    statement = Statement("first", "SELECT $1::int4, NULL, $2::text")
    for number in range(3):
        with transaction.atomic():
            found = statement.first_row(connection.connection, (str(number), "ä"))
        assert found == [number.to_bytes(4, "big"), None, "ä".encode()]
    connection.close()
    with transaction.atomic():  # another connection has it as well
        assert statement.first_row(connection.connection, ("7", ""))[0] == b"\0\0\0\7"


def test_a_statement_that_is_a_transactions_first_is_rolled_back_with_it() -> None:
    change = Statement("change", "INSERT INTO scratch SELECT $1::text RETURNING name")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE scratch (name text)")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        change.first_row(connection.connection, ("x",))
        raise ZeroDivisionError
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM scratch")
        assert cursor.fetchone() == (0,)
        cursor.execute("DROP TABLE scratch")


def test_a_statements_errors_are_psycopgs_and_it_goes_on() -> None:
    statement = Statement("divide", "SELECT 1 / $1::int4, $2::text")
    with pytest.raises(psycopg.errors.DivisionByZero), transaction.atomic():
        statement.first_row(connection.connection, ("0", None))
    with pytest.raises(psycopg.DataError, match="NUL"), transaction.atomic():
        statement.first_row(connection.connection, ("1", "a\0b"))
    with transaction.atomic():
        assert statement.first_row(connection.connection, ("1", None)) == [b"\0\0\0\1", None]
    with pytest.raises(psycopg.errors.SyntaxError), transaction.atomic():
        Statement("bad", "SELEKT 1").first_row(connection.connection, ())


def test_a_statement_that_the_connection_forgot_is_prepared_again() -> None:
    statement = Statement("forgot", "SELECT $1::text")
    with transaction.atomic(), connection.cursor() as cursor:
        statement.first_row(connection.connection, ("x",))
        cursor.execute("DEALLOCATE forgot")
    with pytest.raises(psycopg.errors.InvalidSqlStatementName), transaction.atomic():
        statement.first_row(connection.connection, ("x",))
    with transaction.atomic():
        assert statement.first_row(connection.connection, ("x",)) == [b"x"]
