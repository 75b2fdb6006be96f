"""Two roles for one database: the owner's, which makes the tables, and the app's, which only works with their rows.

After every migration the app's role is given anew what it needs. It owns nothing and can make nothing, not even a
temporary table, so that no SQL in its name lifts the triggers of the audit log, or slips another table between the log
and those who write to it.
"""

from __future__ import annotations

from typing import Any, Protocol

from psycopg import sql

APP, OWNER = "hyprbox", "hyprbox_owner"  # their names in the embedded server
ORDINARY = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
SEQUENCE = frozenset({"USAGE"})
# `n` and `hash` are the sequencer's. A grant on two columns, and not a function that runs as the owner: the trigger, which
# the app's role cannot lift, lets them be filled once and no more, and a function could not do better.
NARROW = {
    "audit_event": frozenset({"SELECT", "INSERT", "UPDATE (n)", "UPDATE (hash)"}),
    "audit_checkpoint": frozenset({"SELECT", "INSERT"}),
    "django_migrations": frozenset({"SELECT"}),
}


class CannotGrant(Exception):
    """The app's role cannot be given what it needs; the message says why, and what to do."""


class Cursor(Protocol):
    """Django's or psycopg's."""

    def execute(self, query: Any, params: Any = ..., /) -> Any: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> Any: ...


def wanted(relation: str, kind: str) -> frozenset[str]:
    """What the app's role may do with it. `kind` is that of pg_class: r and p are tables, S is a sequence."""
    return SEQUENCE if kind == "S" else NARROW.get(relation, ORDINARY)


_RELATIONS = """
SELECT c.relname, c.relkind::text, pg_has_role(current_user, c.relowner, 'USAGE'), ARRAY(
    SELECT acl.privilege_type FROM aclexplode(c.relacl) AS acl WHERE acl.grantee = %(role)s::regrole
    UNION ALL
    SELECT format('%%s (%%s)', acl.privilege_type, a.attname) FROM pg_attribute AS a, aclexplode(a.attacl) AS acl
    WHERE a.attrelid = c.oid AND acl.grantee = %(role)s::regrole
)
FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
ORDER BY c.relname
"""


def relations(cursor: Cursor, role: str) -> list[tuple[str, str, bool, frozenset[str]]]:
    """All tables, views and sequences: name, kind, whether the current role owns it, and what `role` was granted."""
    cursor.execute(_RELATIONS, {"role": sql.Identifier(role).as_string(None)})
    return [(name, kind, is_ours, frozenset(held)) for name, kind, is_ours, held in cursor.fetchall()]


def refuse(cursor: Cursor, role: str) -> None:
    """Raises CannotGrant when `grant` cannot be: to be called before the migrations, which would fail in worse words."""
    cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", (role,))
    if not cursor.fetchone()[0]:
        raise CannotGrant(f"There is no role “{role}” on this server: make it (docs/install/server.md).")
    for name, _, is_ours, _ in relations(cursor, role):
        if not is_ours and name in NARROW:
            raise CannotGrant(
                f"The table {name} belongs to another role than that of HYPRBOX_MIGRATION_DATABASE_URL: "
                "hand everything over to it (docs/operate/database.md)."
            )


def grant(cursor: Cursor, role: str) -> list[str]:
    """Give the app's role what it needs and take the rest. To be called as the owner, in a transaction.

    Returns the names of tables and sequences that something was changed for. Raises CannotGrant.
    """
    refuse(cursor, role)
    _close_the_room(cursor, role)
    changed = []
    for name, kind, is_ours, held in relations(cursor, role):
        if not is_ours or held == wanted(name, kind):  # an extension's view, for instance, is not for us to grant
            continue
        what = sql.SQL("SEQUENCE {}" if kind == "S" else "TABLE {}").format(sql.Identifier(name))
        _do(cursor, "REVOKE ALL ON {} FROM {}", what, role)
        _do(cursor, "GRANT {} ON {} TO {}", sql.SQL(", ".join(sorted(wanted(name, kind)))), what, role)
        changed.append(name)
    _lend_functions(cursor, role)
    return changed


_ROOM = """
SELECT n.nspname, d.datname, pg_has_role(current_user, n.nspowner, 'USAGE'), pg_has_role(current_user, d.datdba, 'USAGE')
FROM pg_namespace AS n, pg_database AS d WHERE n.nspname = current_schema() AND d.datname = current_database()
"""


def _close_the_room(cursor: Cursor, role: str) -> None:
    """Nobody but the owner makes anything here; and what the owner makes later is for the app as well."""
    cursor.execute(_ROOM)
    schema, database, owns_schema, owns_database = cursor.fetchone()
    inside = sql.SQL("SCHEMA {}").format(sql.Identifier(schema))
    if owns_schema:
        _do(cursor, "REVOKE CREATE ON {} FROM PUBLIC, {}", inside, role)
        _do(cursor, "GRANT USAGE ON {} TO {}", inside, role)
    if owns_database:
        # A temporary table is found before the one whose name it has: entries of the log would go there.
        _do(cursor, "REVOKE TEMPORARY, CREATE ON DATABASE {} FROM PUBLIC, {}", sql.Identifier(database), role)
    for kind, rights in (("TABLES", ORDINARY), ("SEQUENCES", SEQUENCE)):
        rule = f"ALTER DEFAULT PRIVILEGES IN {{}} GRANT {', '.join(sorted(rights))} ON {kind} TO {{}}"
        _do(cursor, rule, inside, role)


def _lend_functions(cursor: Cursor, role: str) -> None:
    """Functions that run as the owner are for the app's role, and for nobody else."""
    cursor.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef AND pronamespace = current_schema()::regnamespace "
        "AND pg_has_role(current_user, proowner, 'USAGE') ORDER BY 1"
    )
    for (function,) in cursor.fetchall():
        _do(cursor, "REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC", sql.SQL(function))
        _do(cursor, "GRANT EXECUTE ON FUNCTION {} TO {}", sql.SQL(function), role)


_OWNS = """
SELECT EXISTS (
    SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = %s::regrole AND deptype = 'o'
    AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
)
"""


def hand_over(cursor: Cursor) -> bool:
    """What the app's role of the embedded server owns becomes the owner's: databases from before there were two.

    To be called as the superuser, in a transaction. Returns whether there was anything.
    """
    cursor.execute(_OWNS, (APP,))
    if not cursor.fetchone()[0]:
        return False
    _do(cursor, "REASSIGN OWNED BY {} TO {}", APP, OWNER)
    _do(cursor, "SET LOCAL ROLE {}", OWNER)
    grant(cursor, APP)
    return True


_POWERS = """
SELECT current_user, pg_has_role(current_user, c.relowner, 'MEMBER')
    OR has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER'),
    has_database_privilege(current_database(), 'TEMPORARY') OR has_schema_privilege(c.relnamespace, 'CREATE')
FROM pg_class AS c WHERE c.oid = to_regclass('audit_event')
"""


def weakness(cursor: Cursor) -> str:
    """What the current role may do that the app's should not, in a sentence; "" for nothing, or when there is no log."""
    cursor.execute(_POWERS)
    found = cursor.fetchone()
    if found is None or not (found[1] or found[2]):
        return ""
    what = "may change or lift the triggers of" if found[1] else "may put another table in the place of"
    return (
        f"The database role “{found[0]}” of DATABASE_URL {what} the audit log, which privileges do not protect then: "
        "have two roles (docs/operate/database.md)."
    )


def _do(cursor: Cursor, statement: str, *parts: sql.Composable | str) -> None:
    """Plain strings are names."""
    named = [sql.Identifier(part) if isinstance(part, str) else part for part in parts]
    cursor.execute(sql.SQL(statement).format(*named).as_string(None))
