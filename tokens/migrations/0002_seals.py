"""Tokens carry a seal; those that are there get one now."""

from typing import Any

from django.db import migrations, models

from audit import sealed

SEALED = ("prefix", "digest", "node_id", "node_pk", "expires_at", "revoked_at")


def seal(apps: Any, schema_editor: Any) -> None:
    sealed.seal_existing(apps.get_model("tokens", "NodeToken"), SEALED, apps.get_model("audit", "Event"))


class Migration(migrations.Migration):
    dependencies = [("tokens", "0001_initial"), ("audit", "0004_chain")]
    operations = [
        migrations.AddField("nodetoken", "mac", models.BinaryField(default=b"", max_length=32, editable=False)),
        migrations.AddField("nodetoken", "row_version", models.PositiveIntegerField(default=0, editable=False)),
        migrations.RunPython(seal, migrations.RunPython.noop),
    ]
