"""Times, sizes and durations as people read them. Pure; `static/js/times.js` says the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

NBSP = "\u00a0"
MOST_PARTS = 12
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def age(seconds: float) -> str:
    """`3 s`, `12 min`, `4 h`, `2 d`: the largest whole unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{NBSP}{unit}"
    return f"{max(0, int(seconds))}{NBSP}s"


def left(seconds: float) -> str:
    """What remains, rounded in the same units: a moment after they began, seven days are still `7 d`."""
    for unit, size, smaller in (("d", 86_400, 3_600), ("h", 3_600, 60), ("min", 60, 1)):
        if int(seconds / smaller + 0.5) * smaller >= size:
            return f"{int(seconds / size + 0.5)}{NBSP}{unit}"
    return f"{max(0, int(seconds + 0.5))}{NBSP}s"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `4 min 08 s`, `2 h 05 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}{NBSP}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    if whole < 86_400:
        return f"{whole // 3600}{NBSP}h {whole % 3600 // 60:02d}{NBSP}min"
    return f"{whole // 86_400}{NBSP}d {whole % 86_400 // 3600}{NBSP}h"


def size(count: float) -> str:
    """`812 B`, `1.9 MiB`, `64.0 GiB`."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_SIZES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{int(amount)}{NBSP}B" if unit == 0 else f"{amount:.1f}{NBSP}{_SIZES[unit]}"


def moment(at: datetime, now: datetime) -> str:
    """Relative to come and when younger than a day, else the date: `in 7 d`, `3 s ago`, `22 Nov`, `22 Nov 2025`."""
    seconds = (now - at).total_seconds()
    if -1 < seconds < 1:
        return "now"
    if seconds < 0:
        return f"in {left(-seconds)}"
    if seconds < 86_400:
        return f"{age(seconds)} ago"
    day = at.astimezone(UTC)
    return f"{day.day} {day:%b}" if day.year == now.year else f"{day.day} {day:%b %Y}"


def middle(text: str, limit: int) -> str:
    """Cut in the middle: a long host name differs at its ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 node`, `2 nodes`, `1,000 nodes`."""
    return f"{count:,}{NBSP}{one if count == 1 else many or one + 's'}"


def fact(value: Any) -> str:
    """A value out of JSON: `yes`, `a, b`, `name: web-1, tags: ["a", "b"]`. What is nested deeper is JSON, and of more than
    a line can hold it says how many there are: an export has them all.
    """
    if isinstance(value, dict):
        if len(value) > MOST_PARTS:
            return f"{len(value)} values, which an export has"
        return ", ".join(f"{key}: {_part(part)}" for key, part in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(_part, value)) or "–"
    return _part(value)


def _part(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None or value == "" else str(value)
