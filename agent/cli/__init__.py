"""hyprbox: the command line for operators. What a command needs is imported when that command runs."""

from __future__ import annotations

from agent.cli.root import main

__all__ = ["main"]
