"""Ed25519 over exact bytes: the key that jobs are signed with, and the key set that agents pin.

The private key is a file outside the database (0400): 32 bytes in hex. `docs/explain/signing.md` tells
what a stolen one means.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from nacl.signing import SigningKey

JOB_CONTEXT = b"hyprbox-job-v1\0"
KEYS_CONTEXT = b"hyprbox-keys-v1\0"


class SigningKeyUnusable(Exception):
    """The signing key cannot be used."""


@dataclass(frozen=True, slots=True)
class Signer:
    """One signing key. `key_id` is the first 16 hex digits of the public key's SHA-256."""

    key: SigningKey

    @property
    def public_key(self) -> str:
        return base64.b64encode(bytes(self.key.verify_key)).decode()

    @property
    def key_id(self) -> str:
        return hashlib.sha256(bytes(self.key.verify_key)).hexdigest()[:16]

    def sign(self, context: bytes, message: bytes) -> str:
        """The signature over `context + message`, in base64."""
        return base64.b64encode(self.key.sign(context + message).signature).decode()


def decoded(signature: str) -> bytes:
    """The bytes of a signature. Raises `ValueError`."""
    return base64.b64decode(signature, validate=True)


def create_key(path: Path) -> bool:
    """Write a new private key to `path` with mode 0400, or leave the one that is there. Whether it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(bytes(SigningKey.generate()).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return True


@lru_cache(maxsize=4)
def _load(path: str, _mtime: int) -> Signer:
    try:
        return Signer(SigningKey(bytes.fromhex(Path(path).read_text().strip())))
    except ValueError as error:
        raise SigningKeyUnusable(f"{path} does not hold a signing key (32 bytes in hex).") from error


def signer() -> Signer:
    """The key in force. Raises `SigningKeyUnusable` when it is missing, damaged or readable by others."""
    path = str(settings.HYPRBOX_SIGNING_KEY_FILE)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise SigningKeyUnusable(
            f"There is no signing key at {path}: put yours there, or make the first one with “manage.py signing_key create”."
        ) from None
    except OSError as error:
        raise SigningKeyUnusable(f"The signing key {path} cannot be read: {error.strerror}.") from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SigningKeyUnusable(f"{path} can be read by other users: make it mode 0400.")
    return _load(path, status.st_mtime_ns)


def canonical_keys(version: int, keys: list[dict[str, Any]]) -> bytes:
    """The bytes of a key set that are signed and hashed."""
    ordered = sorted(keys, key=lambda key: str(key["key_id"]))
    return json.dumps({"keys": ordered, "version": version}, sort_keys=True, separators=(",", ":")).encode()


def key_set() -> dict[str, Any]:
    """The answer of `GET /api/agent/keys`."""
    current = signer()
    keys = [{"key_id": current.key_id, "public_key": current.public_key, "retired": False}]
    signature = current.sign(KEYS_CONTEXT, canonical_keys(1, keys))
    return {"version": 1, "keys": keys, "signed_by": current.key_id, "signature": signature}


def key_set_sha256() -> str:
    """What `HYPRBOX_KEYS_SHA256` is on a new node."""
    answer = key_set()
    return hashlib.sha256(canonical_keys(answer["version"], answer["keys"])).hexdigest()
