"""The keys of the row seals (`hyprbox.lib.rowmac`): a file outside the database and its backups, 32 bytes in hex a line.

The first line makes seals, all of them check seals, so that a new key can be put before the old one until every row is
sealed anew. A line that begins with `codes` is a key that no seal fits any more; recovery codes that were made under it
go on to work, because nobody can hash them anew.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings

KEY_BYTES = 32
_RETIRED = "codes"


class MacKeyUnusable(Exception):
    """The key of the row seals cannot be used."""


@dataclass(frozen=True, slots=True)
class Keys:
    """`seals` with the one that makes new seals first; `codes` are for recovery codes alone."""

    seals: tuple[bytes, ...]
    codes: tuple[bytes, ...] = ()


def create_key(path: Path) -> bool:
    """Write a new key to `path` with mode 0400, or leave the one that is there. Whether it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return True


def add_key(path: Path) -> None:
    """Put a new key first; the ones that were there still check seals."""
    known = keys()
    write_lines(path, _lines(Keys((secrets.token_bytes(KEY_BYTES), *known.seals), known.codes)))


def retire_others(path: Path) -> None:
    """No seal of any key but the first one fits from now on."""
    known = keys()
    write_lines(path, _lines(Keys(known.seals[:1], (*known.seals[1:], *known.codes))))


def forget_retired(path: Path) -> int:
    """Recovery codes from before the last rotation work no more. Returns how many keys went."""
    known = keys()
    write_lines(path, _lines(Keys(known.seals)))
    return len(known.codes)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """All or nothing, with mode 0400."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    owner = path.stat()
    if os.geteuid() == 0:  # whoever could read it goes on to
        os.chown(draft, owner.st_uid, owner.st_gid)
    draft.replace(path)


def _lines(known: Keys) -> list[str]:
    return [*(key.hex() for key in known.seals), *(f"{_RETIRED} {key.hex()}" for key in known.codes)]


@lru_cache(maxsize=4)
def _load(path: str, _mtime: int, _inode: int) -> Keys:
    seals: list[bytes] = []
    codes: list[bytes] = []
    try:
        for line in Path(path).read_text().splitlines():
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
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MacKeyUnusable(
            f"There is no key of the row seals at {path}: put yours there, or make the first one with "
            "“manage.py mac_key create”."
        ) from None
    except OSError as error:
        raise MacKeyUnusable(f"The key of the row seals {path} cannot be read: {error.strerror}.") from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MacKeyUnusable(f"{path} can be read by other users: make it mode 0400.")
    return _load(str(path), status.st_mtime_ns, status.st_ino)


def key() -> bytes:
    """The key that makes seals. Raises `MacKeyUnusable`."""
    return keys().seals[0]
