"""hyprbox: the command line for operators. For now it tells its version; the commands come with a later release."""

from __future__ import annotations

import click

from agent import __version__


@click.group()
@click.version_option(__version__, prog_name="hyprbox")
def main() -> None:
    """HyprBox from the command line. This release has no commands yet: use the dashboard or the HTTP API."""
