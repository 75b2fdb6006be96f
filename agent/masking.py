"""Secrets do not leave with the output: what a script prints of them is replaced before it is kept anywhere.

Found wherever they stand whole, over the edges of reads as well, and line by line when a secret has several. Not found
in another form: encoded, reversed, or letter by letter. Whoever writes a script can always do that, so this protects
from accidents, not from scripts.
"""

from __future__ import annotations

from collections.abc import Iterable

MASK = b"***"
MIN_LINE_BYTES = 8  # of a secret with several lines: shorter ones stand in all kinds of output


def needles(secrets: Iterable[str]) -> list[bytes]:
    """What to look for, as bytes; the longest first."""
    found = set()
    for secret in secrets:
        found.add(secret.encode())
        lines = secret.splitlines()
        if len(lines) > 1:
            found.update(line.encode() for line in lines if len(line.encode()) >= MIN_LINE_BYTES)
    found.discard(b"")
    return sorted(found, key=lambda needle: (-len(needle), needle))


class Masker:
    """One stream. What may be the beginning of a secret waits for what follows: at most its length less one byte."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._needles = needles(secrets)
        self._held = b""
        self._covered = 0  # so many bytes of what is held belong to a secret whose mask is out already
        self._is_masked = False  # what was shown last is a mask

    def feed(self, data: bytes) -> bytes:
        """What can be shown by now."""
        if not self._needles:
            return data
        text = self._held + data
        return self._pass(text, len(text) - self._waiting(text))

    def finish(self) -> bytes:
        """What was held: nothing follows any more."""
        return self._pass(self._held, len(self._held))

    def _waiting(self, text: bytes) -> int:
        """How many bytes at the end may be the beginning of a secret."""
        longest = 0
        for needle in self._needles:
            for length in range(min(len(needle) - 1, len(text)), longest, -1):
                if text.endswith(needle[:length]):
                    longest = length
                    break
        return longest

    def _pass(self, text: bytes, end: int) -> bytes:
        """`text` up to `end` with its secrets masked; the rest is held."""
        if not end:
            self._held = text
            return b""
        parts: list[bytes] = []
        at = covered = 0
        for start, stop in self._spans(text):
            if start >= end:
                break
            parts.append(text[at:start])
            if start > 0 or not self._is_masked:
                parts.append(MASK)
            at = min(stop, end)
            covered = max(0, stop - end)
        parts.append(text[at:end])
        self._held, self._covered, self._is_masked = text[end:], covered, at == end
        return b"".join(parts)

    def _spans(self, text: bytes) -> list[tuple[int, int]]:
        """Where secrets are, those that overlap or touch as one."""
        found = [(0, self._covered)] if self._covered else []
        for needle in self._needles:
            at = text.find(needle)
            while at >= 0:
                found.append((at, at + len(needle)))
                at = text.find(needle, at + 1)
        found.sort()
        merged: list[tuple[int, int]] = []
        for start, stop in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        return merged
