"""What can go wrong with presets."""

from __future__ import annotations

from hyprbox.lib.errors import Conflict, NotFound


class UnknownPreset(NotFound):
    """There is no preset by that name."""


class UnknownRevision(NotFound):
    """This preset has no such revision."""


class PresetNameTaken(Conflict):
    """There is a preset by that name already."""


class PresetIsBuiltIn(Conflict):
    """This preset comes with HyprBox and cannot be changed: duplicate it under another name."""


class PresetArchived(Conflict):
    """This preset is archived: restore it before you use it again."""


class PresetChanged(Conflict):
    """Somebody else saved this preset meanwhile: compare your text with theirs, then save on top of it."""
