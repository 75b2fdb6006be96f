"""One line of JSON per event on stderr; journald or whoever started us keeps it. Never a secret, as far as it looks like one."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from typing import Any

from agent.hiding import redact
from agent.wire import now_text

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


class Log:
    def __init__(self, level: str = "INFO") -> None:
        self._least = LEVELS[level]
        self._lock = threading.Lock()

    def _write(self, level: str, event: str, facts: Any) -> None:
        if LEVELS[level] < self._least:
            return
        line = json.dumps({"at": now_text(), "level": level.lower(), "event": event, **redact(facts)})
        # Whoever reads this may be gone, its disk full: that must not end the thread that has something to say.
        with self._lock, contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)

    def debug(self, event: str, **facts: Any) -> None:
        self._write("DEBUG", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        self._write("INFO", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self._write("WARNING", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self._write("ERROR", event, facts)


def take_over_tracebacks(log: Log) -> None:
    """What nobody caught, in whichever thread, is a line like the others instead of going past it to standard error."""

    def tell(event: str, error: BaseException) -> None:
        import traceback  # not in the memory of a process that idles for years

        trace = traceback.format_exception(type(error), error, error.__traceback__)
        log.error(event, error=repr(error), traceback="".join(trace))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            tell("agent.thread_failed", args.exc_value)

    sys.excepthook = lambda kind, error, trace: tell("agent.failed", error)
    threading.excepthook = of_thread
