"""What admins do with presets of their own: create, save, archive, restore, duplicate. Each is audited and sealed."""

from __future__ import annotations

import json
from typing import Any

import yaml
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox.lib.actors import Actor, Capability, require, require_fresh
from hyprbox.lib.errors import InvalidInput
from presets import catalogue, selectors
from presets.documents import Preset, to_document
from presets.errors import PresetArchived, PresetChanged, PresetIsBuiltIn, PresetNameTaken, UnknownPreset
from presets.models import CustomPreset, PresetRevision
from presets.review import Review, review

MAX_NOTE = 200
# Addresses of pages that stand where a preset's name would.
RESERVED_NAMES = frozenset({"new", "pick", "import", "review"})


def create_preset(
    *, by: Actor, text: str | bytes, kind: str = "yaml", note: str = "", waive: bool = False, origin: str = ""
) -> PresetRevision:
    """A new preset from its document. Raises `InvalidInput` with the lint's findings, `PresetNameTaken`."""
    require(by, Capability.MANAGE_PRESETS)
    require_fresh(by)
    checked = _checked(text, kind, note, waive)
    preset = _preset(checked)
    if preset.name in RESERVED_NAMES:
        raise InvalidInput(fields={"name": [f"“{preset.name}” is the address of a page: choose another name."]})
    if catalogue.find(preset.name) is not None:
        raise PresetNameTaken(f"“{preset.name}” comes with HyprBox: choose another name.")
    with transaction.atomic():
        row = CustomPreset(name=preset.name, origin=origin[:63], created_by=by.name)
        try:
            with transaction.atomic():
                sealed.create(row)
        except IntegrityError:
            raise PresetNameTaken(f"There is a preset “{preset.name}” already.") from None
        detail = {"origin": origin} if origin else {}
        audit.record(Action.PRESET_CREATED, by=by, target=f"preset:{row.name}", detail=detail, row=row)
        return _add_revision(by, row, checked, kind, note, waive)


def save_revision(
    *,
    by: Actor,
    name: str,
    text: str | bytes,
    kind: str = "yaml",
    base: str = "",
    note: str = "",
    waive: bool = False,
) -> tuple[PresetRevision, bool]:
    """The preset's next revision, and whether there is one: the same text as before makes none.

    `base` is the SHA-256 or the number of the revision that was edited; when another one is in use by now nothing is
    saved. Raises `InvalidInput`, `PresetChanged`, `PresetArchived`, `PresetIsBuiltIn`, `UnknownPreset`, `RowTampered`.
    """
    require(by, Capability.MANAGE_PRESETS)
    require_fresh(by)
    if catalogue.find(name) is not None:
        raise PresetIsBuiltIn()
    selectors.find_custom(name)  # before the document is read: a name that is not there is the first thing to say
    checked = _checked(text, kind, note, waive)
    preset = _preset(checked)
    if preset.name != name:
        sentence = f"A preset keeps its name, {name}: duplicate it to have one that is called {preset.name}."
        raise InvalidInput(fields={"name": [sentence]})
    with transaction.atomic():
        row = _lock(name)
        if row.archived_at is not None:
            raise PresetArchived()
        head = selectors.revision_of(row, row.head)
        if base and base not in (head.sha256, str(head.number)):
            raise PresetChanged(detail={"revision": head.sha256, "number": head.number, "saved_by": head.author})
        if head.sha256 == preset.revision and head.source == _source(checked, kind):
            return head, False
        row.head = head.number + 1
        sealed.save(row, "head")
        audit.record(Action.PRESET_CHANGED, by=by, target=f"preset:{name}", detail={"head": row.head}, row=row)
        return _add_revision(by, row, checked, kind, note, waive), True


def duplicate_preset(*, by: Actor, name: str, new_name: str) -> PresetRevision:
    """A custom preset with the text of any preset, under another name."""
    require(by, Capability.MANAGE_PRESETS)
    require_fresh(by)
    text = renamed(selectors.find_entry(name), new_name)
    return create_preset(by=by, text=text, origin=name, waive=True, note=f"Duplicate of {name}")


@transaction.atomic
def archive_preset(*, by: Actor, name: str) -> CustomPreset:
    """Put a preset away: it cannot be run or changed until it is restored. Twice is once."""
    return _archive(by, name, is_archived=True, action=Action.PRESET_ARCHIVED)


@transaction.atomic
def restore_preset(*, by: Actor, name: str) -> CustomPreset:
    return _archive(by, name, is_archived=False, action=Action.PRESET_RESTORED)


def export_yaml(entry: selectors.Entry) -> str:
    """The document that import takes: as its author wrote it, or as its file stands."""
    if entry.is_builtin:
        return (catalogue.FOLDER / f"{entry.preset.name}.yaml").read_text()
    return entry.source


def renamed(entry: selectors.Entry, new_name: str) -> str:
    """A preset's YAML under another name, everything else as it is."""
    lines = export_yaml(entry).split("\n")
    at = next((number for number, line in enumerate(lines) if line.startswith("name:")), None)
    if at is None:
        return to_yaml({**to_document(entry.preset), "name": new_name})
    lines[at] = f"name: {new_name}"
    return "\n".join(lines)


def to_yaml(document: dict[str, Any]) -> str:
    """A document as YAML, its bash as blocks."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a person can read them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _checked(text: str | bytes, kind: str, note: str, waive: bool) -> Review:
    """Raises `InvalidInput` for a document with errors; with `waive` only for those that nobody may overrule."""
    if len(note) > MAX_NOTE or not note.isprintable():
        raise InvalidInput(fields={"note": [f"One line of at most {MAX_NOTE} characters."]})
    checked = review(text, kind=kind)
    if checked.errors_but(waived=waive):
        findings = [remark.as_dict() for remark in checked.remarks]
        raise InvalidInput(fields=checked.fields, detail={"findings": findings})
    return checked


def _preset(checked: Review) -> Preset:
    assert checked.preset is not None  # a document that cannot be read has errors that nobody may waive
    return checked.preset


def _source(checked: Review, kind: str) -> str:
    return checked.text if kind == "yaml" else to_yaml(to_document(_preset(checked)))


def _add_revision(by: Actor, row: CustomPreset, checked: Review, kind: str, note: str, waive: bool) -> PresetRevision:
    preset = _preset(checked)
    waived = sorted({remark.finding.code for remark in checked.errors}) if waive else []
    revision = sealed.create(
        PresetRevision(
            preset=row,
            number=row.head,
            document=json.dumps(to_document(preset), ensure_ascii=True, separators=(",", ":")),
            source=_source(checked, kind),
            sha256=preset.revision,
            author=by.name,
            note=note,
            waived=waived,
        )
    )
    detail = {"number": revision.number, "revision": revision.sha256, "note": note, "waived": ", ".join(waived)}
    told = {key: value for key, value in detail.items() if value}
    audit.record(Action.PRESET_REVISED, by=by, target=f"preset:{row.name}", detail=told, row=revision)
    return revision


def _lock(name: str) -> CustomPreset:
    row = sealed.lock(CustomPreset.objects.filter(name=name))
    if row is None:
        raise UnknownPreset(f"There is no preset “{name[:63]}”.")
    return row


def _archive(by: Actor, name: str, *, is_archived: bool, action: Action) -> CustomPreset:
    require(by, Capability.MANAGE_PRESETS)
    require_fresh(by)
    if catalogue.find(name) is not None:
        raise PresetIsBuiltIn()
    row = _lock(name)
    if (row.archived_at is not None) == is_archived:
        return row
    row.archived_at = _now() if is_archived else None
    sealed.save(row, "archived_at")
    audit.record(action, by=by, target=f"preset:{name}", row=row)
    return row


def _now() -> Any:
    """The database's time, as a value: it is sealed."""
    return CustomPreset.objects.values_list(Now(), flat=True)[:1].get()
