"""Invitations carry a seal, and so do the sessions of programs: those that are there end, and log in again."""

from typing import Any

from django.db import migrations, models
from django.db.models.functions import Now

from audit import sealed

INVITATION = ("email", "role", "digest", "expires_at", "accepted_at", "revoked_at")


def seal(apps: Any, schema_editor: Any) -> None:
    sealed.seal_existing(apps.get_model("accounts", "Invitation"), INVITATION, apps.get_model("audit", "Event"))
    apps.get_model("accounts", "RefreshFamily").objects.filter(revoked_at=None).update(revoked_at=Now())


class Migration(migrations.Migration):
    dependencies = [("accounts", "0006_factors_sealed"), ("audit", "0004_chain")]
    operations = [
        migrations.AddField("invitation", "mac", models.BinaryField(default=b"", max_length=32, editable=False)),
        migrations.AddField("invitation", "row_version", models.PositiveIntegerField(default=0, editable=False)),
        migrations.AddField("refreshfamily", "seal", models.BinaryField(default=b"", max_length=32)),
        migrations.AddField("refreshfamily", "fresh_seal", models.BinaryField(default=b"", max_length=32)),
        migrations.RunPython(seal, migrations.RunPython.noop),
    ]
