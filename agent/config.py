"""The agent's settings: flags, then HYPRBOX_* in the environment, then /etc/hyprbox/hyprnode.env."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ENV_FILE = Path("/etc/hyprbox/hyprnode.env")
DEFAULT_STATE_DIR = "/var/lib/hyprbox"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
NAMES = (
    "HYPRBOX_API_URL",
    "HYPRBOX_NODE_ID",
    "HYPRBOX_NODE_TOKEN",
    "HYPRBOX_NODE_TOKEN_FILE",
    "HYPRBOX_INTERVAL",
    "HYPRBOX_REGION",
    "HYPRBOX_STATE_DIR",
    "HYPRBOX_LOG_LEVEL",
    "HYPRBOX_KEYS_SHA256",
    "HYPRBOX_STOP_JOBS",
    "HYPRBOX_PROXY",
)
_INTERVAL = re.compile(r"([0-9]{1,6})\s*(s|m|h)?")
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOKEN = re.compile(r"hbnt_[a-z0-9]{8}[A-Za-z0-9_-]{43}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
INTERVAL_RANGE = (1, 3600)


class BadSetting(Exception):
    """A setting is missing or cannot be used; the message names it, its value and what would be right."""


@dataclass(frozen=True)
class Config:
    """Checked settings. `interval` is in seconds; `keys_sha256` is empty when nothing was told."""

    api_url: str
    node_id: str
    token: str
    interval: int
    region: str
    state_dir: Path
    log_level: str
    keys_sha256: str
    stop_jobs: bool
    proxy: str = ""

    def __repr__(self) -> str:
        return f"Config(api_url={self.api_url!r}, node_id={self.node_id!r}, token=hidden)"


def load(flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ, env_file: Path = ENV_FILE) -> Config:
    """The first of flag, environment and file wins for each setting. Raises `BadSetting`."""
    values = dict(read_env_file(env_file))
    values.update({name: environ[name] for name in NAMES if environ.get(name)})
    values.update({name: value for name, value in flags.items() if value})
    return Config(
        api_url=_api_url(values.get("HYPRBOX_API_URL", "")),
        node_id=_node_id(values.get("HYPRBOX_NODE_ID", "") or socket.gethostname()),
        token=_token(values.get("HYPRBOX_NODE_TOKEN", "") or _token_file(values.get("HYPRBOX_NODE_TOKEN_FILE", ""))),
        interval=parse_interval(values.get("HYPRBOX_INTERVAL", "60s")),
        region=_region(values.get("HYPRBOX_REGION", "")),
        state_dir=_state_dir(values.get("HYPRBOX_STATE_DIR", DEFAULT_STATE_DIR)),
        log_level=_log_level(values.get("HYPRBOX_LOG_LEVEL", "INFO")),
        keys_sha256=_keys_sha256(values.get("HYPRBOX_KEYS_SHA256", "")),
        stop_jobs=_boolean("HYPRBOX_STOP_JOBS", values.get("HYPRBOX_STOP_JOBS", "false")),
        proxy=_proxy(values.get("HYPRBOX_PROXY", "")),
    )


def read_env_file(path: Path) -> Mapping[str, str]:
    """`NAME=value` lines as systemd reads them; a missing file is empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadSetting(f"{path} cannot be read: {error.strerror}.") from error
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(("#", ";")):
            continue
        name, separator, value = line.partition("=")
        if not separator:
            raise BadSetting(f"{path}, line {number} is not NAME=value.")  # not shown: it may be a secret
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def parse_interval(text: str) -> int:
    """`2`, `2s`, `1m` in seconds. Raises `BadSetting`."""
    match = _INTERVAL.fullmatch(text.strip().lower())
    seconds = int(match.group(1)) * _UNIT_SECONDS[match.group(2) or "s"] if match else 0
    if not INTERVAL_RANGE[0] <= seconds <= INTERVAL_RANGE[1]:
        raise BadSetting(f"HYPRBOX_INTERVAL “{text}” is not a time from 1s to 1h: write 10, 10s or 1m.")
    return seconds


def _api_url(text: str) -> str:
    if not text:
        raise BadSetting("HYPRBOX_API_URL is not set: the control plane's address, such as https://hyprbox.example.")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise BadSetting(f"HYPRBOX_API_URL “{text}” is not an address such as https://hyprbox.example.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadSetting(f"HYPRBOX_API_URL “{text}” is not an address such as https://hyprbox.example.")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise BadSetting(f"HYPRBOX_API_URL “{text}” must be https://: http is for this very machine only.")
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.com
        return False


def _node_id(text: str) -> str:
    if not _NODE_ID.fullmatch(text):
        raise BadSetting(
            f"HYPRBOX_NODE_ID “{text}” is not a node id: letters, digits, dot, dash and underscore, at most 63."
        )
    return text


def _token(text: str) -> str:
    if not text:
        raise BadSetting("HYPRBOX_NODE_TOKEN is not set: create a token on the control plane.")
    if not _TOKEN.fullmatch(text):
        raise BadSetting("HYPRBOX_NODE_TOKEN is not a node token: hbnt_ and 51 characters.")
    return text


def _token_file(text: str) -> str:
    if not text:
        return ""
    try:
        return Path(text).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"HYPRBOX_NODE_TOKEN_FILE {text} cannot be read: {error}.") from error


def _region(text: str) -> str:
    if len(text) > 63 or not text.isprintable():
        raise BadSetting("HYPRBOX_REGION takes at most 63 printable characters.")
    return text


def _state_dir(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise BadSetting(f"HYPRBOX_STATE_DIR “{text}” must be an absolute path, such as {DEFAULT_STATE_DIR}.")
    return path


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise BadSetting(f"HYPRBOX_LOG_LEVEL “{text}” is not one of {', '.join(LOG_LEVELS)}.")
    return text.upper()


def _keys_sha256(text: str) -> str:
    if text and not _SHA256.fullmatch(text):
        raise BadSetting("HYPRBOX_KEYS_SHA256 is not a SHA-256: 64 hex digits, lower case.")
    return text


def _proxy(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_one = False
    if text and not is_one:  # not shown: it may have a password in it
        raise BadSetting("HYPRBOX_PROXY is not the address of a proxy, such as http://proxy.example:3128.")
    return text


def _boolean(name: str, text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise BadSetting(f"{name} “{text}” is not true or false.")
