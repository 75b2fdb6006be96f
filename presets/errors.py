"""What can go wrong with presets."""

from __future__ import annotations

from hyprbox.lib.errors import NotFound


class UnknownPreset(NotFound):
    """There is no preset by that name."""
