"""The role that works with the rows does not own the tables: functions that run as the owner make and drop partitions.

They know their three tables and no other, look nowhere but in their schema, and are only for those who are granted them.
"""

from django.db import migrations

GUARD = """
    IF parent <> ALL ('{nodes_heartbeat,nodes_fiveminutes,nodes_hour}') THEN
        RAISE EXCEPTION '% is not a table of history', parent USING ERRCODE = 'insufficient_privilege';
    END IF;"""

MAKE = """
CREATE OR REPLACE FUNCTION nodes_make_partition(parent text, starts_at timestamptz, ends_at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || '_' || to_char(starts_at AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN%s
    PERFORM pg_advisory_xact_lock(hashtext(parent));
    IF to_regclass(child) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %%I (LIKE %%I INCLUDING ALL)', child, parent);
    EXECUTE format('ALTER TABLE %%I ATTACH PARTITION %%I FOR VALUES FROM (%%L) TO (%%L)',
                   parent, child, starts_at, ends_at);
    RETURN true;
END $$;
"""

# Whether there was such a partition: of two who drop the same one, the second finds none.
DROP = f"""
CREATE FUNCTION nodes_drop_partition(parent text, child text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN{GUARD}
    PERFORM pg_advisory_xact_lock(hashtext(parent));
    IF NOT EXISTS (
        SELECT FROM pg_inherits
        WHERE inhparent = to_regclass(quote_ident(parent)) AND inhrelid = to_regclass(quote_ident(child))
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child);
    EXECUTE format('DROP TABLE %I', child);
    RETURN true;
END $$;
"""

# A temporary table of the caller's would come first, were pg_temp not named last.
AS_OWNER = """
DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'nodes_make_partition(text, timestamptz, timestamptz)', 'nodes_drop_partition(text, text)'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', signature, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', signature);
    END LOOP;
END $$;
"""

BACKWARD = f"""
DROP FUNCTION nodes_drop_partition(text, text);
GRANT EXECUTE ON FUNCTION nodes_make_partition(text, timestamptz, timestamptz) TO PUBLIC;
{MAKE % ""}
"""


class Migration(migrations.Migration):
    dependencies = [("nodes", "0002_history")]
    operations = [migrations.RunSQL(MAKE % GUARD + DROP + AS_OWNER, BACKWARD)]
