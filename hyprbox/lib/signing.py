"""Ed25519 over exact bytes: the key that jobs are signed with, and the key set that agents pin.

The private key is a file outside the database (0400): 32 bytes in hex. `docs/explain/signing.md` tells
what a stolen one means.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from nacl.signing import SigningKey

from hyprbox.lib import keyfile

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


_KIND = keyfile.Kind("signing key", "signing_key", SigningKeyUnusable)


def create_key(path: Path) -> bool:
    """Write a new private key to `path` with mode 0400, or leave the one that is there. Whether it is new."""
    return keyfile.create(path, bytes(SigningKey.generate()))


@lru_cache(maxsize=4)
def _load(path: Path, _mtime: int, _inode: int) -> Signer:
    try:
        return Signer(SigningKey(bytes.fromhex(path.read_text().strip())))
    except ValueError as error:
        raise SigningKeyUnusable(f"{path} does not hold a signing key (32 bytes in hex).") from error


def signer() -> Signer:
    """The key in force. Raises `SigningKeyUnusable` when it is missing, damaged or readable by others."""
    path = Path(settings.HYPRBOX_SIGNING_KEY_FILE)
    status = _KIND.look(path)
    return _load(path, status.st_mtime_ns, status.st_ino)


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
