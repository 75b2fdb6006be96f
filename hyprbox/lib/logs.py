"""What never reaches a log line: tokens, passwords, cookies, user information in addresses."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

_SECRETS = re.compile(
    r"hb(?:nt|ak)_[A-Za-z0-9_-]+"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_NAMED = re.compile(
    r"(?i)((?:password|passwd|secret|authorization|cookie|token)[\"']?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?[^\s,;&\"']+"
)
HIDDEN = "[hidden]"


def scrub(text: str) -> str:
    """The text without anything that looks like a credential."""
    return _NAMED.sub(rf"\1{HIDDEN}", _SECRETS.sub(HIDDEN, text))


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: scrub every text value of a log line."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = scrub(value)
    return event
