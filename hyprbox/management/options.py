"""What `up` is told, by flags or by the environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parents[2]
DEFAULT_PORT = 8000
_TRUE = {"1", "true", "yes", "on"}


def setting(name: str) -> str:
    """The environment variable, or the content of the file that its `_FILE` twin names; "" for neither."""
    if value := os.environ.get(name, ""):
        return value
    path = os.environ.get(f"{name}_FILE")
    if not path:
        return ""
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise CannotStart(f"{name}_FILE names {path}, which cannot be read: {error.strerror}.") from error


def database(name: str) -> str:
    """The PostgreSQL address in this setting; "" where it is not set. What is none is not repeated: it may have a password."""
    url = setting(name)
    if url and not url.startswith(("postgres://", "postgresql://")):
        raise CannotStart(f"{name} must be a postgresql:// address: HyprBox runs on PostgreSQL only.")
    return url


class CannotStart(Exception):
    """HyprBox cannot start here; the message is one sentence for the person at the terminal."""


@dataclass(frozen=True)
class UpOptions:
    """Flags win over the environment, which wins over the defaults."""

    port: int
    var_dir: Path
    with_agent: bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def run_dir(self) -> Path:
        return self.var_dir / "run"

    @property
    def log_dir(self) -> Path:
        return self.var_dir / "log"

    @property
    def agent_dir(self) -> Path:
        return self.var_dir / "agent"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", metavar="PORT", help=f"listen on 127.0.0.1:PORT (HYPRBOX_PORT, {DEFAULT_PORT})")
    parser.add_argument(
        "--var", metavar="DIR", help="keep everything below DIR (HYPRBOX_VAR_DIR, var/ of the checkout)"
    )
    parser.add_argument(
        "--no-agent", action="store_true", help="do not run an agent for this machine (HYPRBOX_NO_AGENT=1)"
    )


def flags(arguments: Sequence[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(
        prog="script/server",
        description="Run all of HyprBox on this machine: PostgreSQL, web, worker and an agent. Ctrl-C stops it.",
    )
    add_arguments(parser)
    return vars(parser.parse_args(arguments))


def chosen(given: dict[str, object]) -> UpOptions:
    """Raises CannotStart for a port that is none."""
    folder = str(given.get("var") or os.environ.get("HYPRBOX_VAR_DIR") or BASE_DIR / "var")
    silent = os.environ.get("HYPRBOX_NO_AGENT", "").strip().lower() in _TRUE
    return UpOptions(
        port=_port(str(given.get("port") or os.environ.get("HYPRBOX_PORT") or DEFAULT_PORT)),
        var_dir=Path(folder).expanduser().absolute(),
        with_agent=not (given.get("no_agent") or silent),
    )


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise CannotStart(f"“{text}” is not a port: it would be a number from 1 to 65535.")
