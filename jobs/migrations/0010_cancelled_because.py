"""Who queued a job is known by their id as well, as of a batch; and a job says who or what had it cancelled."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0009_open_jobs")]
    operations = [
        migrations.AddField("job", "author_id", models.UUIDField(blank=True, editable=False, null=True)),
        migrations.AddField(
            "job", "cancelled_because", models.CharField(blank=True, db_default="", default="", max_length=400)
        ),
    ]
