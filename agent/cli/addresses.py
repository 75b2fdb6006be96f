"""Where the control plane is, and the pages of its dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

from agent.cli.exits import UsageTrouble
from agent.config import is_loopback

DEFAULT_URL = "http://127.0.0.1:8000"


def check_url(text: str) -> str:
    """The address without a slash at its end. Raises `UsageTrouble` for what is none, or would send a token in clear."""
    wrong = UsageTrouble(f"“{text}” is not an address such as https://hyprbox.example.", code="bad_url")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise wrong
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UsageTrouble(f"“{text}” must be https://: http is for this very machine only.", code="bad_url")
    return text.rstrip("/")


def read_token_file(name: str) -> str:
    if not name:
        return ""
    try:
        token = sys.stdin.readline() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageTrouble(f"The token file {name} cannot be read: {getattr(error, 'strerror', error)}.") from None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageTrouble(f"The token file {name} does not hold a token: one line of letters, digits and signs.")
    return token


PAGES = {
    "overview": "/",
    "nodes": "/",
    "live": "/live/",
    "presets": "/presets/",
    "jobs": "/jobs/",
    "tokens": "/settings/tokens/",
    "audit": "/audit/",
}
THINGS = {"node": "/nodes/{}/", "preset": "/presets/{}/", "job": "/jobs/{}/"}


def page_of(thing: str, name: str = "") -> str:
    """The path of a page: of a list, or of one thing by its name."""
    if thing in THINGS and name:
        return THINGS[thing].format(quote(name, safe=""))
    if thing in PAGES and not name:
        return PAGES[thing]
    if thing in THINGS:
        raise UsageTrouble(f"Which {thing}? Write: hyprbox open {thing} NAME")
    if thing in PAGES:
        raise UsageTrouble(f"“{thing}” is a page of its own: hyprbox open {thing}")
    raise UsageTrouble(f"“{thing}” is not a page: {', '.join([*PAGES, *THINGS])}.")
