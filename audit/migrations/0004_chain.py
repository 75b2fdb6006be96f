"""Entries keep their canonical bytes, and one sequencer gives them their place in the chain; nothing else changes them."""

from django.db import migrations, models

# One expression, so that the trigger and the entries that existed before have the same form.
CANONICAL = """convert_to(jsonb_build_object(
    'id', {e}.id,
    'at', to_char({e}.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'action', {e}.action, 'actor_kind', {e}.actor_kind, 'actor_id', {e}.actor_id, 'actor_name', {e}.actor_name,
    'target', {e}.target, 'detail', {e}.detail, 'ip', {e}.ip, 'request_id', {e}.request_id,
    'subject', {e}.subject, 'subject_version', {e}.subject_version)::text, 'UTF8')"""

FORWARD = f"""
ALTER TABLE audit_event DISABLE TRIGGER audit_append_only;
UPDATE audit_event e SET canonical = {CANONICAL.format(e="e")};
ALTER TABLE audit_event ENABLE TRIGGER audit_append_only;

CREATE FUNCTION audit_complete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.canonical := {CANONICAL.format(e="NEW")};
  NEW.n := NULL;
  NEW.hash := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_complete BEFORE INSERT ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_complete();

CREATE FUNCTION audit_only_place() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE rest audit_event;
BEGIN
  rest := NEW;
  rest.n := NULL;
  rest.hash := NULL;
  IF OLD.n IS NULL AND OLD.hash IS NULL AND NEW.n > 0 AND octet_length(NEW.hash) = 32 AND rest IS NOT DISTINCT FROM OLD
  THEN RETURN NEW; END IF;
  RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
DROP TRIGGER audit_append_only ON audit_event;
CREATE TRIGGER audit_append_only BEFORE DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_only_place BEFORE UPDATE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_only_place();

CREATE TRIGGER audit_checkpoint_append_only BEFORE UPDATE OR DELETE ON audit_checkpoint
  FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_checkpoint_never_truncated BEFORE TRUNCATE ON audit_checkpoint
  FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
"""
BACKWARD = """
DROP TRIGGER audit_checkpoint_never_truncated ON audit_checkpoint;
DROP TRIGGER audit_checkpoint_append_only ON audit_checkpoint;
DROP TRIGGER audit_only_place ON audit_event;
DROP FUNCTION audit_only_place;
DROP TRIGGER audit_complete ON audit_event;
DROP FUNCTION audit_complete;
DROP TRIGGER audit_append_only ON audit_event;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit_event
  FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_subjects")]
    operations = [
        migrations.AddField(
            "event", "canonical", models.BinaryField(default=b"", editable=False), preserve_default=False
        ),
        migrations.AddField("event", "n", models.BigIntegerField(editable=False, null=True, unique=True)),
        migrations.AddField("event", "hash", models.BinaryField(editable=False, max_length=32, null=True)),
        migrations.AddIndex(
            "event",
            models.Index(fields=["id"], condition=models.Q(n__isnull=True), name="audit_not_yet_chained"),
        ),
        migrations.CreateModel(
            name="Checkpoint",
            fields=[
                ("n", models.BigIntegerField(primary_key=True, serialize=False)),
                ("hash", models.BinaryField(max_length=32)),
                ("at", models.DateTimeField()),
                ("key_id", models.CharField(max_length=16)),
                ("signature", models.CharField(max_length=120)),
            ],
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
