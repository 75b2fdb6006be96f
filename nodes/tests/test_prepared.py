"""The statements without a cursor: values, errors, large parameters, a wire that is cut. (Here, where a database is at hand.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, DataError, OperationalError, ProgrammingError, connection, transaction

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


NOTE = Statement("note", "INSERT INTO scratch (name, share) VALUES ($2, 100 / $1::int)")


@pytest.fixture
def note() -> Iterator[Statement]:
    """Writes a name beside what 100 is divided by a number."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE scratch (place serial, name text, share int)")
    yield NOTE
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE scratch")


def noted() -> list[tuple[str | None, int]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, share FROM scratch ORDER BY place")
        return cursor.fetchall()


def test_statements_that_are_sent_are_there_for_what_comes_next_and_after_the_commit(note: Statement) -> None:
    with transaction.atomic():
        note.send(connection.connection, ("1", "ä"))
        note.send(connection.connection, ("2", None))
        assert noted() == [("ä", 100), (None, 50)]
        note.send(connection.connection, ("4", "x" * 2_000_000))  # more than a socket takes at once
    assert noted() == [("ä", 100), (None, 50), ("x" * 2_000_000, 25)]
    connection.close()
    with transaction.atomic():  # another connection has it as well
        connection.ensure_connection()
        note.send(connection.connection, ("5", ""))
    assert noted()[3:] == [("", 20)]


def test_what_is_sent_last_and_the_commit_are_one_exchange(note: Statement, tmp_path: Path) -> None:
    with transaction.atomic():
        note.send(connection.connection, ("1", "prepares it"))
    wire = tmp_path / "wire"
    with wire.open("w") as file, transaction.atomic():
        noted()
        connection.connection.pgconn.trace(file.fileno())
        note.send(connection.connection, ("2", "last"))
        transaction.on_commit(lambda: connection.connection.pgconn.untrace())
    said = [line.split("\t")[1:4:2] for line in wire.read_text().splitlines()]
    assert [name for sender, name in said if sender == "F"] == [
        "Bind",
        "Describe",
        "Execute",
        "Bind",
        "Describe",
        "Execute",
        "Sync",
    ]
    assert noted()[1:] == [("last", 50)]


def test_what_is_rolled_back_is_not_even_sent(note: Statement) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        note.send(connection.connection, ("1", "gone"))
        raise ZeroDivisionError
    with transaction.atomic():
        note.send(connection.connection, ("1", "kept"))
    assert noted() == [("kept", 100)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT place FROM scratch")
        assert cursor.fetchone() == (1,)


def test_a_savepoint_takes_back_what_was_sent_since(note: Statement) -> None:
    with transaction.atomic():
        note.send(connection.connection, ("1", "before"))
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            note.send(connection.connection, ("2", "within"))
            raise ZeroDivisionError
        with pytest.raises(DataError), transaction.atomic():
            note.send(connection.connection, ("0", "wrong"))
        note.send(connection.connection, ("4", "after"))
    assert noted() == [("before", 100), ("after", 25)]


@pytest.mark.parametrize("more", [0, 1, 2])
def test_the_commit_after_a_statement_that_fails_commits_nothing(note: Statement, more: int) -> None:
    with pytest.raises(DataError, match="division by zero"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO scratch (name) VALUES ('the act')")
        note.send(connection.connection, ("0", "first"))
        for _ in range(more):
            note.send(connection.connection, ("1", "more"))
    with transaction.atomic():
        assert noted() == []
        note.send(connection.connection, ("1", "goes on"))
    assert noted() == [("goes on", 100)]


def test_the_statement_after_one_that_fails_raises_its_error(note: Statement) -> None:
    with pytest.raises(DataError, match="division by zero"), transaction.atomic():
        note.send(connection.connection, ("0", ""))
        noted()
        pytest.fail("it went on")
    assert noted() == []


def test_a_connection_that_is_lost_before_the_commit_raises(note: Statement) -> None:
    with (
        psycopg.connect(**db.connection_params(), autocommit=True) as other,
        pytest.raises(OperationalError),
        transaction.atomic(),
    ):
        noted()
        note.send(connection.connection, ("1", "lost"))
        other.execute("SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid])
    connection.close()
    assert noted() == []


def test_nul_and_what_is_no_sql_are_told(note: Statement) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"), transaction.atomic():
        note.send(connection.connection, ("1", "a\0b"))
    for _ in range(2):
        with pytest.raises(ProgrammingError, match="SELEKT"), transaction.atomic():
            Statement("bad", "SELEKT 1").send(connection.connection, ())
    assert noted() == []


@pytest.mark.parametrize("forgetting", ["DEALLOCATE note", "DEALLOCATE commit", "DEALLOCATE ALL"])
def test_a_statement_that_the_connection_forgot_is_prepared_again(note: Statement, forgetting: str) -> None:
    with transaction.atomic():
        note.send(connection.connection, ("1", "x"))
    with connection.cursor() as cursor:
        cursor.execute(forgetting)
    with pytest.raises(DatabaseError, match="does not exist"), transaction.atomic():
        note.send(connection.connection, ("2", "x"))
    with transaction.atomic():
        note.send(connection.connection, ("4", "x"))
    assert noted() == [("x", 100), ("x", 25)]
