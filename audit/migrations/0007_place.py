"""The links of the chain are computed where the entries are: for each, what leaves the database cost more than its hash."""

from django.db import migrations

FORWARD = r"""
CREATE FUNCTION audit_place(most integer, OUT placed integer, OUT last_n bigint, OUT last_hash bytea) LANGUAGE plpgsql AS $$
DECLARE
  entry record;
  ids bigint[] := '{}';
  hashes bytea[] := '{}';
BEGIN
  SELECT e.n, e.hash INTO last_n, last_hash FROM audit_event e WHERE e.n IS NOT NULL ORDER BY e.n DESC LIMIT 1;
  last_n := coalesce(last_n, 0);
  last_hash := coalesce(last_hash, decode(repeat('00', 32), 'hex'));
  placed := 0;
  FOR entry IN SELECT e.id, e.canonical FROM audit_event e WHERE e.n IS NULL ORDER BY e.id LIMIT most LOOP
    placed := placed + 1;
    last_n := last_n + 1;
    last_hash := sha256('hbx-audit-v1'::bytea || int8send(last_n) || last_hash || entry.canonical);
    ids[placed] := entry.id;
    hashes[placed] := last_hash;
  END LOOP;
  UPDATE audit_event e SET n = last_n - placed + s.nth, hash = s.hash
  FROM unnest(ids, hashes) WITH ORDINALITY AS s(id, hash, nth) WHERE e.id = s.id;
END $$;
"""
BACKWARD = "DROP FUNCTION audit_place(integer)"


class Migration(migrations.Migration):
    dependencies = [("audit", "0006_by_person")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
