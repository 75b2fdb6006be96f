"""Open jobs stand in a table of their own, so that no index knows when a job ended: a good end moves its row in place."""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
CREATE FUNCTION jobs_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO jobs_openjob (job_id, node_id, created_at)
  SELECT id, node_id, created_at FROM made WHERE finished_at IS NULL
  ON CONFLICT (job_id) DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER jobs_opened AFTER INSERT ON jobs_job REFERENCING NEW TABLE AS made
  FOR EACH STATEMENT EXECUTE FUNCTION jobs_open();
INSERT INTO jobs_openjob (job_id, node_id, created_at)
SELECT id, node_id, created_at FROM jobs_job WHERE finished_at IS NULL;
-- Rows come and go all the time, and a poll reads past those that have gone.
ALTER TABLE jobs_openjob SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
"""
BACKWARD = """
DROP TRIGGER jobs_opened ON jobs_job;
DROP FUNCTION jobs_open();
"""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0008_authors")]
    operations = [
        migrations.RemoveIndex("job", "jobs_open"),
        migrations.CreateModel(
            name="OpenJob",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="jobs.job",
                    ),
                ),
                ("node_id", models.UUIDField()),
                ("created_at", models.DateTimeField()),
            ],
            options={"indexes": [models.Index(fields=["node_id", "created_at", "job"], name="jobs_open")]},
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
