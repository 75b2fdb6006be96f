"""Finding presets."""

from __future__ import annotations

from presets import catalogue
from presets.documents import Preset
from presets.errors import UnknownPreset


def find_preset(name: str) -> Preset:
    """Raises `UnknownPreset`."""
    preset = catalogue.find(name)
    if preset is None:
        raise UnknownPreset(f"There is no preset “{name[:63]}”.")
    return preset


def list_presets() -> list[Preset]:
    """All of them, by category and title."""
    return sorted(catalogue.builtin().values(), key=lambda preset: (preset.category, preset.title))
