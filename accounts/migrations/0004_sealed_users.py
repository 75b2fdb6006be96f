"""Users carry a seal; those that are there get one now, and so do the API keys."""

from typing import Any

from django.db import migrations, models

from audit import sealed

USER = ("email", "password", "role", "is_active", "token_version")
KEY = ("user_id", "prefix", "digest", "scopes", "expires_at", "revoked_at")


def seal(apps: Any, schema_editor: Any) -> None:
    event = apps.get_model("audit", "Event")
    sealed.seal_existing(apps.get_model("accounts", "User"), USER, event)
    sealed.seal_existing(apps.get_model("accounts", "ApiKey"), KEY, event)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_sealed_keys"), ("audit", "0004_chain")]
    operations = [
        migrations.AddField("user", "mac", models.BinaryField(default=b"", max_length=32, editable=False)),
        migrations.AddField("user", "row_version", models.PositiveIntegerField(default=0, editable=False)),
        migrations.RunPython(seal, migrations.RunPython.noop),
    ]
