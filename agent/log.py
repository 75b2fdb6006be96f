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
