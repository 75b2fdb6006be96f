"""Series of percentages as SVG paths, and the facts a chart shows beside them. Pure.

A point is (seconds since 1970, value) with None for a value that is missing; a gap ends the line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

TOP = 100.0
GAP_STEPS = 2.5

Point = tuple[float, float | None]


def spark_path(values: Sequence[float | None], *, width: int = 120, height: int = 32, area: bool = False) -> str:
    """The `d` of a sparkline over evenly spaced values; an empty text when there is nothing to draw."""
    if len(values) < 2:
        values = [*values, *values]
    last = max(len(values) - 1, 1)
    spots = [(index * width / last, value) for index, value in enumerate(values)]
    return _path(_runs(spots), height, area=area)


def chart_path(
    points: Sequence[Point], *, start: float, end: float, step: float, width: int, height: int, area: bool = False
) -> str:
    """The `d` of a line over time between `start` and `end`; it breaks where points are missing."""
    span = max(end - start, 1.0)
    spots: list[tuple[float, float | None]] = []
    before: float | None = None
    for at, value in points:
        if before is not None and at - before > GAP_STEPS * step:
            spots.append(((at - start) / span * width, None))
        spots.append(((at - start) / span * width, value))
        before = at
    return _path(_runs(spots), height, area=area)


def _runs(spots: Iterable[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, value in spots:
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append((x, value))
    return [run for run in runs if run]


def _path(runs: list[list[tuple[float, float]]], height: int, *, area: bool) -> str:
    parts = []
    for run in runs:
        if len(run) == 1:  # one point alone is a short dash, or nobody would see it
            x, value = run[0]
            run = [(x, value), (x + 1, value)]
        text = "M" + " ".join(f"{_short(x)} {_short(_y(value, height))}" for x, value in run)
        parts.append(f"{text}V{height}H{_short(run[0][0])}Z" if area else text)
    return "".join(parts)


def _y(value: float, height: int) -> float:
    return height - 1 - (height - 2) * min(max(value, 0.0), TOP) / TOP


def _short(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart, drawn. `key` names its colour, `values` are for the readout under the pointer."""

    key: str
    label: str
    path: str
    area: str
    values: tuple[float | None, ...]
    now: float | None
    average: float | None
    highest: float | None
    lowest: float | None


@dataclass(frozen=True, slots=True)
class Chart:
    """What `components/_chart.html` takes."""

    lines: tuple[Line, ...]
    times: tuple[int, ...]
    ticks: tuple[datetime, ...]
    start: datetime
    end: datetime
    is_long: bool
    width: int
    height: int

    @property
    def is_empty(self) -> bool:
        return all(line.average is None for line in self.lines)

    @property
    def data(self) -> dict[str, object]:
        """For uPlot, as `<script type="application/json">`."""
        series = [
            {"key": line.key, "label": line.label, "data": list(line.values), "filled": index == 0}
            for index, line in enumerate(self.lines)
        ]
        span = [int(self.start.timestamp()), int(self.end.timestamp())]
        return {"t": list(self.times), "span": span, "series": series, "long": self.is_long}


def chart(
    series: Sequence[tuple[str, str, Sequence[Sequence[float | None]]]],
    *,
    start: float,
    end: float,
    step: float,
    width: int = 1000,
    height: int = 250,
    ticks: int = 7,
) -> Chart:
    """Several series of [time, average, maximum] rows as one chart."""
    times = sorted({int(row[0] or 0) for _, _, rows in series for row in rows})
    times = _with_gaps(times, step)
    lines = tuple(_line(key, label, rows, times, (start, end, step, width, height)) for key, label, rows in series)
    spread = [start + (end - start) * index / (ticks - 1) for index in range(ticks)]
    moments = tuple(datetime.fromtimestamp(at, UTC) for at in spread)
    is_long = end - start > 36 * 3600
    return Chart(lines, tuple(times), moments, moments[0], moments[-1], is_long, width, height)


def _line(
    key: str,
    label: str,
    rows: Sequence[Sequence[float | None]],
    times: Sequence[int],
    frame: tuple[float, float, float, int, int],
) -> Line:
    start, end, step, width, height = frame
    points = [(float(row[0] or 0), row[1]) for row in rows]
    known = {int(at): None if value is None else round(value, 1) for at, value in points}
    present = [value for _, value in points if value is not None]
    highest = [row[2] if len(row) > 2 else row[1] for row in rows]
    peaks = [value for value in highest if value is not None]
    kind = {"start": start, "end": end, "step": step, "width": width, "height": height}
    return Line(
        key=key,
        label=label,
        path=chart_path(points, **kind),  # type: ignore[arg-type]
        area=chart_path(points, area=True, **kind),  # type: ignore[arg-type]
        values=tuple(known.get(at) for at in times),
        now=present[-1] if present else None,
        average=sum(present) / len(present) if present else None,
        highest=max(peaks) if peaks else None,
        lowest=min(present) if present else None,
    )


def _with_gaps(times: list[int], step: float) -> list[int]:
    """One empty moment within each gap, so that uPlot breaks its line there as the SVG does."""
    filled: list[int] = []
    for at in times:
        if filled and at - filled[-1] > GAP_STEPS * step:
            filled.append(int(filled[-1] + step))
        filled.append(at)
    return filled
