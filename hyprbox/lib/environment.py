"""Reading settings from text. What cannot be meant is one sentence at the start, which names the setting and what would be right."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from email.utils import parseaddr

from django.core.exceptions import ImproperlyConfigured

_TRUE, _FALSE = ("true", "on", "ok", "y", "yes", "1"), ("false", "off", "n", "no", "0")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_PATH = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
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


def hosts(name: str, text: str) -> list[str]:
    """Names that a Host header may have."""
    found = listed(text)
    for item in found:
        if not _HOST.fullmatch(item):
            raise ImproperlyConfigured(
                f"{name}: “{item}” is not the name of a host: it would be hyprbox.example, without https:// and without a port."
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
