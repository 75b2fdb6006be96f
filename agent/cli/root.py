"""The program itself: its commands by name, the options that all of them take, and how it ends."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from agent import __version__
from agent.cli.base import Group, NoCommand, Settings, clean, global_options
from agent.cli.exits import INTERRUPTED, READER_GONE, REFUSED, USAGE, Trouble

# name -> (module, what it does in a few words): `--help` and completion need no more than this.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "login": ("login", "Log in and save the login."),
    "logout": ("login", "End the saved login."),
    "status": ("status", "How the fleet is."),
    "nodes": ("nodes", "The servers."),
    "preset": ("presets", "What can be run on servers, and running it."),
    "jobs": ("jobs", "What was run: follow, cancel, retry, output."),
    "token": ("tokens", "Tokens with which servers enrol."),
    "audit": ("audit", "Who did what, and whether the record is whole."),
    "open": ("browse", "A page of the dashboard."),
    "completion": ("completion", "The script that teaches your shell to complete."),
}


class Root(Group):
    """Loads the module of a command when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"agent.cli.{COMMANDS[name][0]}")
        command: click.Command = module.COMMANDS[name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=words) for name, (_, words) in COMMANDS.items()]
        named = [item for item in found if item.value.startswith(incomplete)]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]


@click.command(cls=Root, params=global_options(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hyprbox")
def hyprbox() -> None:
    """HyprBox from the command line: servers, presets and jobs.

    The control plane is the one of --url, else of HYPRBOX_API_URL, else of the saved login.
    """


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `hyprbox`; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given[: given.index("--")] if "--" in given else "--json" in given
    settings = Settings()
    try:
        returned = hyprbox.main(given, prog_name="hyprbox", standalone_mode=False, obj=settings)
        code = returned if isinstance(returned, int) else 0
        sys.stdout.flush()
    except Trouble as error:
        return _complain(error, as_json)
    except click.Abort:
        return _complain(Trouble("Nothing was done.", code="aborted", exit_code=INTERRUPTED), as_json)
    except click.ClickException as error:
        if isinstance(error, NoCommand) and error.ctx and not as_json:
            print(error.ctx.get_help(), file=sys.stderr)
            return USAGE
        return _complain(Trouble(_with_hint(error), code="usage", exit_code=USAGE), as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has seen enough; click makes a SystemExit of that. Python would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return code


def _with_hint(error: click.ClickException) -> str:
    message = error.format_message().rstrip()
    message = message if message.endswith((".", "?", ")")) else message + "."
    context = getattr(error, "ctx", None)
    return f"{message} See: {context.command_path} --help" if context is not None else message


def _complain(error: Trouble, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": error.as_dict()}, ensure_ascii=False), file=sys.stderr)
    else:
        for sentence in error.sentences:
            print(f"hyprbox: {clean(sentence)}", file=sys.stderr)
    return error.exit_code or REFUSED
