"""`python -m tests.faults.prepare NODE ...`: tables, keys, an admin, nodes with tokens, and a record of what changes.

Prints `{"keys_sha256": ..., "tokens": {node: token}}`.
"""

from __future__ import annotations

import json
import sys

import django

django.setup()

from django.conf import settings
from django.db import connection

from hyprbox import enrolment
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor
from hyprbox.management import firsts
from hyprbox.management.owner import as_owner

# Every change of a job's state and of its output, in the order of their commits as far as one job goes: its row is
# locked by whoever changes it.
HISTORY = """
CREATE TABLE faults_history (
  seq bigserial PRIMARY KEY, job_id uuid NOT NULL, old text, new text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE faults_output (
  seq bigserial PRIMARY KEY, job_id uuid NOT NULL, stdout_bytes bigint, stdout_first bigint, stderr_bytes bigint,
  stderr_first bigint);
CREATE FUNCTION faults_note_status() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'INSERT' THEN INSERT INTO faults_history (job_id, old, new) VALUES (NEW.id, NULL, NEW.status);
  ELSIF NEW.status <> OLD.status THEN
    INSERT INTO faults_history (job_id, old, new) VALUES (NEW.id, OLD.status, NEW.status);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER faults_status AFTER INSERT OR UPDATE OF status ON jobs_job
  FOR EACH ROW EXECUTE FUNCTION faults_note_status();
CREATE FUNCTION faults_note_output() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO faults_output (job_id, stdout_bytes, stdout_first, stderr_bytes, stderr_first)
  VALUES (NEW.job_id, NEW.stdout_bytes, NEW.stdout_first_offset, NEW.stderr_bytes, NEW.stderr_first_offset);
  RETURN NULL;
END $$;
CREATE TRIGGER faults_output AFTER UPDATE ON jobs_transcript FOR EACH ROW EXECUTE FUNCTION faults_note_output();
"""


def main(nodes: list[str], concurrency: int) -> dict[str, object]:
    by = Actor.system("faults")
    firsts.signing_key()
    firsts.mac_key()
    firsts.secrets_key()
    firsts.migrate()
    firsts.first_admin(by)
    tokens = {node: enrolment.enrol(by=by, name=node, node_id=node).plaintext for node in nodes}
    with connection.cursor() as cursor:
        # They reported once: a node that was never seen gets no jobs, and here jobs are queued before its agent comes.
        once = "now() - interval '1 day'"
        cursor.execute(
            f"UPDATE nodes_node SET concurrency = %s, first_seen_at = {once}, last_seen_at = {once}", [concurrency]
        )
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(HISTORY)
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
    return {"keys_sha256": signing.key_set_sha256(), "tokens": tokens}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[2:], int(sys.argv[1]))))
