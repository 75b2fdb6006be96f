"""We are a witness of the control plane's audit log: we keep the signed checkpoints that come with our heartbeats.

A checkpoint says which hash the chain had at which entry. Two that differ at one entry, both with a good signature, prove
that the log was rewritten or went on twice; that one is refused, kept aside, told as an error and, with our next
heartbeat, to the control plane: both, so that they are a proof.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from agent.keys import KeyRing
from agent.log import Log
from agent.wire import Malformed, strict_base64

CONTEXT = b"hyprbox-audit-checkpoint-v1\0"
KEPT = 1000
UNTOLD = 50  # a server that makes up forks must not fill our disk
_FIELDS = {"n": int, "hash": str, "at": str, "key_id": str, "signature": str}


class Witness:
    """The last thousand checkpoints, in `audit-checkpoints`; those that contradict one of them in `audit-forks`.

    `audit-forks-untold` has the pairs that the control plane does not know of yet.
    """

    def __init__(self, state_dir: Path, keys: KeyRing, log: Log) -> None:
        self._path, self._forks = state_dir / "audit-checkpoints", state_dir / "audit-forks"
        self._untold_path = state_dir / "audit-forks-untold"
        self._keys, self._log = keys, log
        self._lines, self._hashes = _load(self._path)
        self._written = len(self._lines)
        self._refused = {(found["n"], found["hash"]) for found in map(json.loads, _load(self._forks)[0])}
        self._untold = _load_untold(self._untold_path)

    def untold(self) -> dict[str, Any] | None:
        """The oldest fork that is to be told: `{kept, refused}`, two checkpoints."""
        return self._untold[0] if self._untold else None

    def told(self) -> None:
        """The oldest one has been."""
        self._untold.pop(0)
        self._rewrite(self._untold_path, [json.dumps(pair, sort_keys=True) for pair in self._untold])

    def note(self, checkpoint: Any) -> None:
        """Keep what came with a heartbeat, if it is a checkpoint that our pinned key has signed."""
        if checkpoint is None or not self._keys.is_pinned:
            return
        if not _is_one(checkpoint):
            self._log.warning("audit.checkpoint_malformed")
            return
        known = self._hashes.get(checkpoint["n"])
        if known == checkpoint["hash"] or (known is None and checkpoint["n"] < max(self._hashes, default=0)):
            return  # the one we have, or an older one of a process that is behind
        if (checkpoint["n"], checkpoint["hash"]) in self._refused:
            return  # handed out again
        if not self._keys.has_signed(checkpoint["key_id"], _signature(checkpoint), CONTEXT + _message(checkpoint)):
            self._log.error("audit.checkpoint_unsigned", n=checkpoint["n"])
            return
        if known is not None:
            self._refuse(checkpoint, known)
            return
        self._keep(checkpoint)

    def _refuse(self, checkpoint: dict[str, Any], known: str) -> None:
        self._log.error("audit.forked", n=checkpoint["n"], kept=known, refused=checkpoint["hash"])
        if len(self._refused) >= KEPT:
            return
        self._refused.add((checkpoint["n"], checkpoint["hash"]))
        self._append(self._forks, json.dumps(checkpoint, sort_keys=True))
        if len(self._untold) < UNTOLD:
            kept = next(found for found in map(json.loads, self._lines) if found["n"] == checkpoint["n"])
            self._untold.append({"kept": kept, "refused": checkpoint})
            self._append(self._untold_path, json.dumps(self._untold[-1], sort_keys=True))

    def _keep(self, checkpoint: dict[str, Any]) -> None:
        line = json.dumps(checkpoint, sort_keys=True)
        self._lines.append(line)
        self._hashes[checkpoint["n"]] = checkpoint["hash"]
        if len(self._lines) > KEPT:
            self._hashes.pop(json.loads(self._lines.pop(0))["n"], None)
        if self._written >= 2 * KEPT:
            if self._rewrite(self._path, self._lines):
                self._written = len(self._lines)
        else:
            self._append(self._path, line)
            self._written += 1

    def _append(self, path: Path, line: str) -> None:
        with contextlib.suppress(OSError), open(path, "a", opener=_private) as file:
            file.write(line + "\n")

    def _rewrite(self, path: Path, lines: list[str]) -> bool:
        temporary = path.with_suffix(".new")
        with contextlib.suppress(OSError):
            with open(temporary, "w", opener=_private) as file:
                file.writelines(line + "\n" for line in lines)
            os.rename(temporary, path)
            return True
        return False


def _load(path: Path) -> tuple[list[str], dict[int, str]]:
    lines, hashes = [], {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines()[-KEPT:]:
            with contextlib.suppress(ValueError):  # torn when we were killed
                found = json.loads(line)
                if _is_one(found):
                    lines.append(line)
                    hashes[found["n"]] = found["hash"]
    return lines, hashes


def _load_untold(path: Path) -> list[dict[str, Any]]:
    found = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines()[:UNTOLD]:
            with contextlib.suppress(ValueError):
                pair = json.loads(line)
                if isinstance(pair, dict) and set(pair) == {"kept", "refused"} and all(map(_is_one, pair.values())):
                    found.append(pair)
    return found


def _is_one(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(_FIELDS)
        and all(type(value[name]) is kind for name, kind in _FIELDS.items())
        and sum(len(str(item)) for item in value.values()) < 1000
    )


def _message(checkpoint: dict[str, Any]) -> bytes:
    said = {name: checkpoint[name] for name in ("at", "hash", "n")}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _signature(checkpoint: dict[str, Any]) -> bytes:
    try:
        return strict_base64(checkpoint["signature"])
    except Malformed:
        return b""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
