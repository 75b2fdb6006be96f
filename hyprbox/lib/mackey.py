"""The keys of the row seals (`hyprbox.lib.rowmac`): a file outside the database and its backups, 32 bytes in hex a line.

The first line makes seals, all of them check seals, so that a new key can be put before the old one until every row is
sealed anew. A line that begins with `codes` is a key that no seal fits any more; recovery codes that were made under it
go on to work, because nobody can hash them anew.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from hyprbox.lib import keyfile
from hyprbox.lib.keyfile import KEY_BYTES

_RETIRED = "codes"


class MacKeyUnusable(Exception):
    """The key of the row seals cannot be used."""


@dataclass(frozen=True, slots=True)
class Keys:
    """`seals` with the one that makes new seals first; `codes` are for recovery codes alone."""

    seals: tuple[bytes, ...]
    codes: tuple[bytes, ...] = ()


_KIND = keyfile.Kind("key of the row seals", "mac_key", MacKeyUnusable)


def create_key(path: Path) -> bool:
    """Write a new key to `path` with mode 0400, or leave the one that is there. Whether it is new."""
    return keyfile.create(path, secrets.token_bytes(KEY_BYTES))


def add_key(path: Path) -> None:
    """Put a new key first; the ones that were there still check seals."""
    known = keys()
    keyfile.replace(path, _lines(Keys((secrets.token_bytes(KEY_BYTES), *known.seals), known.codes)))


def retire_others(path: Path) -> None:
    """No seal of any key but the first one fits from now on."""
    known = keys()
    keyfile.replace(path, _lines(Keys(known.seals[:1], (*known.seals[1:], *known.codes))))


def forget_retired(path: Path) -> int:
    """Recovery codes from before the last rotation work no more. Returns how many keys went."""
    known = keys()
    keyfile.replace(path, _lines(Keys(known.seals)))
    return len(known.codes)


def _lines(known: Keys) -> list[str]:
    return [*(key.hex() for key in known.seals), *(f"{_RETIRED} {key.hex()}" for key in known.codes)]


@lru_cache(maxsize=4)
def _load(path: Path, _mtime: int, _inode: int) -> Keys:
    seals: list[bytes] = []
    codes: list[bytes] = []
    try:
        for line in path.read_text().splitlines():
            *kind, text = line.split() or [""]
            if text and kind in ([], [_RETIRED]):
                (codes if kind else seals).append(bytes.fromhex(text))
            elif text:
                raise ValueError(kind)
    except ValueError:
        seals = []
    if not seals or any(len(key) != KEY_BYTES for key in (*seals, *codes)):
        raise MacKeyUnusable(f"{path} does not hold a key for row seals (32 bytes in hex).")
    return Keys(tuple(seals), tuple(codes))


def keys() -> Keys:
    """The keys in force; one is made on first use where DEBUG is on. Raises `MacKeyUnusable`."""
    path = Path(settings.HYPRBOX_MAC_KEY_FILE)
    if settings.DEBUG and not path.exists():
        create_key(path)
    status = _KIND.look(path)
    return _load(path, status.st_mtime_ns, status.st_ino)


def key() -> bytes:
    """The key that makes seals. Raises `MacKeyUnusable`."""
    return keys().seals[0]
