"""A job may let go on what its script leaves running."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0010_cancelled_because")]
    operations = [
        migrations.AddField("job", "allow_background", models.BooleanField(db_default=False, default=False)),
    ]
