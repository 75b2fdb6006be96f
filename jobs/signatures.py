"""Whether stored jobs are what was signed when they were queued. Agents ask this of each job before they run it, too."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from hyprbox.lib import signing
from hyprbox.lib.rowmac import RowTampered, subject_of
from hyprbox.lib.signing import Signer
from jobs.errors import JobKeyUnknown
from jobs.models import Job
from jobs.payloads import iso
from jobs.states import TERMINAL, Status
from presets import rendering

_FIELDS = (
    "id", "status", "node__node_id", "mode", "variables", "script", "script_sha256", "timeout_seconds", "allow_background", "expires_at",
    "preset", "revision", "payload", "signature", "key_id",
)  # fmt: skip
# Until when a job waited is nothing that the next one takes over.
_OF_A_RETRY = tuple(name for name in _FIELDS if name not in ("status", "expires_at"))
_UNSIGNED = "its signature does not verify"
KEY_GONE = "cannot be told: it is signed with a key that is not known any more"


def check_all() -> Iterator[tuple[str, str]]:
    """`(jobs_job:id, what is wrong or "")` for every job; `KEY_GONE` of one that ended. Raises `SigningKeyUnusable`."""
    signer, live = signing.signer(), signing.key_set().live
    for row in Job.objects.values(*_FIELDS).iterator(chunk_size=500):
        yield f"{Job._meta.db_table}:{row['id']}", _problem(row, signer, live)


def require_as_signed(job: Job) -> None:
    """That what another job is made from is what was signed, by a key of ours that may be retired by now.

    Raises `RowTampered`, `JobKeyUnknown`, `SigningKeyUnusable`.
    """
    signer = signing.signer()
    row = {name: attrgetter(name.replace("__", "."))(job) for name in _OF_A_RETRY}
    if not signer.knows(job.key_id) and _said(row).get("key_id") == job.key_id:
        raise JobKeyUnknown()
    if why := _mismatch(row, signer):
        raise RowTampered(subject_of(job), why)


def _problem(row: dict[str, Any], signer: Signer, live: set[str]) -> str:
    if not signer.knows(row["key_id"]):
        # Of a key that is gone no agent takes a job any more, nor does one run again; what has ended is history.
        return (_difference(row) or KEY_GONE) if row["status"] in TERMINAL else "it is signed with another key"
    if why := _mismatch(row, signer):
        return why
    if row["key_id"] not in live and row["status"] == Status.QUEUED:
        return "it is signed with a key that was retired"
    return ""


def _mismatch(row: dict[str, Any], signer: Signer) -> str:
    """What of the row is not as it was signed, or ""."""
    if not signer.has_signed(row["key_id"], signing.JOB_CONTEXT, bytes(row["payload"]), row["signature"]):
        return _UNSIGNED
    return _difference(row)


def _difference(row: dict[str, Any]) -> str:
    """What the row shows that its payload does not say, whoever signed that."""
    said, script = _said(row), bytes(row["script"])
    shown = {
        "job_id": str(row["id"]),
        "node_id": row["node__node_id"],
        "mode": row["mode"],
        "script": base64.b64encode(script).decode(),
        "script_sha256": row["script_sha256"],
        "timeout_seconds": row["timeout_seconds"],
        "allow_background": row["allow_background"],
        "preset": row["preset"],
        "revision": row["revision"],
        "key_id": row["key_id"],
    }
    if "expires_at" in row:
        shown["expires_at"] = iso(row["expires_at"])
    said.setdefault("allow_background", False)
    wrong = {name for name, value in shown.items() if said.get(name) != value}
    if hashlib.sha256(script).hexdigest() != row["script_sha256"]:
        wrong.add("script_sha256")
    if "script" not in wrong and row["variables"] != _values_in(script):
        wrong.add("variables")
    return f"not as it was signed: {', '.join(sorted(wrong))}" if wrong else ""


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """What the payload says; nothing when it is none."""
    try:
        said = json.loads(bytes(row["payload"]))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _values_in(script: bytes) -> dict[str, str] | None:
    """The variables that the script was rendered from; those that are pointers to secrets stand in the payload alone."""
    try:
        return rendering.values_in(script)
    except ValueError:
        return None
