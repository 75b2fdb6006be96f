"""Two roles of PostgreSQL: one owns the tables; the other, which all processes use, cannot touch the audit log's past."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.core.management.base import CommandError
from django.db import IntegrityError, connection, transaction
from psycopg.errors import InsufficientPrivilege

from audit import sequencer, services, verifying
from audit.actions import Action
from audit.models import Event
from hyprbox.lib import roles
from hyprbox.lib.db import connection_params
from hyprbox.management import owner
from nodes import history
from tests.factories import SYSTEM
from tests.house import ROOT

LONG_AGO = datetime(2020, 2, 27, tzinfo=UTC)
REFUSED = """
UPDATE audit_event SET action = 'x'
UPDATE audit_event SET canonical = ''
UPDATE audit_event SET n = 1, target = 'x'
DELETE FROM audit_event
TRUNCATE audit_event
BEGIN; LOCK TABLE audit_event
DROP TABLE audit_event
DROP TRIGGER audit_append_only ON audit_event
ALTER TABLE audit_event DISABLE TRIGGER audit_append_only
ALTER TABLE audit_event DISABLE TRIGGER ALL
ALTER TABLE audit_event RENAME TO old_event
ALTER TABLE audit_event OWNER TO hyprbox
CREATE TRIGGER mine BEFORE INSERT ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_refuse_change()
CREATE RULE mine AS ON INSERT TO audit_event DO INSTEAD NOTHING
CREATE OR REPLACE FUNCTION audit_only_place() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'
CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'
ALTER FUNCTION audit_complete() RENAME TO audit_incomplete
DROP FUNCTION audit_refuse_change() CASCADE
UPDATE audit_checkpoint SET n = 1
DELETE FROM audit_checkpoint
TRUNCATE audit_checkpoint
ALTER TABLE audit_checkpoint DISABLE TRIGGER USER
DELETE FROM django_migrations
INSERT INTO django_migrations (app, name, applied) VALUES ('audit', '9999', now())
TRUNCATE jobs_job CASCADE
SET session_replication_role = replica
SET ROLE hyprbox_owner
ALTER ROLE hyprbox SUPERUSER
GRANT hyprbox_owner TO hyprbox
CREATE TABLE mine (id int)
CREATE TEMPORARY TABLE audit_event (id int)
CREATE SCHEMA mine
CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'
COPY audit_event TO PROGRAM 'cat'
SELECT pg_read_file('postgresql.conf')
SELECT nodes_make_partition('audit_event', now(), now() + interval '1 day')
SELECT nodes_drop_partition('audit_event', 'audit_checkpoint')
""".strip().splitlines()


@pytest.fixture
def app(db: None) -> Iterator[psycopg.Connection[Any]]:
    """A real login of the app's role."""
    with psycopg.connect(**connection_params(user=roles.APP), autocommit=True) as connected:
        yield connected


def written_down() -> dict[str, frozenset[str]]:
    text = (ROOT / "docs/operate/database.md").read_text()
    section = text.partition("may do")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `?([a-z_ ]+)`? \| (.+) \|$", section, re.MULTILINE)
    return {name: frozenset(rights.split(", ")) for name, rights in rows}


def held(name: str) -> frozenset[str]:
    with connection.cursor() as cursor:
        return {found: rights for found, _, _, rights in roles.relations(cursor, roles.APP)}[name]


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.django_db
def test_every_table_is_granted_what_is_written_down() -> None:
    table = written_down()
    with connection.cursor() as cursor:
        found = roles.relations(cursor, roles.APP)
    expected = {
        name: table["sequences" if kind == "S" else name if name in table else "every other"]
        for name, kind, _, _ in found
    }
    assert {name: rights for name, _, _, rights in found} == expected
    assert set(table) - {"sequences", "every other"} <= set(expected)
    assert {"procrastinate_jobs", "jobs_job", "nodes_heartbeat", "accounts_user"} <= set(expected)


@pytest.mark.parametrize("statement", REFUSED)
def test_the_app_is_refused(app: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        app.execute(statement.encode())


def test_the_app_cannot_give_itself_more(app: psycopg.Connection[Any]) -> None:
    app.execute("GRANT ALL ON audit_event TO hyprbox")  # PostgreSQL only warns
    with pytest.raises(InsufficientPrivilege):
        app.execute("DELETE FROM audit_event")


def test_nobody_else_may_call_the_functions_that_run_as_the_owner(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT proname, has_function_privilege('public', oid, 'EXECUTE'), "
            "has_function_privilege('hyprbox', oid, 'EXECUTE') FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace ORDER BY 1"
        )
        assert cursor.fetchall() == [("nodes_drop_partition", False, True), ("nodes_make_partition", False, True)]


def test_the_app_records_and_the_sequencer_gives_each_entry_its_place_once(as_the_app: None) -> None:
    for _ in range(3):
        services.record(Action.NODE_CHANGED, by=SYSTEM, target="node:web-1")
    assert sequencer.sequence().placed == 3
    assert verifying.verify().intact is True
    first = Event.objects.get(n=1)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        sql(f"UPDATE audit_event SET n = 7, hash = sha256('') WHERE id = {first.pk}")


def test_the_app_makes_and_drops_partitions(as_the_app: None) -> None:
    made = history.make_partitions(LONG_AGO, LONG_AGO + timedelta(days=3))
    assert made == 4 + 4 + 2
    assert held("nodes_heartbeat_20200229") == roles.ORDINARY
    assert history.make_partitions(LONG_AGO, LONG_AGO) == 0
    dropped = history.drop_old()
    assert {"nodes_heartbeat_20200229", "nodes_fiveminutes_20200301", "nodes_hour_20200201"} <= set(dropped)
    assert len(dropped) == made
    assert history.old_partitions() == []
    assert history._drop(history.HEARTBEATS, "nodes_heartbeat_20200229") is False  # another worker was faster
    assert history._drop(history.HEARTBEATS, "jobs_job") is False  # no partition of it
    sql("SELECT FROM jobs_job")


def test_a_table_that_was_forgotten_gets_its_privileges_with_the_next_migration(db: None) -> None:
    sql("CREATE TABLE forgotten (id bigserial)")
    sql("REVOKE ALL ON forgotten, forgotten_id_seq FROM hyprbox")
    assert owner.grant() == ["forgotten", "forgotten_id_seq"]
    assert owner.grant() == []
    sql("SET LOCAL ROLE hyprbox")
    sql("INSERT INTO forgotten DEFAULT VALUES")


def test_a_new_table_is_for_the_app_at_once(db: None) -> None:
    sql("CREATE TABLE fresh (id bigserial)")
    assert (held("fresh"), held("fresh_id_seq")) == (roles.ORDINARY, roles.SEQUENCE)


def test_what_was_added_by_hand_is_taken_back(db: None) -> None:
    sql("GRANT DELETE ON audit_event TO hyprbox")
    sql("GRANT UPDATE (target) ON audit_event TO hyprbox")
    assert owner.grant() == ["audit_event"]
    assert held("audit_event") == roles.NARROW["audit_event"]


def test_a_role_that_is_not_there_is_named(db: None, settings: Any) -> None:
    settings.HYPRBOX_APP_ROLE = "nobody-such"
    with pytest.raises(CommandError, match="no role “nobody-such”"):
        owner.grant()


def test_what_others_have_in_the_schema_is_left_alone_unless_it_should_be_ours(db: None) -> None:
    sql("CREATE TABLE theirs (id int)")
    sql("GRANT CREATE ON SCHEMA public TO hyprbox")
    sql("ALTER TABLE theirs OWNER TO hyprbox")
    assert owner.grant() == []
    sql("GRANT CREATE ON SCHEMA public TO hyprbox")
    sql("ALTER TABLE audit_event OWNER TO hyprbox")
    with pytest.raises(CommandError, match="audit_event belongs to another role"):
        owner.grant()


def weakness() -> str:
    with connection.cursor() as cursor:
        return roles.weakness(cursor)


def test_who_may_do_more_than_the_app_should_is_told(db: None) -> None:
    assert "“hyprbox_owner” of DATABASE_URL may change or lift the triggers of the audit log" in weakness()


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("UPDATE ON audit_event", "may change"),
        ("TRUNCATE ON audit_event", "may change"),
        ("TRIGGER ON audit_event", "lift the triggers"),
        ("CREATE ON SCHEMA public", "in the place of"),
    ],
)
def test_every_weakness_of_the_apps_role_is_told(db: None, given: str, what: str) -> None:
    sql("SET LOCAL ROLE hyprbox")
    assert weakness() == ""
    sql("SET LOCAL ROLE hyprbox_owner")
    sql(f"GRANT {given} TO hyprbox")
    sql("SET LOCAL ROLE hyprbox")
    assert what in weakness()
