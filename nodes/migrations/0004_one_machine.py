from django.db import migrations, models


class Migration(migrations.Migration):
    """What tells two machines that report as one node. No column is indexed: heartbeats stay HOT updates."""

    dependencies = [("nodes", "0003_partitions_by_the_owner")]

    operations = [
        migrations.AddField(
            model_name="node",
            name="identified_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="misfit",
            field=models.CharField(blank=True, max_length=8, null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="sightings",
            field=models.JSONField(blank=True, db_default={}, default=dict),
        ),
    ]
