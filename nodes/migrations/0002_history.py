"""History: tables that are partitioned by time and keyed (node, at), with no key of their own and no foreign key.

A node is never deleted, only marked as removed, so the rows need no guard; and a check per inserted row would be
the dearest part of a heartbeat.
"""

from django.db import migrations, models

import nodes.fields

ROLLUP_COLUMNS = "samples integer NOT NULL, " + ", ".join(
    f"{metric}_{kind} real"
    for metric in ("cpu_percent", "memory_percent", "disk_percent", "load_1", "net_rx_bps", "net_tx_bps")
    for kind in ("avg", "max")
)

TABLES = f"""
CREATE TABLE nodes_heartbeat (
    node uuid NOT NULL, at timestamptz NOT NULL,
    cpu_percent real, memory_percent real, disk_percent real, load_1 real, net_rx_bps real, net_tx_bps real,
    PRIMARY KEY (node, at)
) PARTITION BY RANGE (at);
CREATE TABLE nodes_fiveminutes (node uuid NOT NULL, at timestamptz NOT NULL, {ROLLUP_COLUMNS}, PRIMARY KEY (node, at))
    PARTITION BY RANGE (at);
CREATE TABLE nodes_hour (node uuid NOT NULL, at timestamptz NOT NULL, {ROLLUP_COLUMNS}, PRIMARY KEY (node, at))
    PARTITION BY RANGE (at);
"""

# Attaching a ready table takes a weaker lock than CREATE TABLE ... PARTITION OF: heartbeats go on meanwhile.
# The advisory lock lets two processes ask for the same partition.
MAKE_PARTITION = """
CREATE FUNCTION nodes_make_partition(parent text, starts_at timestamptz, ends_at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || '_' || to_char(starts_at AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext(parent));
    IF to_regclass(child) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   parent, child, starts_at, ends_at);
    RETURN true;
END $$;
"""

FIRST_PARTITIONS = """
SELECT nodes_make_partition(parent, day, day + interval '1 day')
FROM unnest(ARRAY['nodes_heartbeat', 'nodes_fiveminutes']) AS parent,
     generate_series(date_trunc('day', now(), 'UTC') - interval '1 day', now() + interval '3 days', '1 day') AS day;
SELECT nodes_make_partition('nodes_hour', month, month + interval '1 month')
FROM generate_series(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month', now() AT TIME ZONE 'UTC' +
     interval '1 month', '1 month') AS local, LATERAL (SELECT local AT TIME ZONE 'UTC' AS month) AS at_utc;
"""

DROP = """
DROP TABLE nodes_heartbeat, nodes_fiveminutes, nodes_hour;
DROP FUNCTION nodes_make_partition;
"""


class Migration(migrations.Migration):
    dependencies = [("nodes", "0001_nodes")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(TABLES + MAKE_PARTITION + FIRST_PARTITIONS, DROP)],
            state_operations=[
                migrations.CreateModel(
                    name="FiveMinutes",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "node", "at", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("node", models.UUIDField()),
                        ("at", models.DateTimeField()),
                        ("samples", models.PositiveIntegerField()),
                        ("cpu_percent_avg", nodes.fields.RealField(null=True)),
                        ("cpu_percent_max", nodes.fields.RealField(null=True)),
                        ("memory_percent_avg", nodes.fields.RealField(null=True)),
                        ("memory_percent_max", nodes.fields.RealField(null=True)),
                        ("disk_percent_avg", nodes.fields.RealField(null=True)),
                        ("disk_percent_max", nodes.fields.RealField(null=True)),
                        ("load_1_avg", nodes.fields.RealField(null=True)),
                        ("load_1_max", nodes.fields.RealField(null=True)),
                        ("net_rx_bps_avg", nodes.fields.RealField(null=True)),
                        ("net_rx_bps_max", nodes.fields.RealField(null=True)),
                        ("net_tx_bps_avg", nodes.fields.RealField(null=True)),
                        ("net_tx_bps_max", nodes.fields.RealField(null=True)),
                    ],
                ),
                migrations.CreateModel(
                    name="Heartbeat",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "node", "at", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("node", models.UUIDField()),
                        ("at", models.DateTimeField()),
                        ("cpu_percent", nodes.fields.RealField(null=True)),
                        ("memory_percent", nodes.fields.RealField(null=True)),
                        ("disk_percent", nodes.fields.RealField(null=True)),
                        ("load_1", nodes.fields.RealField(null=True)),
                        ("net_rx_bps", nodes.fields.RealField(null=True)),
                        ("net_tx_bps", nodes.fields.RealField(null=True)),
                    ],
                ),
                migrations.CreateModel(
                    name="Hour",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "node", "at", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("node", models.UUIDField()),
                        ("at", models.DateTimeField()),
                        ("samples", models.PositiveIntegerField()),
                        ("cpu_percent_avg", nodes.fields.RealField(null=True)),
                        ("cpu_percent_max", nodes.fields.RealField(null=True)),
                        ("memory_percent_avg", nodes.fields.RealField(null=True)),
                        ("memory_percent_max", nodes.fields.RealField(null=True)),
                        ("disk_percent_avg", nodes.fields.RealField(null=True)),
                        ("disk_percent_max", nodes.fields.RealField(null=True)),
                        ("load_1_avg", nodes.fields.RealField(null=True)),
                        ("load_1_max", nodes.fields.RealField(null=True)),
                        ("net_rx_bps_avg", nodes.fields.RealField(null=True)),
                        ("net_rx_bps_max", nodes.fields.RealField(null=True)),
                        ("net_tx_bps_avg", nodes.fields.RealField(null=True)),
                        ("net_tx_bps_max", nodes.fields.RealField(null=True)),
                    ],
                ),
            ],
        ),
    ]
