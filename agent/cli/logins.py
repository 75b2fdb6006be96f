"""Saved logins: one file, 0600, below the user's configuration folder; whole at every moment, for many processes at once."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.cli.exits import Trouble

_EARLY_SECONDS = 10.0


@dataclass(frozen=True)
class Login:
    """A pair of tokens for one control plane. `access_until` is this machine's clock, in seconds."""

    url: str
    email: str
    access: str
    refresh: str
    access_until: float

    def __repr__(self) -> str:
        return f"Login(url={self.url!r}, email={self.email!r}, tokens=hidden)"

    @property
    def is_fresh(self) -> bool:
        return time.time() < self.access_until - _EARLY_SECONDS


def folder() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home.startswith("/") else Path("~/.config").expanduser()) / "hyprbox"


def path() -> Path:
    return folder() / "login.json"


def access_until(access: str) -> float:
    """When the token ends by this machine's clock, however wrong that is: the token tells how long it lasts."""
    try:
        part = access.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return time.time() + float(claims["exp"]) - float(claims["iat"])
    except (ValueError, KeyError, IndexError, TypeError):
        return time.time() + 60.0


def find(url: str = "") -> Login | None:
    """The login for this control plane, or without a URL the last one that was saved."""
    data = _read()
    entry = data["logins"].get(url or data["current"])
    try:
        return None if entry is None else Login(url=url or data["current"], **entry)
    except TypeError:
        raise _damaged() from None


def save(login: Login, *, is_current: bool = True) -> None:
    """Atomic: whoever reads at the same time has the old pair or the new one."""
    data = _read()
    entry = asdict(login)
    data["logins"][entry.pop("url")] = entry
    if is_current or not data["current"]:
        data["current"] = login.url
    _write(data)


def forget(url: str) -> None:
    data = _read()
    data["logins"].pop(url, None)
    if data["current"] == url:
        data["current"] = next(iter(data["logins"]), "")
    _write(data)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One process at a time: a refresh token works once, and its second use ends the login everywhere."""
    with _told_plainly():
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read() -> dict:  # type: ignore[type-arg]
    with _told_plainly():
        try:
            text = path().read_text(encoding="utf-8")
        except FileNotFoundError:
            return {"current": "", "logins": {}}
    try:
        data = json.loads(text)
        if isinstance(data["current"], str) and all(isinstance(entry, dict) for entry in data["logins"].values()):
            return dict(data)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise _damaged()


def _write(data: object) -> None:
    with _told_plainly():
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path().with_name(f".login.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path())


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Trouble(
            f"{error.filename or folder()} cannot be used: {error.strerror}.", code="config_unusable"
        ) from None


def _damaged() -> Trouble:
    return Trouble(f"{path()} is damaged: remove it and log in again.", code="config_unusable")
