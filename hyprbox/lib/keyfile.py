"""Files of keys outside the database and its backups: 32 bytes in hex a line, for their owner's eyes alone (0400)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of such files: what its key is called, which command makes it, and what is raised when it is of no use."""

    name: str
    command: str
    error: type[Exception]

    def look(self, path: Path) -> os.stat_result:
        """The file as it is now. Raises `error` when it is missing, out of reach or readable by others."""
        try:
            status = path.stat()
        except FileNotFoundError:
            raise self.error(
                f"There is no {self.name} at {path}: put yours there, or make the first one with "
                f"“manage.py {self.command} create”."
            ) from None
        except OSError as error:
            raise self.error(f"The {self.name} {path} cannot be read: {error.strerror}.") from error
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise self.error(f"{path} can be read by other users: make it mode 0400.")
        return status


def create(path: Path, key: bytes) -> bool:
    """Write a first key to `path` with mode 0400, or leave what is there. Whether it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(path, [key.hex()])
    except FileExistsError:
        return False
    return True


def replace(path: Path, lines: Iterable[str]) -> None:
    """All or nothing, with mode 0400, for whoever could read it before."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    _write(draft, lines)
    owner = path.stat()
    if os.geteuid() == 0:
        os.chown(draft, owner.st_uid, owner.st_gid)
    draft.replace(path)


def _write(path: Path, lines: Iterable[str]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
