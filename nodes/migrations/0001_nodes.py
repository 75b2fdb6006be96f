"""Nodes, their status flips and their stored sparklines."""

import uuid

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import nodes.fields

# A heartbeat writes a new version of the node's row: room on the same page keeps that a HOT update, and an
# early vacuum keeps the table small.
ROOM_FOR_HOT_UPDATES = """
ALTER TABLE nodes_node SET (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE nodes_sparkline SET (fillfactor = 50);
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Node",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "node_id",
                    models.CharField(
                        max_length=63,
                        validators=[django.core.validators.RegexValidator("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\\Z")],
                    ),
                ),
                ("display_name", models.CharField(blank=True, default="", max_length=120)),
                ("group", models.CharField(blank=True, default="", max_length=63)),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=63), blank=True, default=list, size=None
                    ),
                ),
                ("notes", models.TextField(blank=True, default="", max_length=10000)),
                (
                    "concurrency",
                    models.PositiveSmallIntegerField(default=1, help_text="How many jobs may run at once."),
                ),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("removed_at", models.DateTimeField(blank=True, null=True)),
                ("region", models.CharField(blank=True, default="", max_length=63)),
                ("agent_version", models.CharField(blank=True, default="", max_length=40)),
                ("interval_seconds", models.PositiveIntegerField(default=60)),
                ("first_seen_at", models.DateTimeField(blank=True, null=True)),
                ("last_seen_at", models.DateTimeField(blank=True, null=True)),
                ("cpu_percent", models.FloatField(blank=True, null=True)),
                ("memory_percent", models.FloatField(blank=True, null=True)),
                ("disk_percent", models.FloatField(blank=True, null=True)),
                (
                    "metrics",
                    models.JSONField(blank=True, default=dict, help_text="All that the last heartbeat measured."),
                ),
                ("inventory", models.JSONField(blank=True, default=dict)),
                ("inventory_at", models.DateTimeField(blank=True, null=True)),
                (
                    "clock_offset_seconds",
                    models.FloatField(blank=True, help_text="Its clock minus the database's.", null=True),
                ),
                ("machine_id", models.CharField(blank=True, default="", max_length=64)),
                ("instance_id", models.CharField(blank=True, default="", max_length=64)),
                ("beat", models.BigIntegerField(blank=True, null=True)),
                ("clone_suspected_at", models.DateTimeField(blank=True, null=True)),
                (
                    "announced_status",
                    models.CharField(
                        choices=[
                            ("ONLINE", "Online"),
                            ("WARNING", "Warning"),
                            ("CRITICAL", "Critical"),
                            ("OFFLINE", "Offline"),
                            ("UNKNOWN", "Unknown"),
                        ],
                        default="UNKNOWN",
                        max_length=8,
                    ),
                ),
                ("announced_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "ordering": ["node_id"],
            },
        ),
        migrations.CreateModel(
            name="StatusFlip",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "before",
                    models.CharField(
                        choices=[
                            ("ONLINE", "Online"),
                            ("WARNING", "Warning"),
                            ("CRITICAL", "Critical"),
                            ("OFFLINE", "Offline"),
                            ("UNKNOWN", "Unknown"),
                        ],
                        max_length=8,
                    ),
                ),
                (
                    "after",
                    models.CharField(
                        choices=[
                            ("ONLINE", "Online"),
                            ("WARNING", "Warning"),
                            ("CRITICAL", "Critical"),
                            ("OFFLINE", "Offline"),
                            ("UNKNOWN", "Unknown"),
                        ],
                        max_length=8,
                    ),
                ),
                ("reasons", models.JSONField(default=list)),
            ],
        ),
        migrations.CreateModel(
            name="Sparkline",
            fields=[
                (
                    "node",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="sparkline",
                        serialize=False,
                        to="nodes.node",
                    ),
                ),
                ("ends_at", models.DateTimeField()),
                ("step_seconds", models.PositiveIntegerField()),
                (
                    "cpu_percent",
                    django.contrib.postgres.fields.ArrayField(base_field=nodes.fields.RealField(null=True), size=48),
                ),
                (
                    "memory_percent",
                    django.contrib.postgres.fields.ArrayField(base_field=nodes.fields.RealField(null=True), size=48),
                ),
                (
                    "disk_percent",
                    django.contrib.postgres.fields.ArrayField(base_field=nodes.fields.RealField(null=True), size=48),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="node",
            constraint=models.UniqueConstraint(
                condition=models.Q(("removed_at__isnull", True)), fields=("node_id",), name="nodes_node_one_of_a_name"
            ),
        ),
        migrations.AddConstraint(
            model_name="node",
            constraint=models.CheckConstraint(
                condition=models.Q(("announced_status__in", ["ONLINE", "WARNING", "CRITICAL", "OFFLINE", "UNKNOWN"])),
                name="nodes_node_status",
            ),
        ),
        migrations.AddField(
            model_name="statusflip",
            name="node",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="flips", to="nodes.node"
            ),
        ),
        migrations.AddIndex(
            model_name="statusflip",
            index=models.Index(fields=["node", "-at"], name="nodes_flip_node_at"),
        ),
        migrations.AddIndex(
            model_name="statusflip",
            index=models.Index(fields=["-at"], name="nodes_flip_at"),
        ),
        migrations.RunSQL(ROOM_FOR_HOT_UPDATES, migrations.RunSQL.noop),
    ]
