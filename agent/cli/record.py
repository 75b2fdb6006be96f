"""What was run on this machine without a control plane: a line at the beginning and one at the end of each run.

It is kept beside the agent's own journal, which outlives the agent. Only root writes it; a value of a variable is never in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent import config
from agent.cli import printing
from agent.wire import now_text

MAX_BYTES = 1024 * 1024  # some thousand runs; as many are kept in the file before
_ENDED = ("status", "reason", "exit_code", "signal", "changed", "outcome_unknown")


def path() -> Path:
    """Where the agent of this machine has its journal, or would have it."""
    told = os.environ.get("HYPRBOX_STATE_DIR", "")
    if not told:
        with contextlib.suppress(config.BadSetting):
            told = config.read_env_file(config.ENV_FILE).get("HYPRBOX_STATE_DIR", "")
    return Path(told or config.DEFAULT_STATE_DIR) / "jobs" / "local.jsonl"


def begin(job: Mapping[str, Any]) -> None:
    """`job`: id, preset, revision, mode and script_sha256."""
    _append({**job, "created_by": _who(), "started_at": now_text()})


def end(job: Mapping[str, Any]) -> None:
    _append({"id": job["id"], **{name: job.get(name) for name in _ENDED}, "finished_at": now_text()})


def runs() -> list[dict[str, Any]]:
    """All that are kept, the newest first. One without an end has no `status`: it runs, or was killed. Raises `OSError`."""
    found: dict[str, dict[str, Any]] = {}
    for file in (_older(path()), path()):
        with contextlib.suppress(FileNotFoundError):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):  # a line that a full disk cut
                    entry = json.loads(line)
                    found.setdefault(entry["id"], {}).update(entry)
    return [run for run in reversed(list(found.values())) if "preset" in run]


def _append(entry: Mapping[str, Any]) -> None:
    if os.geteuid() != 0:
        return
    file = path()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > MAX_BYTES:
            os.replace(file, _older(file))
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(handle, (json.dumps(entry, separators=(",", ":")) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        printing.warn(f"This run cannot be noted in {file}: {error.strerror}.")


def _older(file: Path) -> Path:
    return file.with_name(file.name + ".1")


def _who() -> str:
    """The person behind sudo, else the account."""
    with contextlib.suppress(KeyError):
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())
