"""Who queued a batch is known by their id as well, so that its later waves can be asked whether that person still may."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0007_a_row_that_moves_in_place")]
    operations = [migrations.AddField("batch", "author_id", models.UUIDField(blank=True, editable=False, null=True))]
