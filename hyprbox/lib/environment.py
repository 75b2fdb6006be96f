"""Reading settings from text. What cannot be meant is one sentence at the start, which names the setting and what would be right."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from email.utils import parseaddr
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ImproperlyConfigured

_TRUE, _FALSE = ("true", "on", "ok", "y", "yes", "1"), ("false", "off", "n", "no", "0")
_ROLES = ("viewer", "operator", "admin")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_PATH = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_HOST = re.compile(r"(?:\*|(?:\*?\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])", re.IGNORECASE)


def truth(name: str, text: str, *, default: bool = False) -> bool:
    """`default` for nothing. Raises `ImproperlyConfigured`, as all of these do: a slip must not turn off what keeps others out."""
    word = text.strip().lower()
    if not word:
        return default
    if word not in (*_TRUE, *_FALSE):
        raise ImproperlyConfigured(f"{name} is “{text}”: it would be true or false.")
    return word in _TRUE


def whole(name: str, text: str, *, default: int, least: int, most: int) -> int:
    """A whole number within limits; `default` for nothing."""
    word = text.strip()
    if not word:
        return default
    if not (word.isascii() and word.isdigit() and len(word) < 12 and least <= int(word) <= most):
        raise ImproperlyConfigured(
            f"{name} is “{text}”: it would be a whole number from {least} to {most}, such as {default}."
        )
    return int(word)


def listed(text: str) -> list[str]:
    """What stands between commas."""
    return [word for part in text.split(",") if (word := part.strip())]


def roles(name: str, text: str) -> list[str]:
    """Roles of people."""
    found = listed(text)
    if unknown := set(found) - set(_ROLES):
        raise ImproperlyConfigured(
            f"{name} names roles by comma, such as admin,operator: there is no “{min(unknown)}”."
        )
    return found


def proxies(name: str, text: str) -> list[str]:
    """Addresses and networks of proxies."""
    found = listed(text)
    for item in found:
        try:
            network = ipaddress.ip_network(item, strict=False)
        except ValueError:
            raise ImproperlyConfigured(
                f"{name}: “{item}” is neither an address nor a network: it would be 10.0.0.5 or 10.0.0.0/24, several by comma."
            ) from None
        if network.prefixlen == 0:
            raise ImproperlyConfigured(
                f"{name}: “{item}” stands for every address, so anybody could say that they are somebody else: "
                "name the proxies alone, such as 10.0.0.5 or 10.0.0.0/24."
            )
    return found


def public_address(name: str, text: str, *, is_debug: bool = False) -> SplitResult:
    """Where people and agents reach HyprBox: with https, but for loopback and `is_debug`."""
    found = urlsplit(text)
    try:
        has_port = found.port is None or found.port > 0
    except ValueError:
        has_port = False
    if found.scheme not in ("http", "https") or not found.hostname or not has_port or found.username is not None:
        raise ImproperlyConfigured(f"{name} is not an address: it would be https://hyprbox.example, for instance.")
    if found.scheme != "https" and found.hostname not in LOOPBACK and not is_debug:
        raise ImproperlyConfigured(
            f"{name} starts with http:// but is not a loopback address: use https://, behind a proxy that ends TLS."
        )
    return found


def origins(name: str, text: str, *, is_debug: bool = False) -> list[str]:
    """Other sites as browsers write them: with https, but for loopback and `is_debug`."""
    found = listed(text)
    for item in found:
        if not _ORIGIN.fullmatch(item):
            raise ImproperlyConfigured(
                f"{name}: “{item}” is not an origin as browsers write it, such as https://tools.example."
            )
        if not is_debug and item.startswith("http://") and urlsplit(item).hostname not in LOOPBACK:
            raise ImproperlyConfigured(f"{name}: {item} must be https://, or anybody on its way could call.")
    return found


def hosts(name: str, text: str, *, is_debug: bool = False) -> list[str]:
    """Names that a Host header may have; each exactly, but for `is_debug`."""
    found = listed(text)
    for item in found:
        if not _HOST.fullmatch(item):
            raise ImproperlyConfigured(
                f"{name}: “{item}” is not the name of a host: it would be hyprbox.example, without https:// and without a port."
            )
        if not is_debug and ("*" in item or item.startswith(".")):
            raise ImproperlyConfigured(
                f"{name}: “{item}” stands for any number of names: write each that is used, such as hyprbox.example."
            )
    return found


def path(name: str, text: str, *, taken: Sequence[str]) -> str:
    """A path below our address, without slashes around it."""
    found = text.strip().strip("/")
    if not _PATH.fullmatch(found) or found.partition("/")[0] in taken:
        raise ImproperlyConfigured(
            f"{name} is “{text}”: it would be a path of letters, digits, dashes and slashes that nothing else has, "
            "such as django-admin."
        )
    return found


def level(name: str, text: str) -> str:
    """How much is logged."""
    found = text.strip().upper()
    if found not in _LEVELS:
        raise ImproperlyConfigured(f"{name} is “{text}”: it would be one of {', '.join(_LEVELS)}.")
    return found


def sender(name: str, text: str) -> str:
    """The sender of letters, with or without a name."""
    address = parseaddr(text)[1]
    if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", address) or not text.isprintable():
        raise ImproperlyConfigured(
            f"{name} is “{text}”: it would be hyprbox@example.com, or HyprBox <hyprbox@example.com>."
        )
    return text
