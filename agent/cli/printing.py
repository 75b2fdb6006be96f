"""Output for people and for programs. What comes from elsewhere cannot move the cursor or set a title."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from agent.cli.base import clean, current, has_colours, is_tty

_COLOURS = {
    "ONLINE": "green", "SUCCEEDED": "green", "WARNING": "yellow", "QUEUED": "yellow", "RUNNING": "cyan",
    "CRITICAL": "red", "FAILED": "red", "OFFLINE": "red", "CANCELLED": "magenta", "UNKNOWN": "dim",
    "safe": "green", "confirm": "yellow", "dangerous": "red",
}  # fmt: skip
_CODES = {"green": 32, "yellow": 33, "cyan": 36, "red": 31, "magenta": 35, "dim": 2}
_MARKS = {"SUCCEEDED": "✓", "FAILED": "✗", "CANCELLED": "–"}
_UNITS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"))

GAP = 2
MIN_WRAP = 30
FLEXIBLE_WIDTH = 12  # what a column that may be shortened should at least have


@dataclass(frozen=True)
class Column:
    """On a terminal that is too narrow the column with the highest `minor` is left out first; 0 stays.

    `flexible`: "wrap" or "cut" what has no room. Without it a cell is never shortened, whatever the width.
    """

    title: str
    right: bool = False
    coloured: bool = False
    minor: int = 0
    flexible: str = ""


def as_json(value: Any) -> None:
    """Indented for whoever looks at it; one document."""
    write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def as_json_line(value: Any) -> None:
    write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def write(text: str) -> None:
    sys.stdout.write(text)


def note(text: str) -> None:
    """A remark beside the output: for people only, so only where a person looks."""
    if is_tty(sys.stderr) and not current().as_json:
        print(clean(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """What a person should know before it is too late, and a log too; for programs it is in the answer."""
    if not current().as_json:
        print("hyprbox: warning: " + clean(text), file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """A sentence about what went wrong, as the program's last words are written."""
    print("hyprbox: " + clean(text), file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line of the answer, for people."""
    write(clean(text) + "\n")


def clean_text(text: str) -> str:
    """Text of several lines without what moves the cursor; for a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def is_terminal() -> bool:
    return is_tty(sys.stdout)


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Rows under their titles. Piped: two spaces between columns, nothing cut, no colour; `empty` is for people only."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        note(empty)
        return
    if is_tty(sys.stdout) and os.environ.get("TERM") != "dumb":
        _rich_table(columns, cells)
    else:
        _plain_table(columns, cells)


def _plain_table(columns: Sequence[Column], cells: list[list[str]]) -> None:
    lines = [[column.title for column in columns], *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns)
        ]
        write("  ".join(padded).rstrip() + "\n")


def _rich_table(columns: Sequence[Column], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    room = Console().width
    widths = _layout(columns, cells, room)
    is_plain = not has_colours(sys.stdout)
    made = Table(box=None, pad_edge=False, header_style="" if is_plain else "bold dim", padding=(0, GAP, 0, 0))
    for index, width in widths.items():
        column = columns[index]
        wraps = column.flexible == "wrap"
        made.add_column(
            column.title,
            width=width,
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
            justify="right" if column.right else "left",
        )
    for row in cells:
        coloured = {i for i in widths if columns[i].coloured and not is_plain}
        made.add_row(*[Text(row[i], style=_COLOURS.get(row[i], "") if i in coloured else "") for i in widths])
    # What must not be shortened may be wider than the terminal, which then breaks the line.
    Console(highlight=False, width=max(room, sum(widths.values()) + GAP * len(widths))).print(made)


def _layout(columns: Sequence[Column], cells: list[list[str]], room: int) -> dict[int, int]:
    """Which columns are shown and how wide they are, by their index."""
    wanted = {i: max([len(each.title), *(len(row[i]) for row in cells)]) for i, each in enumerate(columns)}
    widths = {i: min(width, FLEXIBLE_WIDTH) if columns[i].flexible else width for i, width in wanted.items()}
    while (spare := room + GAP - sum(width + GAP for width in widths.values())) < 0:
        least = max(widths, key=lambda i: columns[i].minor)
        if not columns[least].minor:
            break
        del widths[least]
    for index in reversed(list(widths)):  # prose stands last and gets what is left first
        more = min(wanted[index] - widths[index], max(0, spare))
        widths[index] += more
        spare -= more
    return widths


def paragraph(text: str) -> None:
    """Prose, as wide as the terminal."""
    width = shutil.get_terminal_size().columns if is_terminal() else 0
    for line in text.strip().splitlines():
        write("\n".join(textwrap.wrap(clean(line), width) if width else [clean(line)]) + "\n")


def facts(pairs: Mapping[str, Any]) -> None:
    """A name and its value on each line; what is empty is left out. On a terminal long values stay in their column."""
    shown = {name: clean(value) for name, value in pairs.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in shown), default=0)
    room = shutil.get_terminal_size().columns - width - GAP if is_terminal() else 0
    for name, value in shown.items():
        is_long = room >= MIN_WRAP and len(value) > room
        lines = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False) if is_long else [value]
        write(f"{_tinted(name.ljust(width), 'dim', sys.stdout)}{' ' * GAP}{styled(lines[0])}\n")
        for line in lines[1:]:
            write(f"{' ' * (width + GAP)}{line}\n")


def styled(text: str) -> str:
    """A status or a risk in its colour, where there are colours; anything else as it is."""
    return _tinted(text, _COLOURS.get(text, ""), sys.stdout)


def verdict(status: str, text: str) -> None:
    """How a job ended, on stderr: for a person with a mark in front, for a log as the program's words."""
    is_plain = not is_tty(sys.stderr) or "utf" not in (sys.stderr.encoding or "").lower()
    mark = "hyprbox:" if is_plain else _tinted(_MARKS.get(status, "•"), _COLOURS.get(status, ""), sys.stderr)
    print(f"{mark} {clean(text)}", file=sys.stderr, flush=True)


def _tinted(text: str, colour: str, stream: Any) -> str:
    code = _CODES.get(colour)
    if not code or not has_colours(stream):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def now() -> datetime:
    return datetime.now(timezone.utc)


def ago(text: str | None) -> str:
    """`3 min ago` of a time of the API."""
    if not text:
        return "never"
    seconds = (now() - parse_time(text)).total_seconds()
    return "now" if seconds < 1 else f"{duration(int(seconds))} ago"


def duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 and isinstance(seconds, float) else f"{int(seconds)} s"


def left(seconds: float) -> str:
    """What remains, rounded: a moment after they began, seven days are still `7 d`."""
    for (size, unit), smaller in zip(_UNITS, (86400, 3600, 60, 1)):
        if int(seconds / smaller + 0.5) * smaller >= size:
            return f"{int(seconds / size + 0.5)} {unit}"
    return f"{max(0, int(seconds + 0.5))} s"


def took(job: Mapping[str, Any]) -> str:
    """How long a job ran, or has been running."""
    if not job.get("started_at"):
        return ""
    end = parse_time(job["finished_at"]) if job.get("finished_at") else now()
    return duration(max(0.0, (end - parse_time(job["started_at"])).total_seconds()))


def percent(value: Any) -> str:
    return "" if value is None else f"{value:.0f} %"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
