"""The presets that come with HyprBox, read from the files beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from presets.documents import Preset, PresetError, load_yaml

FOLDER = Path(__file__).parent


@lru_cache(maxsize=1)
def builtin() -> Mapping[str, Preset]:
    """Every built-in preset by name, in order of the names; read once per process.

    Raises PresetError, naming the file, for one that cannot be used.
    """
    return MappingProxyType({preset.name: preset for preset in map(_read, sorted(FOLDER.glob("*.yaml")))})


def find(name: str) -> Preset | None:
    return builtin().get(name)


def _read(path: Path) -> Preset:
    try:
        preset = load_yaml(path.read_bytes())
    except PresetError as error:
        raise PresetError({f"{path.name} {key}": sentences for key, sentences in error.fields.items()}) from error
    if preset.name != path.stem:
        raise PresetError({path.name: [f"The preset in this file is named {preset.name}."]})
    return preset
