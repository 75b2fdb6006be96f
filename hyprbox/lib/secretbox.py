"""Secrets that the server itself must read again, encrypted at rest: AES-256-GCM with keys outside the database.

The file `HYPRBOX_SECRETS_KEY_FILE` has a key in each line, 32 bytes in hex. The first one encrypts, all of them decrypt, so
that a new key can be put before the old one while rows are still under that. The key's id is stored with what it encrypted.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

from hyprbox.lib import keyfile
from hyprbox.lib.keyfile import KEY_BYTES

NONCE_BYTES = 12


class SecretsKeyUnusable(Exception):
    """The key of the stored secrets cannot be used."""


_KIND = keyfile.Kind("key of the stored secrets", "secrets_key", SecretsKeyUnusable)


def create_key(path: Path) -> bool:
    """Write a first key to `path` with mode 0400, or leave what is there. Whether it is new."""
    return keyfile.create(path, secrets.token_bytes(KEY_BYTES))


def add_key(path: Path) -> str:
    """Put a new key first; the ones that were there still decrypt. Returns its id."""
    new = secrets.token_bytes(KEY_BYTES)
    _write(path, [new, *keys().values()])
    return key_id(new)


def keep_first(path: Path) -> None:
    """Forget all keys but the one that encrypts."""
    _write(path, list(keys().values())[:1])


def key_id(key: bytes) -> str:
    """The first 16 hex digits of the key's SHA-256."""
    return hashlib.sha256(b"hyprbox-secrets-key\0" + key).hexdigest()[:16]


def keys() -> dict[str, bytes]:
    """Keys by id, the one that encrypts first; made on first use where DEBUG is on. Raises `SecretsKeyUnusable`."""
    path = Path(settings.HYPRBOX_SECRETS_KEY_FILE)
    if settings.DEBUG and not path.exists():
        create_key(path)
    status = _KIND.look(path)
    return _load(path, status.st_mtime_ns, status.st_ino)


def encrypt(secret: bytes, *, place: str) -> tuple[str, bytes]:
    """The key's id, and nonce and ciphertext. Only for the same `place` (whose it is) can it be decrypted."""
    name, key = next(iter(keys().items()))
    nonce = secrets.token_bytes(NONCE_BYTES)
    return name, nonce + AESGCM(key).encrypt(nonce, secret, place.encode())


def decrypt(name: str, box: bytes, *, place: str) -> bytes:
    """Raises `SecretsKeyUnusable` when its key is gone, or when it is not what was encrypted for this place."""
    key = keys().get(name)
    if key is None:
        raise SecretsKeyUnusable(f"The key {name} of a stored secret is not in {settings.HYPRBOX_SECRETS_KEY_FILE}.")
    try:
        return AESGCM(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], place.encode())
    except InvalidTag:
        raise SecretsKeyUnusable(f"What is stored for {place} was not encrypted here.") from None


@lru_cache(maxsize=4)
def _load(path: Path, _mtime: int, _inode: int) -> dict[str, bytes]:
    try:
        found = [bytes.fromhex(line) for line in path.read_text().split()]
    except ValueError:
        found = []
    if not found or any(len(key) != KEY_BYTES for key in found):
        raise SecretsKeyUnusable(f"{path} does not hold keys for stored secrets (32 bytes in hex, one a line).")
    return {key_id(key): key for key in found}


def _write(path: Path, kept: list[bytes]) -> None:
    keyfile.replace(path, (key.hex() for key in kept))
