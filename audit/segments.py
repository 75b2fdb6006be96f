"""Retention: whole segments of the log leave the database for a file, and a signed statement in the log says which.

A statement names the first and the last entry, the hash before the one and of the other, and the SHA-256 of the file. The
log is then verified from there on, and whoever deletes more than a statement says is found. The file has every entry's
number, hash and canonical bytes, so that its own chain can be followed from one hash to the other.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from audit.actions import Action
from audit.chain import Row, Walk
from audit.models import Event
from hyprbox.lib import signing

CONTEXT = b"hyprbox-audit-segment-v1\0"


class BadSegment(Exception):
    """A file is not the segment that it should be."""


@dataclass(frozen=True, slots=True)
class Segment:
    """`before` is the hash of the entry before the first one, `hash` that of the last one, both in hex like `sha256`."""

    first: int
    last: int
    before: str
    hash: str
    sha256: str

    def signed(self) -> dict[str, Any]:
        """What the statement says. Raises `SigningKeyUnusable`."""
        signer = signing.signer()
        return {**asdict(self), "key_id": signer.key_id, "signature": signer.sign(CONTEXT, self._message())}

    def _message(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    def is_signed(self, key_id: str, signature: str) -> bool:
        return signing.signer().has_signed(key_id, CONTEXT, self._message(), signature)


def ending_at(last: int) -> Segment | None:
    """The segment that ends with this entry, as a statement with our signature has it. Raises `SigningKeyUnusable`."""
    for detail in Event.objects.filter(action=Action.AUDIT_SEALED).order_by("-id").values_list("detail", flat=True):
        try:
            found = Segment(**{name: detail[name] for name in ("first", "last", "before", "hash", "sha256")})
            if found.last == last and found.is_signed(detail["key_id"], str(detail["signature"])):
                return found
        except (KeyError, TypeError):
            continue
    return None


def write(path: Path, rows: Iterator[Row], walk: Walk) -> str:
    """The entries that follow from where the walk stands, as a file that is new. Returns its SHA-256.

    Raises `BadSegment` for an entry that does not follow, `OSError`.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    try:
        with os.fdopen(handle, "wb") as file:
            return _write(file, rows, walk)
    except BaseException:
        path.unlink()
        raise


def _write(file: IO[bytes], rows: Iterator[Row], walk: Walk) -> str:
    digest = hashlib.sha256()
    for row in rows:
        if not walk.step(row):
            raise BadSegment(f"Entry {row.n} is not as it was written: “manage.py audit_verify” says more.")
        canonical = base64.b64encode(row.canonical).decode()
        line = json.dumps({"n": row.n, "hash": row.hash.hex(), "canonical": canonical}, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
        file.write(line.encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()


def check_file(path: Path) -> Segment:
    """The segment in a file, whose chain is unbroken and which a statement of ours names. Raises `BadSegment`."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            first, last = _ends(file)
            statement = ending_at(last)
            if statement is None or statement.first != first:
                raise BadSegment(f"No statement in the log names the entries {first} to {last}, which {path} holds.")
            walk = Walk(first - 1, bytes.fromhex(statement.before))
            file.seek(0)
            for line in file:
                digest.update(line)
                if not walk.step(_row(line)):
                    raise BadSegment(f"{path}: entry {walk.n + 1} is not as it was written.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSegment(f"{path} cannot be read as a segment of the log: {error}.") from error
    if walk.previous.hex() != statement.hash or digest.hexdigest() != statement.sha256:
        raise BadSegment(f"{path} is not the file that the log speaks of.")
    return statement


def _ends(file: IO[bytes]) -> tuple[int, int]:
    first = last = b""
    for line in file:
        first, last = first or line, line
    return _row(first).n, _row(last).n


def _row(line: bytes) -> Row:
    said = json.loads(line)
    return Row(int(said["n"]), bytes.fromhex(said["hash"]), base64.b64decode(said["canonical"], validate=True))
