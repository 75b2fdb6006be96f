"""Where the output of jobs goes: byte for byte to files and pipes, without commands to the terminal on a terminal."""

from __future__ import annotations

import codecs
import re
import sys
import threading
from typing import Any

from agent.cli.base import has_colours, is_tty

_HELD = 4096
# A colour; a whole other sequence; one that is not whole yet; a control character that does more than lay out text.
_SEQUENCE = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]*m)"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|(?P<open>\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?)?\Z)"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)


class Sieve:
    """Text for a terminal: colours stay where they are wanted, all other commands to it go.

    A node is not trusted with an operator's screen.
    """

    def __init__(self, *, is_coloured: bool = True) -> None:
        self._is_coloured = is_coloured
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def pass_on(self, data: bytes, *, is_final: bool = False) -> str:
        text = self._held + self._decoder.decode(data, is_final)
        self._held = ""

        def replace(match: re.Match[str]) -> str:
            if match["open"] is not None and not is_final and len(match[0]) < _HELD:
                self._held = match[0]
            return (match["colour"] or "") if self._is_coloured else ""

        return _SEQUENCE.sub(replace, text)


class Sink:
    """stdout to stdout, stderr to stderr. `label`: who wrote it, before each line, when several jobs are followed."""

    _lock = threading.Lock()
    _mid_line = False  # of stderr, or of the terminal that both are

    def __init__(self, label: str = "") -> None:
        self._label = f"{label} | ".encode() if label else b""
        self._sieves: dict[str, Sieve] = {}
        self._rest = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, data: bytes) -> None:
        data = self._shown(stream, data)
        if self._label:
            *lines, self._rest[stream] = (self._rest[stream] + data).split(b"\n")
            data = b"".join(self._label + line + b"\n" for line in lines)
        self._put(stream, data)

    def gap(self, stream: str, missing: int) -> None:
        with self._lock:
            sys.stdout.flush()
            print(f"hyprbox: {missing:,} bytes of {stream} are no longer kept.", file=sys.stderr, flush=True)

    @classmethod
    def new_line(cls, *, is_wanted: bool) -> None:
        """All is written; a sentence of ours that follows must not continue a line of a job's."""
        if cls._mid_line and is_wanted:
            print(file=sys.stderr)
        cls._mid_line = False

    def close(self) -> None:
        """What ended without a line end, and what could have been the beginning of a character."""
        for stream in ("stdout", "stderr"):
            rest = self._shown(stream, b"", is_final=True)
            if self._label and (self._rest[stream] or rest):
                self._put(stream, self._label + self._rest[stream] + rest + b"\n")
                self._rest[stream] = b""
            else:
                self._put(stream, rest)

    def _shown(self, stream: str, data: bytes, *, is_final: bool = False) -> bytes:
        target = getattr(sys, stream)
        if not is_tty(target):
            return data
        if stream not in self._sieves:
            self._sieves[stream] = Sieve(is_coloured=has_colours(target))
        sieve = self._sieves[stream]
        return sieve.pass_on(data, is_final=is_final).encode("utf-8", "replace")

    def _put(self, stream: str, data: bytes) -> None:
        if not data:
            return
        with self._lock:
            target: Any = getattr(sys, stream)
            target.flush()
            target.buffer.write(data)
            target.buffer.flush()
            if stream == "stderr" or is_tty(sys.stdout):
                Sink._mid_line = not data.endswith(b"\n")
