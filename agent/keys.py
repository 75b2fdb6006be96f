"""The keys that jobs must be signed with: pinned on first contact, and the check of every job."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from agent.crash import planted
from agent.journal import sync_folder
from agent.wire import JOB_CONTEXT, KEYS_CONTEXT, Malformed, Offer, Payload, parse_payload, strict_base64

VALIDITY_TOLERANCE = timedelta(minutes=5)
MAX_CLOCK_SKEW_SECONDS = 3600.0


class Refused(Exception):
    """This job will not be run. `reason` is one of the contract's refusals."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class KeysUntrusted(Exception):
    """The control plane's key set is not the one that was promised, or not a lawful successor."""


def canonical(version: int, keys: list[dict[str, Any]]) -> bytes:
    ordered = sorted(keys, key=lambda key: str(key["key_id"]))
    return json.dumps({"keys": ordered, "version": version}, sort_keys=True, separators=(",", ":")).encode()


def _verify(public_key: str, signature: bytes, message: bytes) -> bool:
    # Imported here: an agent that has no job yet should not carry libsodium in memory.
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    try:
        VerifyKey(base64.b64decode(public_key, validate=True)).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


class KeyRing:
    """The pinned key set, in `keys.json` of the state directory."""

    def __init__(self, state_dir: Path, expected_sha256: str = "") -> None:
        self._path = state_dir / "keys.json"
        self._expected = expected_sha256
        self._pinned: dict[str, Any] | None = self._load()
        self._asked_at = float("-inf")

    @property
    def is_pinned(self) -> bool:
        return self._pinned is not None

    @property
    def age_seconds(self) -> float:
        """Since the control plane was last asked."""
        return time.monotonic() - self._asked_at

    def knows(self, key_id: str) -> bool:
        return any(key["key_id"] == key_id for key in (self._pinned or {"keys": []})["keys"])

    def has_signed(self, key_id: str, signature: bytes, message: bytes) -> bool:
        """Whether a pinned key, retired or not, signed these bytes."""
        key = next((key for key in (self._pinned or {"keys": []})["keys"] if key["key_id"] == key_id), None)
        return key is not None and _verify(key["public_key"], signature, message)

    def _load(self) -> dict[str, Any] | None:
        try:
            data = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(data, dict) or "keys" not in data:
            return None
        # Root has told us another hash since: the control plane is another one, and is met for the first time.
        return None if self._expected and data.get("anchor", self._expected) != self._expected else data

    def offer(self, answer: Any) -> bool:
        """Take a key set that the control plane serves; True when it is new. Raises `KeysUntrusted`."""
        version, keys, body, signed_by, signature = _parse_set(answer)
        self._asked_at = time.monotonic()
        if self._pinned is None:
            if self._expected and hashlib.sha256(body).hexdigest() != self._expected:
                raise KeysUntrusted("the key set does not have the hash of HYPRBOX_KEYS_SHA256")
            signer = next((key for key in keys if key["key_id"] == signed_by), None)
        else:
            if version == self._pinned["version"] and body == canonical(version, self._pinned["keys"]):
                return False
            if version <= self._pinned["version"]:
                raise KeysUntrusted("the key set is not newer than the pinned one")
            live = [key for key in self._pinned["keys"] if not key["retired"]]
            signer = next((key for key in live if key["key_id"] == signed_by), None)
        if signer is None or not _verify(signer["public_key"], signature, KEYS_CONTEXT + body):
            raise KeysUntrusted("the key set is not signed by a key that is trusted")
        self._pin(
            {"version": version, "keys": keys, "anchor": self._expected or (self._pinned or {}).get("anchor", "")}
        )
        return True

    def _pin(self, data: dict[str, Any]) -> None:
        temporary = self._path.with_suffix(".new")
        with open(temporary, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self._path)
        sync_folder(self._path.parent)
        self._pinned = data

    def check(self, offer: Offer, *, node_id: str, clock_offset: float) -> Payload:
        """The payload of a job that may run here and now. Raises `Refused`."""
        if abs(clock_offset) > MAX_CLOCK_SKEW_SECONDS:
            raise Refused("clock_skew", f"this clock is {clock_offset:.0f} s off")
        key = next((k for k in (self._pinned or {"keys": []})["keys"] if k["key_id"] == offer.key_id), None)
        if key is None or key["retired"]:
            raise Refused("signature_invalid", "signed with a key that is not pinned")
        is_signed = _verify(key["public_key"], offer.signature, JOB_CONTEXT + offer.payload)
        if not is_signed and not planted("hash_unchecked"):
            raise Refused("signature_invalid", "the signature does not verify")
        try:
            payload = parse_payload(offer.payload)
        except Malformed as error:
            raise Refused("signature_invalid", str(error)) from error
        if (payload.job_id, payload.key_id) != (offer.job_id, offer.key_id):
            raise Refused("signature_invalid", "the payload is another job's")
        if payload.node_id != node_id:
            raise Refused("signature_invalid", "the job is for another node")
        now = datetime.fromtimestamp(time.time() - clock_offset, timezone.utc)
        if payload.expires_at + VALIDITY_TOLERANCE < now:
            raise Refused("signature_invalid", "the job has expired")
        if payload.created_at - VALIDITY_TOLERANCE > now:
            raise Refused("signature_invalid", "the job is from the future")
        return payload


def _parse_set(answer: Any) -> tuple[int, list[dict[str, Any]], bytes, str, bytes]:
    try:
        version, signed_by = answer["version"], answer["signed_by"]
        keys = [{name: key[name] for name in ("key_id", "public_key", "retired")} for key in answer["keys"]]
        for key in keys:
            raw = strict_base64(key["public_key"])
            if hashlib.sha256(raw).hexdigest()[:16] != key["key_id"] or not isinstance(key["retired"], bool):
                raise KeysUntrusted("a key does not have the id it claims")
        if not isinstance(version, int) or not keys:
            raise KeysUntrusted("the key set is malformed")
        return version, keys, canonical(version, keys), signed_by, strict_base64(answer["signature"])
    except (KeyError, TypeError, Malformed) as error:
        raise KeysUntrusted("the key set is malformed") from error
