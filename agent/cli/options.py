"""Options and values that several commands share."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import click

from agent.cli.exits import UsageTrouble

_AGO = re.compile(r"([0-9]{1,6})\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DEFAULT_LIMIT = 50
STATUSES = ("online", "warning", "critical", "offline", "unknown")


class Moment(click.ParamType):  # type: ignore[type-arg]
    """`2h`, `7d`, or a time in ISO 8601 (local without an offset); leaves as UTC in ISO 8601. `forward`: from now on."""

    name = "time"

    def __init__(self, *, forward: bool = False) -> None:
        self._sign = 1 if forward else -1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        match = _AGO.fullmatch(text.lower())
        if match is not None:
            try:
                moment = datetime.now(timezone.utc) + self._sign * timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
            except OverflowError:
                self.fail(f"“{text}” is too far away.", param, ctx)
        else:
            try:
                moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
            except (ValueError, OverflowError):
                self.fail(f"“{text}” is not a time: write 30m, 2h, 7d or 2026-01-31T12:00.", param, ctx)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`90s`, `15m`, `2h`, or seconds; leaves as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([1-9][0-9]{0,8})\s*([smhdw]?)", str(value).strip().lower())
        if match is None:
            self.fail(f"“{value}” is not a time such as 90s, 15m or 2h.", param, ctx)
        return int(match[1]) * _SECONDS[match[2] or "s"]


class Statuses(click.ParamType):  # type: ignore[type-arg]
    """One status of a server, or several with commas between them, in whatever case."""

    name = "status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        wanted = [part.strip().lower() for part in str(value).split(",") if part.strip()]
        for part in wanted:
            if part not in STATUSES:
                self.fail(f"“{part}” is not one of {', '.join(STATUSES)}.", param, ctx)
        return ",".join(wanted).upper()


SINCE = Moment()
FROM_NOW = Moment(forward=True)


JOB = click.argument("job_id", metavar="JOB", type=click.UUID)
MAYBE_JOB = click.argument("job_id", metavar="[JOB]", required=False, type=click.UUID)
BATCH = click.option("--batch", type=click.UUID, metavar="BATCH", help="All jobs of this batch.")


def limits(function: Any) -> Any:
    """`--limit N` and `--all` for lists that grow for ever."""
    function = click.option("--all", "everything", is_flag=True, help="All of them.")(function)
    return click.option(
        "--limit", type=click.IntRange(1), help=f"At most so many, the newest; {DEFAULT_LIMIT} without it."
    )(function)


def chosen_limit(limit: int | None, everything: bool) -> int | None:
    if everything and limit is not None:
        raise UsageTrouble("Choose one of --limit and --all.")
    return None if everything else limit or DEFAULT_LIMIT


def without_empty(**query: Any) -> dict[str, Any]:
    """The parts of a query that were given."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in query.items() if value}
