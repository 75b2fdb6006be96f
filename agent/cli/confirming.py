"""What a person is asked before something runs, and what a program has to say instead."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from agent.cli import printing
from agent.cli.base import clean, confirmed, current, is_tty
from agent.cli.exits import UsageTrouble
from agent.cli.targets import named

MANY_SERVERS = 10  # on more of them the number has to be typed
HERE = "this machine"


def can_ask() -> bool:
    return is_tty(sys.stdin) and is_tty(sys.stderr) and not current().as_json


def confirm_run(
    preset: str, risk: str, node_ids: Sequence[str], *, confirm: str, yes: bool, warnings: Sequence[str] = ()
) -> str:
    """Warn, and ask where the risk or the number of servers wants it; returns what the API is to be confirmed with.

    No `node_ids`: it is for this machine. Raises `UsageTrouble` where nobody can be asked, `click.Abort`, `Trouble` for a no.
    """
    for warning in warnings:
        printing.warn(warning)
    where = named(list(node_ids)) if node_ids else HERE
    if confirm and confirm != preset:
        raise UsageTrouble(f"--confirm {confirm} is not the preset's name: --confirm {preset}.", code="confirm")
    if risk == "dangerous":
        return confirm or _typed_name(preset, where)
    if len(node_ids) > MANY_SERVERS:
        if not (yes or confirm):
            _typed_number(preset, where, len(node_ids))
        return preset
    if (risk == "confirm" or warnings) and not yes and not confirm and can_ask():
        confirmed(f"Run {preset} on {where}?")
    return confirm


def confirm_retry(preset: str, failed: int, *, yes: bool) -> str:
    """The same for those jobs of a batch that failed, as far as they were not retried since."""
    if failed <= MANY_SERVERS:
        return ""
    if not yes:
        _typed_number(preset, f"{failed:,} servers again", failed)
    return preset


def _typed_name(preset: str, where: str) -> str:
    if not can_ask():
        raise UsageTrouble(
            f"{preset} is dangerous: confirm it with --confirm {preset}. It would run on {where}.", code="confirm"
        )
    question = f"{preset} is dangerous and would run on {where}. Type its name to go on"
    if click.prompt(clean(question), err=True).strip() != preset:
        raise UsageTrouble("That is not its name. Nothing was run.", code="confirm")
    return preset


def _typed_number(preset: str, where: str, number: int) -> None:
    if not can_ask():
        raise UsageTrouble(
            f"{preset} would run on {where}, and nobody can be asked here: add --yes, or --check for a dry run.",
            code="confirm",
        )
    question = f"{preset} would run on {where}. Type how many servers that are to go on"
    if click.prompt(clean(question), err=True).strip().replace(",", "") != str(number):
        raise UsageTrouble("That is not how many. Nothing was run.", code="confirm")
