"""What every command is made of: its class, the options all of them take, and the settings these fill."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Callable

import click

from agent.cli.exits import Trouble


@dataclass
class Settings:
    """What the options that every command takes say. `None` and "": not given."""

    as_json: bool = False
    url: str = ""
    token_file: str = ""


def settings_of(ctx: click.Context) -> Settings:
    return ctx.ensure_object(Settings)


def current() -> Settings:
    """The settings of the command that runs."""
    return settings_of(click.get_current_context())


def _note(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value:  # an option before the command and one behind it mean the same
            setattr(settings_of(ctx), name, value)
        return value

    return callback


def global_options(*, hide: bool = False) -> list[click.Parameter]:
    """`--json`, `--url` and `--token-file`; accepted before and behind the command's name."""
    return [
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            expose_value=False,
            callback=_note("as_json"),
            help="Print JSON, errors too.",
        ),
        click.Option(
            ["--url"],
            metavar="URL",
            expose_value=False,
            callback=_note("url"),
            hidden=hide,
            help="The control plane's address.",
        ),
        click.Option(
            ["--token-file"],
            metavar="FILE",
            expose_value=False,
            callback=_note("token_file"),
            hidden=hide,
            help="Use the token in FILE (- is stdin) instead of HYPRBOX_API_TOKEN or the saved login.",
        ),
    ]


class Leaf(click.Command):
    """A command that does something."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.extend(global_options(hide=True))


class NoCommand(click.UsageError):
    """Nothing but the name of a family was given. Click's versions differ in what becomes of that."""


class Group(click.Group):
    """Commands below one name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            raise NoCommand("Missing command.", ctx)
        return super().parse_args(ctx, args)


class Family(Group):
    """Commands about one sort of thing."""

    command_class = Leaf


def command(name: str, **options: Any) -> Callable[[Callable[..., Any]], Leaf]:
    """A command of its own, outside a family."""
    return click.command(name, cls=Leaf, **options)


def family(name: str, help: str) -> Family:
    return Family(name, help=help, params=global_options(hide=True))


def clean(value: Any) -> str:
    """One line of printable text. None is empty."""
    if value is None:
        return ""
    return "".join(char if char.isprintable() else " " if char in "\n\t" else "?" for char in str(value))


def confirmed(question: str) -> None:
    """Ask a person yes or no, on stderr. Raises `Trouble` for a no."""
    if not click.confirm(clean(question), err=True):
        raise Trouble("Nothing was done.", code="declined")


def ask_code(question: str) -> str:
    """A one-time code from whoever sits at the terminal; empty without a terminal, for a program, or without an answer."""
    context = click.get_current_context(silent=True)
    is_silent = context is None or settings_of(context).as_json
    if is_silent or not (is_tty(sys.stdin) and is_tty(sys.stderr)):
        return ""
    return str(click.prompt(question, hide_input=True, default="", show_default=False, err=True)).strip()


def is_tty(stream: Any | None) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except (ValueError, OSError):
        return False


def has_colours(stream: Any | None) -> bool:
    """Whether colours may be written to it: a terminal that has them, of someone who does not refuse them (no-color.org)."""
    return is_tty(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
