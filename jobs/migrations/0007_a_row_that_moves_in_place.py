"""A job's row moves in place: no index, and no CHECK, knows what a claim or a start writes.

PostgreSQL then puts the new version of the row beside the old one and touches no index. The last CHECKs go into the
guarding trigger, as the long ones did before them: it keeps its plan, a CHECK is read again for each statement.
"""

import functools

from django.db import migrations, models

STATUS_GUARD = """
CREATE OR REPLACE FUNCTION jobs_guard_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- The two moves of a job that goes well, in one expression; everything else is judged below.
  IF NEW.reason = '' AND (
       (OLD.status = 'QUEUED' AND NEW.status = 'RUNNING' AND NEW.finished_at IS NULL
        AND NEW.claim_id IS NOT NULL AND NEW.started_at IS NOT NULL)
    OR (OLD.status = 'RUNNING' AND NEW.status = 'SUCCEEDED' AND NEW.finished_at IS NOT NULL)) THEN
    RETURN NEW;
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.status NOT IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED') THEN
      RAISE EXCEPTION 'job %: % is no status', NEW.id, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.timeout_seconds < 0 OR NEW.wave < 0 THEN
      RAISE EXCEPTION 'job %: neither timeout_seconds nor wave is negative', NEW.id USING ERRCODE = 'check_violation';
    END IF;
  ELSIF NEW.status <> OLD.status AND NOT (
       (OLD.status = 'QUEUED' AND NEW.status IN ('RUNNING', 'FAILED', 'CANCELLED'))
    OR (OLD.status = 'RUNNING' AND NEW.status IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))) THEN
    RAISE EXCEPTION 'job %: % -> % is refused', OLD.id, OLD.status, NEW.status
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF (NEW.status IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) <> (NEW.finished_at IS NOT NULL) THEN
    RAISE EXCEPTION 'job %: finished_at goes with a terminal status, not with %', NEW.id, NEW.status
      USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status = 'RUNNING' AND (NEW.claim_id IS NULL OR NEW.started_at IS NULL) THEN
    RAISE EXCEPTION 'job %: what runs has a claim and a start', NEW.id USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status = 'CANCELLED' AND NEW.cancel_requested_at IS NULL THEN
    RAISE EXCEPTION 'job %: what is cancelled has cancel_requested_at', NEW.id USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status <> 'FAILED' AND NEW.reason = '' THEN
    RETURN NEW;
  END IF;
  IF NEW.status <> 'FAILED' OR NEW.reason NOT IN (
       'exit', 'signal', 'timeout', 'verify_failed', 'expired', 'signature_invalid', 'secret_unresolved', 'clock_skew',
       'refused', 'lost', 'host_rebooted', 'runner_killed', 'agent_error') THEN
    RAISE EXCEPTION 'job %: the reason "%" does not go with %', NEW.id, NEW.reason, NEW.status
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
"""
FORWARD = (
    "UPDATE jobs_job SET cancel_requested_at = finished_at WHERE status = 'CANCELLED' AND cancel_requested_at IS NULL;"
    + STATUS_GUARD
    + """
CREATE FUNCTION jobs_guard_signed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.script IS DISTINCT FROM OLD.script OR NEW.payload IS DISTINCT FROM OLD.payload
     OR NEW.signature IS DISTINCT FROM OLD.signature OR NEW.node_id IS DISTINCT FROM OLD.node_id THEN
    RAISE EXCEPTION 'job %: what was signed cannot be changed', OLD.id
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
DROP TRIGGER jobs_status_guarded ON jobs_job;
CREATE TRIGGER jobs_status_guarded
  BEFORE INSERT OR UPDATE OF status, reason, finished_at, started_at, cancel_requested_at ON jobs_job
  FOR EACH ROW EXECUTE FUNCTION jobs_guard_status();
CREATE TRIGGER jobs_claim_guarded BEFORE UPDATE OF claim_id ON jobs_job
  FOR EACH ROW WHEN (NEW.claim_id IS NULL) EXECUTE FUNCTION jobs_guard_status();
CREATE TRIGGER jobs_signed_guarded BEFORE UPDATE OF script, payload, signature, node_id ON jobs_job
  FOR EACH ROW EXECUTE FUNCTION jobs_guard_signed();
-- Room for new versions beside the old ones, and scripts out of the way of what moves.
ALTER TABLE jobs_job SET (fillfactor = 60, toast_tuple_target = 1024);
"""
)
BACKWARD = """
DROP TRIGGER jobs_signed_guarded ON jobs_job;
DROP TRIGGER jobs_claim_guarded ON jobs_job;
DROP TRIGGER jobs_status_guarded ON jobs_job;
DROP FUNCTION jobs_guard_signed();
CREATE OR REPLACE FUNCTION jobs_guard_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
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
  ELSIF NEW.status NOT IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED') THEN
    RAISE EXCEPTION 'job %: % is no status', NEW.id, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF (NEW.status IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) <> (NEW.finished_at IS NOT NULL) THEN
    RAISE EXCEPTION 'job %: finished_at goes with a terminal status, not with %', NEW.id, NEW.status
      USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status <> 'FAILED' AND NEW.reason = '' THEN
    RETURN NEW;
  END IF;
  IF NEW.status <> 'FAILED' OR NEW.reason NOT IN (
       'exit', 'signal', 'timeout', 'verify_failed', 'expired', 'signature_invalid', 'secret_unresolved', 'clock_skew',
       'refused', 'lost', 'host_rebooted', 'runner_killed', 'agent_error') THEN
    RAISE EXCEPTION 'job %: the reason "%" does not go with %', NEW.id, NEW.reason, NEW.status
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER jobs_status_guarded
  BEFORE INSERT OR UPDATE OF status, reason, finished_at, script, payload, signature, node_id ON jobs_job
  FOR EACH ROW EXECUTE FUNCTION jobs_guard_status();
ALTER TABLE jobs_job SET (fillfactor = 80), RESET (toast_tuple_target);
"""

is_open = models.Q(("finished_at", None))
has_failed = models.Q(("reason", ""), _negated=True)
is_unwanted = models.Q(("cancel_requested_at__isnull", False))
job_index = functools.partial(migrations.AddIndex, "job")


class Migration(migrations.Migration):
    dependencies = [("jobs", "0006_guards_in_one_place")]
    operations = [
        migrations.RemoveConstraint("job", "jobs_running_has_a_claim"),
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AlterField("job", "wave", models.IntegerField(db_default=0, default=0)),
        migrations.AlterField("job", "timeout_seconds", models.IntegerField()),
        migrations.RemoveIndex("job", "jobs_queued"),
        migrations.RemoveIndex("job", "jobs_running"),
        migrations.RemoveIndex("job", "jobs_ended_badly"),
        job_index(models.Index(condition=is_open, fields=["node", "created_at", "id"], name="jobs_open")),
        job_index(models.Index(condition=has_failed, fields=["-created_at", "-id"], name="jobs_failed")),
        job_index(models.Index(condition=is_unwanted, fields=["-created_at", "-id"], name="jobs_cancelled")),
    ]
