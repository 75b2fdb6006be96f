"""A saved revision never changes, but its seal does when the key of the seals is replaced."""

from django.db import migrations

FORWARD = """
CREATE OR REPLACE FUNCTION presets_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  with_old_seal presets_presetrevision;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    with_old_seal := NEW;
    with_old_seal.mac := OLD.mac;
    IF with_old_seal IS NOT DISTINCT FROM OLD THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'revision % of preset % is final', OLD.number, OLD.preset_id
    USING ERRCODE = 'integrity_constraint_violation';
END $$;
"""
BACKWARD = """
CREATE OR REPLACE FUNCTION presets_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'revision % of preset % is final', OLD.number, OLD.preset_id
    USING ERRCODE = 'integrity_constraint_violation';
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("presets", "0002_guards")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
