"""Finding presets: the built-in ones from their files, the custom ones from the database, by one name.

A custom preset is checked against its seal at every use, so a row that was edited in the database raises `RowTampered`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from django.db.models import F

from audit import sealed
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.rowmac import RowTampered
from presets import catalogue
from presets.documents import Preset, load_json
from presets.errors import PresetArchived, PresetIsBuiltIn, UnknownPreset, UnknownRevision
from presets.models import CustomPreset, PresetRevision


@dataclass(frozen=True, slots=True)
class Entry:
    """A preset and where it comes from. `number`, `saved_by` and `saved_at` are of a custom preset's revision in use."""

    preset: Preset
    is_builtin: bool = True
    number: int = 0
    saved_by: str = ""
    saved_at: datetime | None = None
    origin: str = ""
    is_archived: bool = False
    source: str = ""


def find_preset(name: str) -> Preset:
    """The preset that a job by this name is rendered from. Raises `UnknownPreset`, `PresetArchived`, `RowTampered`."""
    builtin = catalogue.find(name)
    if builtin is not None:
        return builtin
    entry = find_entry(name)
    if entry.is_archived:
        raise PresetArchived()
    return entry.preset


def find_entry(name: str) -> Entry:
    """A preset by name, archived or not. Raises `UnknownPreset`, `RowTampered`."""
    builtin = catalogue.find(name)
    if builtin is not None:
        return Entry(builtin)
    row = sealed.first(CustomPreset.objects.filter(name=_clean(name)))
    if row is None:
        raise UnknownPreset(f"There is no preset “{name[:63]}”.")
    return _entry(row, revision_of(row, row.head))


def find_custom(name: str) -> CustomPreset:
    """The row of a custom preset, checked. Raises `UnknownPreset`, `PresetIsBuiltIn`, `RowTampered`."""
    if catalogue.find(name) is not None:
        raise PresetIsBuiltIn()
    row = sealed.first(CustomPreset.objects.filter(name=_clean(name)))
    if row is None:
        raise UnknownPreset(f"There is no preset “{name[:63]}”.")
    return row


def revision_of(row: CustomPreset, number: int) -> PresetRevision:
    """Raises `UnknownRevision`, `RowTampered`."""
    revision = sealed.first(PresetRevision.objects.filter(preset=row, number=number)) if 0 < number < 2**31 else None
    if revision is None:
        raise UnknownRevision()
    return revision


def list_presets() -> list[Preset]:
    """All that can be run, by category and title."""
    return [entry.preset for entry in list_entries() if not entry.is_archived]


def list_entries(*, archived: bool = False) -> list[Entry]:
    """All of them by category and title, with `archived` those that are put away as well. Tampered ones are left out."""
    entries = [Entry(preset) for preset in catalogue.builtin().values()]
    rows = sealed.with_newest(CustomPreset.objects.exclude(name__in=list(catalogue.builtin())))
    kept = [row for row in rows if (archived or row.archived_at is None) and _is_sound(row)]
    heads = sealed.with_newest(PresetRevision.objects.filter(preset__in=kept, number=F("preset__head")))
    in_use = {revision.preset_id: revision for revision in heads}
    entries += [_entry(row, in_use[row.pk]) for row in kept if row.pk in in_use and _is_sound(in_use[row.pk])]
    return sorted(entries, key=lambda entry: (entry.preset.category, entry.preset.title))


def tampered_names() -> list[str]:
    """Custom presets that are not used, because their rows were changed by something else than HyprBox."""
    sound = {entry.preset.name for entry in list_entries(archived=True)}
    return [name for name in CustomPreset.objects.values_list("name", flat=True).order_by("name") if name not in sound]


def list_revisions(*, by: Actor, name: str) -> list[PresetRevision]:
    """All revisions of a custom preset, newest first, without their texts."""
    require(by, Capability.VIEW_FLEET)
    row = find_custom(name)
    return list(PresetRevision.objects.filter(preset=row).defer("document", "source").order_by("-number"))


def find_revision(*, by: Actor, name: str, number: int) -> PresetRevision:
    require(by, Capability.VIEW_FLEET)
    return revision_of(find_custom(name), number)


def diff(*, by: Actor, name: str, old: int, new: int) -> list[str]:
    """What changed from one revision's text to another's: the lines of a unified diff, empty when nothing did."""
    before, after = (find_revision(by=by, name=name, number=number) for number in (old, new))
    texts = before.source.splitlines(), after.source.splitlines()
    return list(difflib.unified_diff(*texts, fromfile=f"revision {old}", tofile=f"revision {new}", lineterm=""))


def revision_number(name: str, sha256: str) -> int | None:
    """The number of a custom preset's revision, newest first; None for what is built in or not known any more."""
    if catalogue.find(name) is not None:
        return None
    rows = PresetRevision.objects.filter(preset__name=name, sha256=sha256).order_by("-number")
    return rows.values_list("number", flat=True).first()


@lru_cache(maxsize=512)
def read_document(document: str) -> Preset:
    """A stored document. It was checked when it was saved; a later release that no longer reads it raises PresetError."""
    return load_json(document)


def _entry(row: CustomPreset, revision: PresetRevision) -> Entry:
    return Entry(
        preset=read_document(revision.document),
        is_builtin=False,
        number=revision.number,
        saved_by=revision.author,
        saved_at=revision.created_at,
        origin=row.origin,
        is_archived=row.archived_at is not None,
        source=revision.source,
    )


def _is_sound(row: CustomPreset | PresetRevision) -> bool:
    try:
        sealed.check(row)
    except RowTampered:
        return False
    return True


def _clean(name: str) -> str:
    return name.replace("\0", "")[:63]
