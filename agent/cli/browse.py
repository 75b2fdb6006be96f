"""`hyprbox open`."""

from __future__ import annotations

import os
import sys
import webbrowser

import click

from agent.cli import printing
from agent.cli.addresses import PAGES, THINGS, page_of
from agent.cli.api import Api
from agent.cli.base import command, current, is_tty


def _complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in (*PAGES, *THINGS) if name.startswith(incomplete)]


@command("open", short_help="A page of the dashboard.")
@click.argument("thing", default="overview", shell_complete=_complete)
@click.argument("name", default="")
@click.option("--print", "only_print", is_flag=True, help="Only print the address.")
def open_page(thing: str, name: str, only_print: bool) -> None:
    """Print the address of a page of the dashboard and open it where there is a browser.

    THING is overview, nodes, live, presets, jobs, tokens or audit; or node, preset or job with the NAME of one.
    """
    url = Api(current()).url + page_of(thing, name)
    if current().as_json:
        printing.as_json({"url": url})
        return
    printing.say(url)
    has_screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if is_tty(sys.stdout) and has_screen and not only_print:
        webbrowser.open(url)


COMMANDS = {"open": open_page}
