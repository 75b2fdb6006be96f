"""`hyprbox audit`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import requests

from agent.cli import printing
from agent.cli.api import Api, unreachable
from agent.cli.base import current, family
from agent.cli.exits import REFUSED, USAGE, Trouble, UsageTrouble
from agent.cli.options import SINCE, chosen_limit, limits, without_empty
from agent.cli.printing import Column
from agent.cli.sinks import Sink

VERIFY_SECONDS = 600.0  # 50,000 entries a second, and there may be millions
audit = family("audit", "Who did what, and whether the record is whole.")


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


@audit.command("list", short_help="What was done, the newest first.")
@_filters
@limits
def list_events(limit: int | None, everything: bool, **filters: Any) -> None:
    """What was done, the newest first: for admins all of it, for operators what they did themselves."""
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


@audit.command("export", short_help="All that matches, for a file or another program.")
@_filters
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), help="Lines of JSON without it.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Into this file, not to stdout.")
def export(form: str | None, output: Path | None, **filters: Any) -> None:
    """All that matches, newest first, for a file or another program: for operators what they did themselves.

    With --json on stdout: one array.
    """
    as_array = current().as_json and output is None
    if as_array and form == "csv":
        raise UsageTrouble("Choose one of --json and --format csv.")
    form = form or "jsonl"
    api = Api(current())
    with api.download("/api/audit/export", {"format": form, **without_empty(**filters)}) as answer:
        pieces = _pieces(api, answer)
        if output is not None:
            written = _save(output, pieces)
        elif as_array:
            _print_array(pieces)
        else:
            _print(pieces)
    if output is not None and current().as_json:
        printing.as_json({"file": str(output), "format": form, "bytes": written})
    elif output is not None:
        printing.note(f"{written:,} bytes in {output}.")


def _pieces(api: Api, answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(64 * 1024)
    except requests.exceptions.RequestException as error:
        raise unreachable(api.url, error) from None


def _print(pieces: Iterator[bytes]) -> None:
    sink = Sink()  # on a terminal without what commands it: an entry may quote anything
    for piece in pieces:
        sink.write("stdout", piece)
    sink.close()


def _print_array(pieces: Iterator[bytes]) -> None:
    """The lines as one document, however long it is."""
    before, rest = "[\n", b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            printing.write(before + "  " + line.decode("utf-8", "replace"))
            before = ",\n"
    printing.write("[]\n" if before == "[\n" else "\n]\n")


def _save(path: Path, pieces: Iterator[bytes]) -> int:
    """Whole or not at all; how many bytes it has. 0600: it tells who did what from where."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            written = sum(file.write(piece) for piece in pieces)
        os.replace(aside, path)
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error.strerror}.", code="not_writable") from None
    finally:
        aside.unlink(missing_ok=True)
    return written


@audit.command("verify", short_help="Whether the record is whole.")
def verify() -> int:
    """Ask the server whether the record is whole: exit code 0 intact, 1 tampered with, 2 when that cannot be told."""
    found = Api(current()).get("/api/audit/verify", timeout=VERIFY_SECONDS)
    if current().as_json:
        printing.as_json(found)
    else:
        _tell(found)
    codes: dict[Any, int] = {True: 0, False: REFUSED}
    return codes.get(found["intact"], USAGE)


def _tell(found: dict[str, Any]) -> None:
    """Good news to stdout, bad ones to stderr."""
    head, read = found["head"], f"{found['checked']:,} entries were read"
    if found["intact"]:
        printing.say(f"The record is intact: {read}, up to number {head['n']:,}.")
        printing.facts(
            {
                "Head": head["hash"],
                "Checkpoints": f"{found['checkpoints']:,}, the last at {found['signed_to']:,}",
                "Not chained yet": found["pending"] or None,
            }
        )
    elif found["intact"] is None:
        printing.complain(f"Whether the record is intact cannot be told: {_sentence(found['why'])} {read}.")
    else:
        bad = found["first_bad"] or {}
        kind = f" ({bad['kind']})" if bad.get("kind") else ""
        printing.complain(f"The record is not intact from entry {bad.get('n')} on{kind}: {_sentence(bad.get('why'))}")


def _sentence(text: Any) -> str:
    return f"{str(text or 'the server does not say why').strip().rstrip('.')}."


COMMANDS = {"audit": audit}
