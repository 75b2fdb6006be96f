"""Databases from before there were two roles, and databases of one's own, with two roles or one: by real processes."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from hyprbox.lib.postgres import EmbeddedPostgres
from tests.folders import open_folder
from tests.house import ROOT, clean_environment, house, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder("upgrade") as made:
        yield made


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """PostgreSQL in the var folder of the installation."""
    made = EmbeddedPostgres(folder / "var")
    made.start()
    yield made
    made.destroy()


def ask(url: str, question: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(question.encode())
        return cursor.fetchall() if cursor.description else []


def migrate(folder: Path, *arguments: str, **environment: str) -> str:
    """What it says, on an installation to which the server is somebody else's."""
    given = clean_environment(HYPRBOX_VAR_DIR=str(folder), HYPRBOX_SECRET_KEY=secrets.token_urlsafe(50), **environment)
    command = [sys.executable, "manage.py", "migrate", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def as_before(server: EmbeddedPostgres, folder: Path) -> None:
    """What an older HyprBox leaves when everything but PostgreSQL is killed: one role, that owns it all."""
    server.execute("ALTER DATABASE hyprbox OWNER TO hyprbox")
    server.execute("DROP ROLE hyprbox_owner")
    known = server.place.data / "pg_ident.conf"
    known.write_text("".join(line for line in known.read_text().splitlines(True) if "hyprbox_owner" not in line))
    said = migrate(folder / "elsewhere", DATABASE_URL=server.url)
    assert "The database role “hyprbox” of DATABASE_URL may change or lift the triggers of the audit log" in said
    migrate(folder / "elsewhere", "nodes", "0002", DATABASE_URL=server.url)
    ask(
        server.url,
        "INSERT INTO audit_event (action, actor_kind, actor_id, actor_name, target, detail, ip, request_id, subject, canonical) "
        "VALUES ('node.changed', 'system', '', 'before', 'node:web-1', '{}', '', '', '', '')",
    )


def test_an_older_installation_is_handed_over_by_itself(server: EmbeddedPostgres, folder: Path) -> None:
    as_before(server, folder)
    with house(folder / "var", "--no-agent") as up:
        up.start()
        assert not up.said("audit log")
        owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert ask(server.url, owners) == [("hyprbox_owner",)]
        assert ask(server.url, "SELECT actor_name FROM audit_event WHERE actor_name = 'before'") == [("before",)]
        chained = "SELECT 1 FROM audit_event WHERE actor_name = 'before' AND n = 1"
        wait_for(lambda: ask(server.url, chained), seconds=10, why=up.last_words())
        with pytest.raises(InsufficientPrivilege):
            ask(server.url, "DELETE FROM audit_event")
        with up.api() as api:
            assert api.get("/api/nodes").status_code == 200
        drop_one = (
            "SELECT nodes_drop_partition('nodes_heartbeat', min(inhrelid::regclass::text)) "
            "FROM pg_inherits WHERE inhparent = 'nodes_heartbeat'::regclass"
        )
        assert ask(server.url, drop_one) == [(True,)]


def test_a_database_of_ones_own_with_two_roles(folder: Path) -> None:
    with EmbeddedPostgres(folder / "theirs") as server:
        own = {"DATABASE_URL": server.url, "HYPRBOX_MIGRATION_DATABASE_URL": server.owner_url}
        with house(folder / "var", "--no-agent", **own) as up:
            up.start()
            assert not up.said("audit log")
            for part in ("uvicorn", "manage.py worker"):
                assert "HYPRBOX_MIGRATION_DATABASE_URL" not in up.find(part).environ()
            with pytest.raises(InsufficientPrivilege):
                ask(server.url, "TRUNCATE audit_event")
    server.destroy()
