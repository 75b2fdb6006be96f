"""`hyprbox audit`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import requests

from agent.cli import printing
from agent.cli.api import Api, unreachable
from agent.cli.base import current, family
from agent.cli.exits import REFUSED, Trouble
from agent.cli.options import SINCE, chosen_limit, limits, without_empty
from agent.cli.printing import Column

audit = family("audit", "Who did what, and whether the record is whole. For admins.")


def _filters(function: Any) -> Any:
    for option in (
        click.option("--until", type=SINCE, metavar="TIME", help="Before this: 2h, 7d or a date."),
        click.option("--since", type=SINCE, metavar="TIME", help="From this on: 2h, 7d or a date."),
        click.option("--target", default="", help="On this, such as node:web-1."),
        click.option("--action", default="", help="Only this, such as job.queued."),
        click.option("--actor", default="", help="By this person or node."),
    ):
        function = option(function)
    return function


@audit.command("list")
@_filters
@limits
def list_events(limit: int | None, everything: bool, **filters: Any) -> None:
    """What was done, the newest first."""
    query = without_empty(**filters)
    found = Api(current()).pages("/api/audit", query, limit=chosen_limit(limit, everything))
    if current().as_json:
        printing.as_json(found)
        return
    columns = [
        Column("WHEN"),
        Column("WHO"),
        Column("ACTION"),
        Column("TARGET"),
        Column("DETAIL", flexible="cut", minor=1),
    ]
    rows = [
        (each["at"][:19].replace("T", " "), each["actor_name"], each["action"], each["target"], _detail(each["detail"]))
        for each in found
    ]
    printing.table(columns, rows, empty="Nothing matches.")


def _detail(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in detail.items())


@audit.command("export")
@_filters
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="jsonl", show_default=True)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Into this file, not to stdout.")
def export(form: str, output: Path | None, **filters: Any) -> None:
    """All that matches, for a file or another program."""
    api = Api(current())
    written = 0
    with api.download("/api/audit/export", {"format": form, **without_empty(**filters)}) as answer:
        target = sys.stdout.buffer if output is None else _opened(output)
        try:
            for piece in answer.iter_content(64 * 1024):
                written += target.write(piece)
        except requests.exceptions.RequestException as error:
            raise unreachable(api.url, error) from None
        finally:
            target.flush()
            if output is not None:
                target.close()
    if output is not None and current().as_json:
        printing.as_json({"file": str(output), "format": form, "bytes": written})
    elif output is not None:
        printing.note(f"{written:,} bytes in {output}.")


def _opened(path: Path) -> Any:
    try:
        # 0600: it tells who did what from where.
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error.strerror}.", code="not_writable") from None


@audit.command("verify", short_help="Whether the record is whole.")
def verify() -> int:
    """Ask the server whether the record is whole; exit 1 when it is not, or when that cannot be told."""
    found = Api(current()).get("/api/audit/verify")
    if current().as_json:
        printing.as_json(found)
        return 0 if found["intact"] else REFUSED
    if found["intact"] is None:
        raise Trouble(f"Whether the record is intact cannot be told: {found.get('why')}", code="cannot_tell")
    if not found["intact"]:
        bad = found["first_bad"] or {}
        raise Trouble(f"The record is not intact from entry {bad.get('n')} on: {bad.get('why')}", code="not_intact")
    printing.say(f"The record is intact: {found['checked']:,} checked.")
    return 0


COMMANDS = {"audit": audit}
