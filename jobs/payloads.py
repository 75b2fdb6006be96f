"""What is signed: the exact bytes that an agent verifies before it reads them. Pure."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Frozen:
    """Everything that changes what runs. `allow_background`: what the script leaves running is not ended with it."""

    job_id: str
    node_id: str
    mode: str
    script: bytes
    script_sha256: str
    timeout_seconds: int
    created_at: datetime
    expires_at: datetime
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    preset: str
    revision: str
    parts: list[str]
    allow_background: bool = False


def iso(moment: datetime) -> str:
    """UTC, to the microsecond, with a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def encode(job: Frozen, *, key_id: str) -> bytes:
    """Compact JSON with sorted keys and a fresh nonce: these bytes are signed, stored and sent."""
    document = {
        "v": VERSION,
        "job_id": job.job_id,
        "node_id": job.node_id,
        "mode": job.mode,
        "script": base64.b64encode(job.script).decode(),
        "script_sha256": job.script_sha256,
        "timeout_seconds": job.timeout_seconds,
        "created_at": iso(job.created_at),
        "expires_at": iso(job.expires_at),
        "nonce": secrets.token_hex(16),
        "environment": dict(job.environment),
        "secrets": dict(job.secrets),
        "preset": job.preset,
        "revision": job.revision,
        "parts": job.parts,
        "key_id": key_id,
    }
    if job.allow_background:  # an agent that does not know it refuses the job, and any other it can take
        document["allow_background"] = True
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def secrets_in(payload: bytes) -> dict[str, str]:
    """The pointers to secrets that a job was signed with, by the variable's name."""
    pointers: dict[str, str] = json.loads(payload)["secrets"] if payload else {}
    return pointers
