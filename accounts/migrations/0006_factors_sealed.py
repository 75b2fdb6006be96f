"""The second factor is under each user's seal: those whose seal fits get one that covers it."""

from typing import Any

from django.db import migrations

from audit import sealed

BEFORE = ("email", "password", "role", "is_active", "token_version")
AFTER = (*BEFORE, "has_factor", "totp_seed", "totp_key_id", "recovery_codes")


def seal(apps: Any, schema_editor: Any) -> None:
    sealed.reseal_existing(apps.get_model("accounts", "User"), BEFORE, AFTER, apps.get_model("audit", "Event"))


def unseal(apps: Any, schema_editor: Any) -> None:
    sealed.reseal_existing(apps.get_model("accounts", "User"), AFTER, BEFORE, apps.get_model("audit", "Event"))


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_second_factor"), ("audit", "0004_chain")]
    operations = [migrations.RunPython(seal, unseal)]
