"""The output of a running job on disk: a ring of the last 4 MiB per stream, with true offsets.

The runner writes, the daemon reads, in two processes without a lock: data goes first, then the total. The
ring has one block (64 KiB) more than it promises, so that the block being written never overlaps what a
reader may still take.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
from pathlib import Path

from agent.wire import OUTPUT_CAP, PHASES

BLOCK = 64 * 1024
RING = OUTPUT_CAP + BLOCK
STREAMS = ("stdout", "stderr")
_FORMAT = struct.Struct("<QQQ")  # stdout total, stderr total, phase number + 1
_NAME = "progress"


class SpoolWriter:
    """The runner's end."""

    def __init__(self, folder: Path) -> None:
        self._rings = [os.open(folder / f"{s}.ring", os.O_RDWR | os.O_CREAT, 0o600) for s in STREAMS]
        self._hashes = [hashlib.sha256(), hashlib.sha256()]
        self._totals = [0, 0]
        handle = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(handle, _FORMAT.size)
        self._progress = mmap.mmap(handle, _FORMAT.size)
        os.close(handle)
        self._phase = 0
        self.failed = False
        self._publish()

    def write(self, stream: int, data: bytes) -> None:
        """At most one block at a time. A full disk loses bytes, never the script: they are counted all the same."""
        self._hashes[stream].update(data)
        at = self._totals[stream] % RING
        first = data[: RING - at]
        try:
            os.pwrite(self._rings[stream], first, at)
            if len(first) < len(data):
                os.pwrite(self._rings[stream], data[len(first) :], 0)
        except OSError:
            self.failed = True
        self._totals[stream] += len(data)
        self._publish()

    def enter(self, phase: str) -> None:
        self._phase = PHASES.index(phase) + 1
        self._publish()

    def _publish(self) -> None:
        self._progress[:] = _FORMAT.pack(self._totals[0], self._totals[1], self._phase)

    def totals(self) -> tuple[int, int]:
        return self._totals[0], self._totals[1]

    def digests(self) -> tuple[str, str]:
        return self._hashes[0].hexdigest(), self._hashes[1].hexdigest()

    def sync(self) -> None:
        for handle in self._rings:
            os.fsync(handle)
        self._progress.flush()


class SpoolReader:
    """The daemon's end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def progress(self) -> tuple[tuple[int, int], str]:
        """The totals of both streams, and the phase that runs (or an empty text)."""
        try:
            raw = (self._folder / _NAME).read_bytes()
        except FileNotFoundError:
            return (0, 0), ""
        if len(raw) != _FORMAT.size:
            return (0, 0), ""
        stdout, stderr, phase = _FORMAT.unpack(raw)
        return (stdout, stderr), PHASES[phase - 1] if 1 <= phase <= len(PHASES) else ""

    def read(self, stream: int, offset: int, limit: int) -> tuple[int, bytes]:
        """`(offset, bytes)` from `offset` on, or from the first byte that is still kept."""
        while True:
            total = self.progress()[0][stream]
            start = max(offset, total - OUTPUT_CAP)
            data = self._read_ring(stream, start, min(limit, total - start))
            if start >= self.progress()[0][stream] - OUTPUT_CAP:
                return start, data

    def _read_ring(self, stream: int, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        at = start % RING
        with open(self._folder / f"{STREAMS[stream]}.ring", "rb") as file:
            file.seek(at)
            data = file.read(min(length, RING - at))
            if len(data) < length:
                file.seek(0)
                data += file.read(length - len(data))
        return data

    def digests(self) -> tuple[str, str]:
        """Of what is kept, when the runner died before it could tell those of the whole."""
        totals = self.progress()[0]
        first, second = (hashlib.sha256(self.read(s, 0, totals[s])[1]).hexdigest() for s in (0, 1))
        return first, second

    def remove(self) -> None:
        for name in (_NAME, *(f"{s}.ring" for s in STREAMS)):
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).unlink()
