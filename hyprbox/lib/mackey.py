"""The key of the row seals (`hyprbox.lib.rowmac`): a file outside the database and its backups, 32 bytes in hex."""

from __future__ import annotations

import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

from django.conf import settings

KEY_BYTES = 32


class MacKeyUnusable(Exception):
    """The key of the row seals cannot be used."""


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


@lru_cache(maxsize=4)
def _load(path: str, _mtime: int) -> bytes:
    try:
        key = bytes.fromhex(Path(path).read_text().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise MacKeyUnusable(f"{path} does not hold a key for row seals (32 bytes in hex).")
    return key


def key() -> bytes:
    """The key in force; made on first use where DEBUG is on. Raises `MacKeyUnusable`."""
    path = Path(settings.HYPRBOX_MAC_KEY_FILE)
    if settings.DEBUG and not path.exists():
        create_key(path)
    try:
        status = path.stat()
    except OSError as error:
        raise MacKeyUnusable(f"The key of the row seals {path} cannot be read: {error.strerror}.") from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MacKeyUnusable(f"{path} can be read by other users: make it mode 0400.")
    return _load(str(path), status.st_mtime_ns)
