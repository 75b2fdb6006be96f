"""What is in no line of the agent's log. The same patterns as the control plane's, which this may not import: a test compares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECRETS = re.compile(
    r"hb(?:nt|ak)_[A-Za-z0-9_-]+"
    r"|eyJ[A-Za-z0-9_-]{8,400}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
    r"|(?<=://)(?:[^/\s:@]+:[^/\s@]*|[^/\s:@?#]+)(?=@)"
    r"|(?<=/reset/)[A-Za-z0-9_:=%-]{20,}|(?<=/invitation/)[A-Za-z0-9_:=%-]{20,}"
)
# A header goes on to the end of its line: of several cookies, none is shown.
_HEADERS = re.compile(r"(?i)(\b(?:set-)?cookie[\"']?\s*[=:]\s*)[^\r\n]+")
_NAMED = re.compile(
    r"(?i)((?:password|passwd|secret|authorization|token|otp|api[_-]?key)[\"']?\s*[=:]\s*)"
    r"(?:(?:bearer|basic)\s+)?(?:\"[^\"\r\n]*\"?|'[^'\r\n]*'?|[^\s,;&\"']+)"
)
_NAMES = re.compile(r"(?i)(?:.*_)?(?:password|passwd|secret|authorization|cookie|token|otp|seed|api_key)")
HIDDEN = "[hidden]"
_DEEPEST = 6


def scrub(text: str) -> str:
    """The text without anything that looks like a credential."""
    hidden = _HEADERS.sub(rf"\1{HIDDEN}", _SECRETS.sub(HIDDEN, text))
    return _NAMED.sub(rf"\1{HIDDEN}", hidden)


def redact(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a line with every value scrubbed, and without what is called like a secret."""
    return {name: _scrubbed(name, value, 0) for name, value in facts.items()}


def _scrubbed(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _NAMES.fullmatch(name):
        return HIDDEN
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return scrub(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {str(key): _scrubbed(str(key), inner, depth + 1) for key, inner in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple, set, frozenset)):
        return [_scrubbed("", inner, depth + 1) for inner in value]
    return scrub(repr(value))
