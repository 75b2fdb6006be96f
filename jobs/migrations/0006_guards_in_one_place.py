"""The rules for a job's state go into the trigger that guards its moves.

PostgreSQL reads a CHECK's text again for each statement, and the long lists of states and reasons were a tenth of what a
move costs. The trigger's plan is kept for the connection.
"""

from django.db import migrations

FORWARD = """
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
DROP TRIGGER jobs_status_guarded ON jobs_job;
CREATE TRIGGER jobs_status_guarded
  BEFORE INSERT OR UPDATE OF status, reason, finished_at, script, payload, signature, node_id ON jobs_job
  FOR EACH ROW EXECUTE FUNCTION jobs_guard_status();
"""
BACKWARD = """
DROP TRIGGER jobs_status_guarded ON jobs_job;
CREATE OR REPLACE FUNCTION jobs_guard_status() RETURNS trigger LANGUAGE plpgsql AS $$
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
"""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0005_waves")]
    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.RemoveConstraint("job", "jobs_status_known"),
        migrations.RemoveConstraint("job", "jobs_reason_goes_with_failed"),
        migrations.RemoveConstraint("job", "jobs_finished_at_goes_with_terminal"),
    ]
