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
import threading
from pathlib import Path

from agent.journal import sync_folder
from agent.wire import OUTPUT_CAP, PHASES, UNKNOWN_SHA256

BLOCK = 64 * 1024
RING = OUTPUT_CAP + BLOCK
STREAMS = ("stdout", "stderr")
# stdout total, stderr total, phase number + 1, and the totals that are known to be on disk
_FORMAT = struct.Struct("<QQQQQ")
_NAME = "progress"


class SpoolWriter:
    """The runner's end. Raises `OSError` when there is no room for all of it, before anything runs."""

    def __init__(self, folder: Path) -> None:
        self._rings = [os.open(folder / f"{s}.ring", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for s in STREAMS]
        for ring in self._rings:
            # All of it now: a disk that fills up later cannot take the output of a running script.
            os.posix_fallocate(ring, 0, RING)
        self._hashes = [hashlib.sha256(), hashlib.sha256()]
        self._totals = [0, 0]
        self._synced = (0, 0)
        self._syncing = threading.Lock()
        handle = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(handle, _FORMAT.size)
        self._progress = mmap.mmap(handle, _FORMAT.size)
        os.close(handle)
        sync_folder(folder)
        self._phase = 0
        self.failed = False
        self._publish()

    def write(self, stream: int, data: bytes) -> None:
        """At most one block at a time. A disk that fails ends the record of the output, never the script."""
        if self.failed:
            return
        at = self._totals[stream] % RING
        first = data[: RING - at]
        try:
            _write_all(self._rings[stream], first, at)
            _write_all(self._rings[stream], data[len(first) :], 0)
        except OSError:
            self.failed = True
            return
        self._hashes[stream].update(data)
        self._totals[stream] += len(data)
        self._publish()

    def enter(self, phase: str) -> None:
        self._phase = PHASES.index(phase) + 1
        self._publish()

    def _publish(self) -> None:
        self._progress[:] = _FORMAT.pack(*self._totals, self._phase, *self._synced)

    def totals(self) -> tuple[int, int]:
        return self._totals[0], self._totals[1]

    def digests(self) -> tuple[str, str]:
        """Of the whole streams, also of what the ring has let go."""
        if self.failed:
            return UNKNOWN_SHA256, UNKNOWN_SHA256
        return self._hashes[0].hexdigest(), self._hashes[1].hexdigest()

    def sync(self) -> None:
        """Put on disk what is written so far; may be called from another thread."""
        with self._syncing:
            totals = self.totals()
            if totals == self._synced:
                return
            with contextlib.suppress(OSError):
                for handle in self._rings:
                    os.fdatasync(handle)
                self._synced = totals
                self._publish()
                self._progress.flush()


def _write_all(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written


class SpoolReader:
    """The daemon's end. `after_reboot`: only what was synced is known to be what the script wrote."""

    def __init__(self, folder: Path, *, after_reboot: bool = False) -> None:
        self._folder = folder
        self._after_reboot = after_reboot

    def progress(self) -> tuple[tuple[int, int], str]:
        """The totals of both streams, and the phase that runs (or an empty text)."""
        try:
            raw = (self._folder / _NAME).read_bytes()
        except FileNotFoundError:
            return (0, 0), ""
        if len(raw) != _FORMAT.size:
            return (0, 0), ""
        stdout, stderr, phase, *synced = _FORMAT.unpack(raw)
        totals = (synced[0], synced[1]) if self._after_reboot else (stdout, stderr)
        return totals, PHASES[phase - 1] if 1 <= phase <= len(PHASES) else ""

    def read(self, stream: int, offset: int, limit: int) -> tuple[int, bytes]:
        """`(offset, bytes)` from `offset` on, or from the first byte that is still kept.

        Never from further on: what is skipped here can be had nowhere else. A writer at full speed moves the
        ring while we read, so a read that had to begin at its edge takes more and drops what went meanwhile.
        """
        total = self.progress()[0][stream]
        start = max(offset, total - OUTPUT_CAP)
        slack = RING // 4 if start > offset else 0
        data = self._read_ring(stream, start, min(limit + slack, total - start))
        edge = self.progress()[0][stream] - OUTPUT_CAP
        if edge > start:
            data, start = data[edge - start :], edge
        return (start, data[:limit]) if data else (offset, b"")

    def _read_ring(self, stream: int, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        at = start % RING
        try:
            with open(self._folder / f"{STREAMS[stream]}.ring", "rb") as file:
                data = os.pread(file.fileno(), min(length, RING - at), at)
                if len(data) < length:
                    data += os.pread(file.fileno(), length - len(data), 0)
        except FileNotFoundError:
            return b""
        return data

    def digests(self) -> tuple[str, str]:
        """When the runner died before it could tell those of the whole: known while all of it is still here."""
        first, second = (self._digest(stream) for stream in (0, 1))
        return first, second

    def _digest(self, stream: int) -> str:
        total = self.progress()[0][stream]
        if total > OUTPUT_CAP:
            return UNKNOWN_SHA256
        return hashlib.sha256(self.read(stream, 0, total)[1]).hexdigest()

    def remove(self) -> None:
        for name in (_NAME, *(f"{s}.ring" for s in STREAMS)):
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).unlink()
