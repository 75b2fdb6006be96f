"""The agent's side of the contract: what it reads from the control plane, strictly."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

PHASES = ("check", "apply", "verify", "rollback")
OUTPUT_CAP = 4 * 1024 * 1024
JOB_CONTEXT = b"hyprbox-job-v1\0"
KEYS_CONTEXT = b"hyprbox-keys-v1\0"
# The contract wants a SHA-256 of the whole stream. When the process that counted was killed after more than
# the kept tail was written, nobody knows it: this value says so.
UNKNOWN_SHA256 = "0" * 64
_PAYLOAD_KEYS = {
    "v", "job_id", "node_id", "mode", "script", "script_sha256", "timeout_seconds", "created_at", "expires_at", "nonce",
    "environment", "secrets", "preset", "revision", "parts", "key_id",
}  # fmt: skip
_OPTIONAL_KEYS = {"allow_background"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_REFUSED_NAMES = re.compile(
    r"BASH_ENV|ENV|SHELLOPTS|BASHOPTS|IFS|PS4|PROMPT_COMMAND|PATH|HOME|SHELL|LD_.*|DYLD_.*|PYTHON.*|PERL.*|BASH_FUNC_.*"
)


class Malformed(ValueError):
    """What the control plane sent is not what the contract says."""


@dataclass(frozen=True)
class Offer:
    """A job as the long poll hands it out: nothing in it is trusted yet."""

    job_id: str
    claim_id: str
    payload: bytes
    signature: bytes
    key_id: str


@dataclass(frozen=True)
class Payload:
    """A job's signed content. `allow_background`: what the script leaves running when it ends by itself goes on."""

    job_id: str
    node_id: str
    mode: str
    script: bytes
    timeout_seconds: int
    created_at: datetime
    expires_at: datetime
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    preset: str
    revision: str
    parts: tuple[str, ...]
    key_id: str
    allow_background: bool = False


def is_job_id(value: Any) -> bool:
    """Whether it is a UUID in its one spelling: only then does it ever become a file name."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def strict_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise Malformed("base64 text is missing")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("not valid base64") from error


def parse_claim(data: Any) -> tuple[str, str]:
    """The job's id and the claim's: with these one can answer, whatever the rest of an offer is. Raises `Malformed`."""
    if not isinstance(data, dict):
        raise Malformed("the job is not an object")
    for key in ("id", "claim_id"):
        if not is_job_id(data.get(key)):
            raise Malformed(f"{key} is not a UUID")
    return data["id"], data["claim_id"]


def parse_offer(data: Any) -> Offer:
    """Raises `Malformed`."""
    job_id, claim_id = parse_claim(data)
    key_id = data.get("key_id")
    if not isinstance(key_id, str):
        raise Malformed("key_id is missing")
    return Offer(job_id, claim_id, strict_base64(data.get("payload")), strict_base64(data.get("signature")), key_id)


def parse_payload(raw: bytes) -> Payload:
    """Only after the signature over `raw` was verified. Unknown and missing keys refuse. Raises `Malformed`."""
    try:
        data = json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Malformed("the payload is not JSON") from error
    if not isinstance(data, dict) or set(data) - _OPTIONAL_KEYS != _PAYLOAD_KEYS:
        raise Malformed("the payload has other keys than this agent knows")
    if data["v"] != 1 or isinstance(data["v"], bool):
        raise Malformed(f"payload version {data['v']!r} is not known")
    script = strict_base64(data["script"])
    if hashlib.sha256(script).hexdigest() != data["script_sha256"]:
        raise Malformed("the script does not have the hash that was signed")
    timeout = data["timeout_seconds"]
    if not isinstance(timeout, int) or isinstance(timeout, bool) or not 1 <= timeout <= 30 * 86400:
        raise Malformed("timeout_seconds is out of range")
    if data["mode"] not in ("apply", "check"):
        raise Malformed("the mode is not known")
    if not isinstance(data.get("allow_background", False), bool):
        raise Malformed("allow_background is neither true nor false")
    texts = ("job_id", "node_id", "preset", "revision", "key_id", "nonce")
    if not all(isinstance(data[name], str) for name in texts):
        raise Malformed("a text is missing")
    return Payload(
        job_id=data["job_id"],
        node_id=data["node_id"],
        mode=data["mode"],
        script=script,
        timeout_seconds=timeout,
        created_at=parse_time(data["created_at"]),
        expires_at=parse_time(data["expires_at"]),
        environment=_environment(data["environment"]),
        secrets=_environment(data["secrets"]),
        preset=data["preset"],
        revision=data["revision"],
        parts=_parts(data["parts"], data["mode"]),
        key_id=data["key_id"],
        allow_background=data.get("allow_background", False),
    )


def _parts(value: Any, mode: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(p, str) for p in value) or not set(value) <= set(PHASES):
        raise Malformed("parts are not known phases")
    if len(set(value)) != len(value) or "apply" not in value or (mode == "check" and "check" not in value):
        raise Malformed("a part is missing or named twice")
    return tuple(name for name in PHASES if name in value)


def _environment(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise Malformed("the environment is not an object")
    for name, text in value.items():
        if not _ENVIRONMENT_NAME.fullmatch(name) or _REFUSED_NAMES.fullmatch(name):
            raise Malformed(f"the environment may not set {name!r}")
        if not isinstance(text, str) or "\0" in text:
            raise Malformed(f"the value of {name} is not text")
    return dict(value)


def parse_time(text: Any) -> datetime:
    """UTC, ISO 8601 with a Z. Raises `Malformed`."""
    if isinstance(text, str):
        for form in ("%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ"):
            try:
                return datetime.strptime(text, form).replace(tzinfo=timezone.utc)
            except ValueError:
                continue
    raise Malformed("a time is not UTC in ISO 8601")


def now_text() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def nothing_ran(reason: str) -> dict[str, Any]:
    """The result of a job whose script never ran."""
    now, empty = now_text(), hashlib.sha256(b"").hexdigest()
    return {
        "status": "failed",
        "reason": reason,
        "exit_code": None,
        "signal": None,
        "phases": [],
        "changed": None,
        "outcome_unknown": False,
        "stdout_bytes": 0,
        "stderr_bytes": 0,
        "stdout_sha256": empty,
        "stderr_sha256": empty,
        "started_at": now,
        "finished_at": now,
    }
