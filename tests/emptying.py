"""What tests that commit leave in the database goes, quickly: every table is emptied, whoever made it.

Django would TRUNCATE, which makes new files for every table and index, and then make all content types and permissions
anew: both cost more than most of these tests.
"""

from __future__ import annotations

from django.db import connection
from django.test import TransactionTestCase

# These are made by `migrate`, and no test changes them.
_KEPT = ("django_migrations", "django_content_type", "auth_permission")
# The lock waits for whoever still writes, up to lock_timeout: a test that leaves such a one behind fails. As a replica
# PostgreSQL calls no triggers: those of the audit log, which refuse this, and those that look after foreign keys.
_EMPTY = f"""
DO $$
DECLARE
    names text[];
    name text;
BEGIN
    PERFORM set_config('session_replication_role', 'replica', true);
    SELECT array_agg(oid::regclass::text ORDER BY oid) INTO names FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
    AND relname NOT IN ({", ".join(f"'{name}'" for name in _KEPT)});
    EXECUTE 'LOCK TABLE ' || array_to_string(names, ', ') || ' IN SHARE ROW EXCLUSIVE MODE';
    FOREACH name IN ARRAY names LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
END $$
"""


def empty_database(case: TransactionTestCase | None = None) -> None:
    """The database as `migrate` left it, but for sequences, which go on."""
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY)


def use() -> None:
    """From now on tests that commit end with this."""
    TransactionTestCase._fixture_teardown = empty_database  # type: ignore[method-assign]
