"""What a person did themselves is found without reading what others did."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("audit", "0005_denials")]
    operations = [
        migrations.AddIndex(
            "event",
            models.Index(fields=["actor_id", "-id"], condition=models.Q(actor_kind="user"), name="audit_by_person"),
        ),
    ]
