"""Ed25519 over exact bytes: the key that jobs are signed with, and the key set that agents pin.

The file outside the database (0400) holds the private key in its first line, 32 bytes in hex. After a rotation lines with
the signed key sets follow, each with the moment from which on agents are handed it; the key that was replaced is only
there as a public key, for what it signed while it was in force. `docs/explain/signing.md` tells what a stolen key means.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from hyprbox.lib import keyfile

JOB_CONTEXT = b"hyprbox-job-v1\0"
KEYS_CONTEXT = b"hyprbox-keys-v1\0"
OVERLAP = timedelta(days=7)
_SET = "set "


class SigningKeyUnusable(Exception):
    """The signing key cannot be used."""


class StillRotating(Exception):
    """Agents still learn of the last rotation; until its end only “rotate --now” replaces the key again."""

    def __str__(self) -> str:
        return str(self.__doc__)


@dataclass(frozen=True, slots=True)
class Signer:
    """The signing key, and the public halves of those before it by id.

    A `key_id` is the first 16 hex digits of the public key's SHA-256.
    """

    key: SigningKey
    earlier: Mapping[str, VerifyKey] = field(default_factory=dict)

    @property
    def public_key(self) -> str:
        return base64.b64encode(bytes(self.key.verify_key)).decode()

    @property
    def key_id(self) -> str:
        return _key_id(self.key.verify_key)

    def sign(self, context: bytes, message: bytes) -> str:
        """The signature over `context + message`, in base64."""
        return base64.b64encode(self.key.sign(context + message).signature).decode()

    def knows(self, key_id: str) -> bool:
        """Whether this is one of our keys, in force or not."""
        return key_id == self.key_id or key_id in self.earlier

    def has_signed(self, key_id: str, context: bytes, message: bytes, signature: str) -> bool:
        """Whether our key of this id, in force or not, signed `context + message`."""
        key = self.key.verify_key if key_id == self.key_id else self.earlier.get(key_id)
        if key is None:
            return False
        try:
            key.verify(context + message, base64.b64decode(signature, validate=True))
        except (BadSignatureError, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeySet:
    """What agents are handed from `since` on. Each key is `{key_id, public_key, retired}`."""

    since: datetime
    version: int
    keys: tuple[Mapping[str, Any], ...]
    signed_by: str
    signature: str

    @property
    def live(self) -> set[str]:
        """The ids of the keys whose jobs agents run."""
        return {key["key_id"] for key in self.keys if not key["retired"]}

    def as_answer(self) -> dict[str, Any]:
        """The answer of `GET /api/agent/keys`."""
        keys = [dict(key) for key in self.keys]
        return {"version": self.version, "keys": keys, "signed_by": self.signed_by, "signature": self.signature}

    def as_line(self) -> str:
        return _SET + json.dumps({"since": self.since.isoformat(), **self.as_answer()}, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """What `HYPRBOX_KEYS_SHA256` is on a node that begins with this set."""
        return hashlib.sha256(canonical_keys(self.version, self.keys)).hexdigest()


@dataclass(frozen=True, slots=True)
class _File:
    signer: Signer
    sets: tuple[KeySet, ...]  # the first one is in force already


_KIND = keyfile.Kind("signing key", "signing_key", SigningKeyUnusable)


def create_key(path: Path) -> bool:
    """Write a new private key to `path` with mode 0400, or leave the one that is there. Whether it is new."""
    return keyfile.create(path, bytes(SigningKey.generate()))


@lru_cache(maxsize=4)
def _load(path: Path, _mtime: int, _inode: int) -> _File:
    try:
        first, *others = path.read_text().strip().split("\n")
        key = SigningKey(bytes.fromhex(first.strip()))
        sets = [_parsed(line) for line in others]
    except (ValueError, KeyError, TypeError) as error:
        raise SigningKeyUnusable(f"{path} does not hold a signing key (32 bytes in hex).") from error
    public = {key["key_id"]: VerifyKey(base64.b64decode(key["public_key"])) for found in sets for key in found.keys}
    mine = _key_id(key.verify_key)
    signer = Signer(key, {key_id: other for key_id, other in public.items() if key_id != mine})
    if not sets:
        sets = [_signed(datetime.min.replace(tzinfo=UTC), 1, [_entry(key.verify_key)], signer)]
    elif not all(mine in found.live for found in sets):
        raise SigningKeyUnusable(f"The key sets in {path} are not those of its key.")
    return _File(signer, tuple(sets))


def _parsed(line: str) -> KeySet:
    if not line.startswith(_SET):
        raise ValueError(line)
    said = json.loads(line.removeprefix(_SET))
    return KeySet(
        datetime.fromisoformat(said["since"]),
        said["version"],
        tuple(said["keys"]),
        said["signed_by"],
        said["signature"],
    )


def _read() -> _File:
    path = Path(settings.HYPRBOX_SIGNING_KEY_FILE)
    status = _KIND.look(path)
    return _load(path, status.st_mtime_ns, status.st_ino)


def signer() -> Signer:
    """The key in force. Raises `SigningKeyUnusable` when it is missing, damaged or readable by others."""
    return _read().signer


def key_set() -> KeySet:
    """The key set in force. Raises `SigningKeyUnusable`."""
    return _in_force(_read().sets, _now())


def next_change() -> datetime | None:
    """When the replaced key is retired; None when there is none any more. Raises `SigningKeyUnusable`."""
    return min((found.since for found in _read().sets if found.since > _now()), default=None)


def key_set_sha256() -> str:
    """What `HYPRBOX_KEYS_SHA256` is on a new node."""
    return key_set().sha256


def rotate(path: Path, *, at_once: bool = False) -> None:
    """Put a new key in the place of the one at `path`, which signs its successor's key sets and is then forgotten.

    Jobs that the old key signed are run for another `OVERLAP`, with `at_once` no more. Raises `StillRotating`.
    """
    found, now = _read(), _now()
    old, current = found.signer, _in_force(found.sets, now)
    if next_change() is not None and not at_once:
        raise StillRotating()
    new = SigningKey.generate()
    version = max(each.version for each in found.sets)
    before = [{**key, "retired": True} for key in current.keys if key["key_id"] != old.key_id]
    retired = [*before, _entry(old.key.verify_key, retired=True), _entry(new.verify_key)]
    both = [*before, _entry(old.key.verify_key), _entry(new.verify_key)]
    if at_once:
        sets = [_signed(now, version + 1, retired, old)]
    else:
        sets = [_signed(now, version + 1, both, old), _signed(now + OVERLAP, version + 2, retired, old)]
    keyfile.replace(path, [bytes(new).hex(), *(each.as_line() for each in sets)])


def canonical_keys(version: int, keys: Iterable[Mapping[str, Any]]) -> bytes:
    """The bytes of a key set that are signed and hashed."""
    ordered = sorted((dict(key) for key in keys), key=lambda key: str(key["key_id"]))
    return json.dumps({"keys": ordered, "version": version}, sort_keys=True, separators=(",", ":")).encode()


def _in_force(sets: Iterable[KeySet], now: datetime) -> KeySet:
    first, *others = sets
    return next((each for each in reversed(others) if each.since <= now), first)


def _signed(since: datetime, version: int, keys: list[dict[str, Any]], by: Signer) -> KeySet:
    signature = by.sign(KEYS_CONTEXT, canonical_keys(version, keys))
    return KeySet(since, version, tuple(keys), by.key_id, signature)


def _entry(key: VerifyKey, *, retired: bool = False) -> dict[str, Any]:
    return {"key_id": _key_id(key), "public_key": base64.b64encode(bytes(key)).decode(), "retired": retired}


def _key_id(key: VerifyKey) -> str:
    return hashlib.sha256(bytes(key)).hexdigest()[:16]


def _now() -> datetime:
    return datetime.now(UTC)
