"""Signed checkpoints: the head of the chain at one moment, in the control plane's own words.

Whoever holds one can prove that the log up to there was rewritten or cut. Agents are handed the newest in the answer to
a heartbeat; `newest` is what this process hands out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings

from audit.models import Checkpoint
from hyprbox.lib.signing import Signer

CONTEXT = b"hyprbox-audit-checkpoint-v1\0"
EVERY_SECONDS = 60
EVERY_ENTRIES = 1000
HANDED_SECONDS = 330.0  # heartbeats are at most 300 s apart

log = structlog.get_logger(__name__)


class Newest:
    """The newest checkpoint that this process knows of, ready to be sent."""

    def __init__(self) -> None:
        self.n = 0
        self.json = ""
        self._until = 0.0

    def take(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None and checkpoint.n > self.n:
            self.json = json.dumps(as_dict(checkpoint), separators=(",", ":"))
            self.n = checkpoint.n
            self._until = time.monotonic() + HANDED_SECONDS

    def tail(self) -> str:
        """The member of a heartbeat's answer, for as long as it is new to some agent; else nothing."""
        return f',"audit_checkpoint":{self.json}' if self._until > time.monotonic() else ""


newest = Newest()


def canonical(n: int, digest: str, at: str) -> bytes:
    """The bytes that are signed; `digest` in hex, `at` as the checkpoint carries it."""
    return json.dumps({"at": at, "hash": digest, "n": n}, sort_keys=True, separators=(",", ":")).encode()


def sign(*, n: int, digest: bytes, at: datetime, signer: Signer) -> Checkpoint:
    """A checkpoint, not stored yet."""
    signature = signer.sign(CONTEXT, canonical(n, digest.hex(), _text(at)))
    return Checkpoint(n=n, hash=digest, at=at, key_id=signer.key_id, signature=signature)


def as_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """What agents and files get: `{n, hash, at, key_id, signature}`."""
    return {
        "n": checkpoint.n,
        "hash": bytes(checkpoint.hash).hex(),
        "at": _text(checkpoint.at),
        "key_id": checkpoint.key_id,
        "signature": checkpoint.signature,
    }


def is_ours(checkpoint: Mapping[str, Any], signer: Signer) -> bool:
    """Whether a checkpoint as `as_dict` gives it was signed with this key or one before it."""
    try:
        message = canonical(int(checkpoint["n"]), str(checkpoint["hash"]), str(checkpoint["at"]))
        return signer.has_signed(checkpoint["key_id"], CONTEXT, message, str(checkpoint["signature"]))
    except (KeyError, ValueError, TypeError):
        return False


def write_out(checkpoint: Checkpoint) -> None:
    """Append it to HYPRBOX_AUDIT_CHECKPOINT_FILE, if there is one. The act goes on without: it is on record already."""
    path: Path | None = settings.HYPRBOX_AUDIT_CHECKPOINT_FILE
    if path is None:
        return
    try:
        with path.open("a") as file:
            file.write(json.dumps(as_dict(checkpoint), separators=(",", ":")) + "\n")
    except OSError as error:
        log.error("audit.checkpoint_not_written", path=str(path), error=error.strerror)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
