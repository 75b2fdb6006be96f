"""Pointers to secrets, resolved here and now for the one job that needs them. Errors never show content."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from agent.config import read_env_file

SECRETS_DIR = Path("/etc/hyprbox/secrets")
MAX_BYTES = 4096
_ENV = re.compile(r"env:(HYPRBOX_SECRET_[A-Z0-9_]{1,100})")


class Unresolved(Exception):
    """A secret cannot be had; the message names the pointer and the rule that failed."""


def resolve(
    pointers: Mapping[str, str], environ: Mapping[str, str], root: Path = SECRETS_DIR, env_file: Path | None = None
) -> dict[str, str]:
    """`{NAME: secret}`; `env_file` is the agent's, beside `environ`. Raises `Unresolved`, `BadSetting` for that file."""
    return {name: _resolve_one(pointer, environ, root, env_file) for name, pointer in pointers.items()}


def _resolve_one(pointer: str, environ: Mapping[str, str], root: Path, env_file: Path | None) -> str:
    match = _ENV.fullmatch(pointer)
    if match:
        kept = read_env_file(env_file) if env_file is not None else {}
        if env_file is not None and match.group(1) in kept and not _is_private(env_file.stat()):
            raise Unresolved(f"{pointer}: {env_file} must belong to root with mode 0600 or less")
        value = environ.get(match.group(1)) or kept.get(match.group(1))
        if not value:
            raise Unresolved(f"{pointer}: not set in the agent's environment file")
        return value
    if pointer.startswith("file:/"):
        return _read_file(pointer, Path(pointer[len("file:") :]), root)
    raise Unresolved(f"{pointer[:80]}: neither env:HYPRBOX_SECRET_NAME nor a file below {root}")


def _read_file(pointer: str, path: Path, root: Path) -> str:
    try:
        parts = path.relative_to(root).parts
    except ValueError:
        raise Unresolved(f"{pointer}: not below {root}") from None
    if not parts or ".." in parts:
        raise Unresolved(f"{pointer}: not a file below {root}")
    handle = -1
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (0 if is_last else os.O_DIRECTORY)
            inner = os.open(part, flags, dir_fd=handle)
            os.close(handle)
            handle = inner
        return _checked_content(pointer, handle)
    except OSError as error:
        raise Unresolved(f"{pointer}: {error.strerror}") from None
    finally:
        if handle >= 0:
            os.close(handle)


def _is_private(facts: os.stat_result) -> bool:
    return facts.st_uid in (0, os.geteuid()) and not facts.st_mode & 0o177


def _checked_content(pointer: str, handle: int) -> str:
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        raise Unresolved(f"{pointer}: not a regular file")
    if not _is_private(facts):
        raise Unresolved(f"{pointer}: must belong to root with mode 0600 or less")
    raw = os.read(handle, MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise Unresolved(f"{pointer}: larger than {MAX_BYTES} bytes")
    if b"\0" in raw:
        raise Unresolved(f"{pointer}: contains NUL")
    try:
        return raw.decode("utf-8").rstrip("\n")
    except UnicodeDecodeError:
        raise Unresolved(f"{pointer}: not UTF-8") from None
