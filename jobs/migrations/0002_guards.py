"""The database's own guards: no job leaves a terminal state or takes an arrow that is not there."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION jobs_guard_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status <> OLD.status AND NOT (
       (OLD.status = 'QUEUED' AND NEW.status IN ('RUNNING', 'FAILED', 'CANCELLED'))
    OR (OLD.status = 'RUNNING' AND NEW.status IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))) THEN
    RAISE EXCEPTION 'job %: % -> % is refused', OLD.id, OLD.status, NEW.status
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF NEW.script IS DISTINCT FROM OLD.script OR NEW.payload IS DISTINCT FROM OLD.payload
     OR NEW.signature IS DISTINCT FROM OLD.signature OR NEW.node_id IS DISTINCT FROM OLD.node_id THEN
    RAISE EXCEPTION 'job %: what was signed cannot be changed', OLD.id
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER jobs_status_guarded BEFORE UPDATE OF status, script, payload, signature, node_id ON jobs_job
  FOR EACH ROW EXECUTE FUNCTION jobs_guard_status();
-- Output is stored as it is: compressing it again costs more than it saves.
ALTER TABLE jobs_outputchunk ALTER COLUMN data SET STORAGE EXTERNAL;
-- Every piece of output updates its transcript in place.
ALTER TABLE jobs_transcript SET (fillfactor = 50);
ALTER TABLE jobs_job SET (fillfactor = 80);
"""
BACKWARD = """
DROP TRIGGER jobs_status_guarded ON jobs_job;
DROP FUNCTION jobs_guard_status();
ALTER TABLE jobs_outputchunk ALTER COLUMN data SET STORAGE EXTENDED;
"""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
