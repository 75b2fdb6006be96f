"""A job's stored output as lines for its page, and the place where the live stream goes on.

Lines of both streams stand in the order in which their bytes arrived. Only whole lines are shown of a job
that still runs: the page's stream starts behind the last line end, so nothing is lost or doubled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from hyprbox.lib import ansi
from hyprbox.lib.actors import Actor, Capability, require
from jobs.models import Job, OutputChunk
from jobs.states import Stream

MAX_LINES = 2000
MAX_LINE_CHARACTERS = 8000


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `kind` is out, err, or sys for what HyprBox itself says."""

    kind: str
    at: datetime
    spans: tuple[ansi.Span, ...]


@dataclass(frozen=True, slots=True)
class Console:
    """What the page shows first. `after` is the cursor that the live stream continues from."""

    lines: tuple[Line, ...]
    total_lines: int
    error_lines: int
    after: str
    phase: str
    styles: dict[str, ansi.Style]

    @property
    def is_cut(self) -> bool:
        return self.total_lines > len(self.lines)


@dataclass(slots=True)
class _Stream:
    """The unfinished line of one stream, and how far its whole lines reach."""

    kind: str
    reached: int = 0
    pending: bytearray = field(default_factory=bytearray)
    pending_at: datetime | None = None
    style: ansi.Style = field(default_factory=ansi.Style)


def read_console(*, by: Actor, job: Job, only: str = "") -> Console:
    """The last lines of a job's output; `only` is stdout or stderr. Not for viewers."""
    require(by, Capability.VIEW_OUTPUT)
    chunks = OutputChunk.objects.filter(job_id=job.pk).order_by("received_at", "stream", "offset")
    first = {Stream.STDOUT: job.transcript.stdout_first_offset, Stream.STDERR: job.transcript.stderr_first_offset}
    return assemble(chunks.iterator(chunk_size=200), first_offsets=first, is_final=job.is_finished, only=only)  # type: ignore[arg-type]


def assemble(
    chunks: Iterable[OutputChunk], *, first_offsets: dict[str, int], is_final: bool, only: str = ""
) -> Console:
    """Lines out of chunks in order of arrival."""
    streams = {name: _Stream(kind, first_offsets.get(name, 0)) for name, kind in (("stdout", "out"), ("stderr", "err"))}
    lines: deque[Line] = deque(maxlen=MAX_LINES)
    counts = {"out": 0, "err": 0, "sys": 0}
    phase = ""
    for chunk in chunks:
        if chunk.phase and chunk.phase != phase:
            phase = chunk.phase
            counts["sys"] += 1
            lines.append(Line("sys", chunk.received_at, (ansi.Span(f"phase {phase}"),)))
        stream = streams[chunk.stream]
        for line in _lines_of(stream, chunk):
            counts[line.kind] += 1
            if not only or only == chunk.stream:
                lines.append(line)
    if is_final:
        for name, stream in streams.items():
            if stream.pending and (not only or only == name):
                lines.append(_line(stream, bytes(stream.pending), stream.pending_at or lines[-1].at))
                counts[stream.kind] += 1
            stream.reached += len(stream.pending)
    after = ",".join(f"{name}:{stream.reached}" for name, stream in streams.items())
    total = sum(counts.values()) if not only else counts["sys"] + counts[streams[only].kind]
    styles = {stream.kind: stream.style for stream in streams.values()}
    return Console(tuple(lines), total, counts["err"], after, phase, styles)


def _lines_of(stream: _Stream, chunk: OutputChunk) -> Iterable[Line]:
    data = bytes(chunk.data)
    known = stream.reached + len(stream.pending)
    if chunk.offset + len(data) <= known:
        return
    if chunk.offset > known:  # bytes that are no longer kept
        stream.pending.clear()
        stream.reached = chunk.offset
    else:
        data = data[known - chunk.offset :]
    stream.pending_at = stream.pending_at if stream.pending else chunk.received_at
    stream.pending += data
    *whole, rest = bytes(stream.pending).split(b"\n")
    for raw in whole:
        yield _line(stream, raw, stream.pending_at)  # type: ignore[arg-type]
        stream.pending_at = chunk.received_at
    stream.reached += len(stream.pending) - len(rest)
    stream.pending = bytearray(rest)


def _line(stream: _Stream, raw: bytes, at: datetime) -> Line:
    text = visible(raw.decode("utf-8", "replace"))
    found, stream.style = ansi.spans(text, stream.style)
    return Line(stream.kind, at, tuple(found))


def visible(text: str) -> str:
    """What a terminal would show of one line: a carriage return begins it anew; very long ones are cut."""
    text = text.rstrip("\r").rpartition("\r")[2]
    if len(text) > MAX_LINE_CHARACTERS:
        hidden = len(text) - MAX_LINE_CHARACTERS
        return f"{text[:MAX_LINE_CHARACTERS]} … and {hidden:,} more characters, see the download"
    return text
