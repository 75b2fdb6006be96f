"""The database's own guards: a saved revision never changes, and a preset keeps its name and is never deleted."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION presets_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'revision % of preset % is final', OLD.number, OLD.preset_id
    USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER presets_revision_final BEFORE UPDATE OR DELETE ON presets_presetrevision
  FOR EACH ROW EXECUTE FUNCTION presets_refuse_change();

CREATE FUNCTION presets_guard_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR NEW.id <> OLD.id OR NEW.name <> OLD.name THEN
    RAISE EXCEPTION 'preset % keeps its name and is archived, not deleted', OLD.name
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER presets_name_guarded BEFORE UPDATE OR DELETE ON presets_custompreset
  FOR EACH ROW EXECUTE FUNCTION presets_guard_name();
"""
BACKWARD = """
DROP TRIGGER presets_name_guarded ON presets_custompreset;
DROP FUNCTION presets_guard_name();
DROP TRIGGER presets_revision_final ON presets_presetrevision;
DROP FUNCTION presets_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("presets", "0001_custom_presets")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
