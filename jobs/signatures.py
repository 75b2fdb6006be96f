"""Whether stored jobs are what was signed when they were queued. Agents ask this of each job before they run it, too."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from hyprbox.lib import signing
from hyprbox.lib.signing import Signer
from jobs.models import Job
from jobs.payloads import iso
from jobs.states import TERMINAL, Status

_FIELDS = (
    "id", "status", "node__node_id", "mode", "script", "script_sha256", "timeout_seconds", "expires_at", "preset", "revision",
    "payload", "signature", "key_id",
)  # fmt: skip


def check_all() -> Iterator[tuple[str, str]]:
    """`(jobs_job:id, what is wrong or "")` for every job. Raises `SigningKeyUnusable`."""
    signer, live = signing.signer(), signing.key_set().live
    for row in Job.objects.values(*_FIELDS).iterator(chunk_size=500):
        yield f"{Job._meta.db_table}:{row['id']}", _problem(row, signer, live)


def _problem(row: dict[str, Any], signer: Signer, live: set[str]) -> str:
    if not signer.knows(row["key_id"]):
        # Of a key that is gone: no agent takes it any more, and what has ended is history.
        return "" if row["status"] in TERMINAL else "it is signed with another key"
    payload = bytes(row["payload"])
    if not signer.has_signed(row["key_id"], signing.JOB_CONTEXT, payload, row["signature"]):
        return "its signature does not verify"
    try:
        said = json.loads(payload)
    except ValueError:
        return "its signature does not verify"
    if row["key_id"] not in live and row["status"] == Status.QUEUED:
        return "it is signed with a key that was retired"
    script = bytes(row["script"])
    shown = {
        "job_id": str(row["id"]),
        "node_id": row["node__node_id"],
        "mode": row["mode"],
        "script": base64.b64encode(script).decode(),
        "script_sha256": row["script_sha256"],
        "timeout_seconds": row["timeout_seconds"],
        "expires_at": iso(row["expires_at"]),
        "preset": row["preset"],
        "revision": row["revision"],
        "key_id": row["key_id"],
    }
    wrong = [name for name, value in shown.items() if said.get(name) != value]
    if hashlib.sha256(script).hexdigest() != row["script_sha256"]:
        wrong.append("script_sha256")
    return f"not as it was signed: {', '.join(sorted(set(wrong)))}" if wrong else ""
