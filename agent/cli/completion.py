"""`hyprbox completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from agent.cli import printing
from agent.cli.base import command, current

VARIABLE = "_HYPRBOX_COMPLETE"


@command("completion", short_help="The script that teaches your shell to complete.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that teaches SHELL to complete hyprbox.

    \b
    bash:  eval "$(hyprbox completion bash)"          in ~/.bashrc
    zsh:   eval "$(hyprbox completion zsh)"           in ~/.zshrc
    fish:  hyprbox completion fish > ~/.config/fish/completions/hyprbox.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "hyprbox", VARIABLE).source()
    if current().as_json:
        printing.as_json({"shell": shell, "script": script})
    else:
        printing.write(script + "\n")


COMMANDS = {"completion": completion}
