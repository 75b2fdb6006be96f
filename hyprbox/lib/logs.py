"""What never reaches a log line: tokens, passwords, cookies, links that work once, user information in addresses.

The agent has the same patterns in `agent/hiding.py`; a test compares them.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
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


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: scrub every value of a log line, and hide what is called like a secret."""
    for key, value in event.items():
        event[key] = _scrubbed(key, value, 0)
    return event


def _scrubbed(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _NAMES.fullmatch(name):
        return HIDDEN
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return scrub(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {str(key): _scrubbed(str(key), inner, depth + 1) for key, inner in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed("", inner, depth + 1) for inner in value]
    return scrub(repr(value))


def take_over_tracebacks() -> None:
    """For a process that serves: what nobody caught goes into the log as well, instead of past it on standard error.

    Whoever has set hooks of their own keeps them.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _tell("process.failed", error)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _tell("thread.failed", args.exc_value)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _tell("error.ignored", args.exc_value)


def _tell(event: str, error: BaseException) -> None:
    if logging.getLogger().handlers:
        logging.getLogger(__name__).critical(event, exc_info=error)
    elif sys.stderr is not None:  # the settings are not loaded yet, or that is what failed
        sys.stderr.write(scrub("".join(traceback.format_exception(error))))
