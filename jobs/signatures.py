"""Whether stored jobs are what was signed when they were queued. Agents ask this of each job before they run it, too."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from nacl.exceptions import BadSignatureError

from hyprbox.lib import signing
from hyprbox.lib.signing import Signer
from jobs.models import Job
from jobs.payloads import iso
from jobs.states import TERMINAL

_FIELDS = (
    "id", "status", "node__node_id", "mode", "script", "script_sha256", "timeout_seconds", "expires_at", "preset", "revision",
    "payload", "signature", "key_id",
)  # fmt: skip


def check_all() -> Iterator[tuple[str, str]]:
    """`(jobs_job:id, what is wrong or "")` for every job. Raises `SigningKeyUnusable`."""
    signer = signing.signer()
    for row in Job.objects.values(*_FIELDS).iterator(chunk_size=500):
        yield f"{Job._meta.db_table}:{row['id']}", _problem(row, signer)


def _problem(row: dict[str, Any], signer: Signer) -> str:
    if row["key_id"] != signer.key_id:
        # Of an earlier key: no agent takes it any more, and what has ended is history.
        return "" if row["status"] in TERMINAL else "it is signed with another key"
    payload = bytes(row["payload"])
    try:
        signer.key.verify_key.verify(signing.JOB_CONTEXT + payload, signing.decoded(row["signature"]))
        said = json.loads(payload)
    except (BadSignatureError, ValueError):
        return "its signature does not verify"
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
