"""The preset document: what a preset is, the same in files, in the API, in import and in export.

Reading is strict: unknown and doubled keys, wrong types, sizes and defaults that do not fit their own
variable are refused, all at once, each under its key path.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from presets.declarations import read_variable, refuse_broken_text, refuse_unknown, variable_document, wrong
from presets.params import Variable
from presets.strictyaml import NotADocument, read_json, read_yaml

PARTS = ("check", "apply", "verify", "rollback")
RISKS = ("safe", "confirm", "dangerous")
MAX_DOCUMENT_BYTES = 2 * 1024 * 1024
MAX_SCRIPT_BYTES = 1024 * 1024
MAX_PART_BYTES = 512 * 1024
MAX_VARIABLES = 256
MAX_TIMEOUT_SECONDS = 24 * 3600
DEFAULT_TIMEOUT_SECONDS = 900

PRESET_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")
_CATEGORY = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SYSTEM = re.compile(r"[a-z][a-z0-9]*(-[0-9]+(\.[0-9]+)*)?")

_KEYS = frozenset(
    ("name", "title", "description", "category", "risk", "systems", "tested", "timeout_seconds", "variables", *PARTS)
)


@dataclass(frozen=True)
class Preset:
    """A checked preset. `revision` is the SHA-256 of its canonical form: the same text, the same revision.

    `systems` are those on which it is expected to work, none meaning any Linux; `tested` those on which its tests ran it.
    """

    name: str
    title: str
    description: str
    category: str
    risk: str
    apply: str
    systems: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    variables: tuple[Variable, ...] = ()
    check: str | None = None
    verify: str | None = None
    rollback: str | None = None
    revision: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def parts(self) -> dict[str, str]:
        """The texts that are there, by name, in the order in which they run."""
        texts = {"check": self.check, "apply": self.apply, "verify": self.verify, "rollback": self.rollback}
        return {name: text for name, text in texts.items() if text is not None}


class PresetError(ValueError):
    """This preset document cannot be used."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self.fields = dict(fields)
        lines = (f"{path}: {sentence}" for path, sentences in self.fields.items() for sentence in sentences)
        super().__init__("\n".join(lines))


def load_yaml(text: str | bytes) -> Preset:
    """Read one preset from YAML. Raises PresetError."""
    return _load(text, read_yaml)


def load_json(text: str | bytes) -> Preset:
    """Read one preset from JSON. Raises PresetError."""
    return _load(text, read_json)


def _load(text: str | bytes, read: Any) -> Preset:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise PresetError({"document": [f"It has {len(raw):,} bytes; {MAX_DOCUMENT_BYTES:,} are allowed."]})
    try:
        data = read(raw)
    except NotADocument as error:
        raise PresetError({"document": [str(error)]}) from error
    return parse(data)


def parse(data: object) -> Preset:
    """Check a document that was already read into plain values. Raises PresetError naming every bad key."""
    if not isinstance(data, dict):
        raise PresetError({"document": ["A preset is a mapping of keys to values."]})
    return _Reader(data).preset()


def to_document(preset: Preset) -> dict[str, Any]:
    """The plain form for JSON and YAML, complete and in the order of the keys; `parse` reads it back."""
    document: dict[str, Any] = {
        "name": preset.name,
        "title": preset.title,
        "description": preset.description,
        "category": preset.category,
        "risk": preset.risk,
        "systems": list(preset.systems),
        "tested": list(preset.tested),
        "timeout_seconds": preset.timeout_seconds,
        "variables": [variable_document(variable) for variable in preset.variables],
    }
    document.update(preset.parts)
    return document


def _revision(preset: Preset) -> str:
    canonical = json.dumps(to_document(preset), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


class _Reader:
    """Reads one document, collecting every complaint under its key path."""

    def __init__(self, data: dict[object, object]) -> None:
        self.data = data
        self.wrong: dict[str, list[str]] = {}
        self.warnings: list[str] = []

    def complain(self, path: str, sentence: str) -> None:
        self.wrong.setdefault(path, []).append(sentence)

    def preset(self) -> Preset:
        refuse_unknown(self.data, _KEYS, "", self.complain)
        fields: dict[str, Any] = {
            "name": self.matching("name", PRESET_NAME, "2 to 63 characters: a to z first, then a-z, 0-9 and dashes"),
            "title": self.line("title", 120),
            "description": self.text("description", 2000),
            "category": self.matching("category", _CATEGORY, "at most 32 characters of a-z, 0-9 and dashes"),
            "risk": self.risk(),
            "systems": self.systems("systems", "empty means any Linux"),
            "tested": self.tested(),
            "timeout_seconds": self.timeout(),
            "variables": self.variables(),
        }
        fields.update({part: self.part(part) for part in PARTS})
        size = sum(len((fields[part] or "").encode("utf-8", "surrogatepass")) for part in PARTS)
        if size > MAX_SCRIPT_BYTES:
            self.complain("document", f"Its parts have {size:,} bytes; a script has at most {MAX_SCRIPT_BYTES:,}.")
        if self.wrong:
            raise PresetError(self.wrong)
        preset = Preset(**fields, warnings=tuple(self.warnings))
        return Preset(**fields, warnings=preset.warnings, revision=_revision(preset))

    def text(self, key: str, limit: int) -> str:
        value = self.data.get(key)
        if not isinstance(value, str) or not value.strip():
            self.complain(key, "This is required and is a text.")
            return ""
        refuse_broken_text(value, key, self.complain)
        if len(value) > limit:
            self.complain(key, f"It has {len(value)} characters; {limit} are allowed.")
        return value

    def line(self, key: str, limit: int) -> str:
        value = self.text(key, limit)
        if not value.isprintable():
            # It stands in the script's header: a line break there would end the comment.
            self.complain(key, "This is one line of printable text.")
        return value

    def matching(self, key: str, form: re.Pattern[str], wanted: str) -> str:
        value = self.data.get(key)
        if not isinstance(value, str) or not form.fullmatch(value):
            self.complain(key, f"{wrong(value)}: {wanted}.")
            return ""
        return value

    def risk(self) -> str:
        value = self.data.get("risk")
        if not isinstance(value, str) or value not in RISKS:
            self.complain("risk", f"{wrong(value)}: one of {', '.join(RISKS)}.")
            return ""
        return value

    def systems(self, key: str, empty: str) -> tuple[str, ...]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or len(value) > 50:
            self.complain(key, f"This is a list of at most 50 systems; {empty}.")
            return ()
        for position, system in enumerate(value):
            if not isinstance(system, str) or not _SYSTEM.fullmatch(system) or len(system) > 40:
                self.complain(f"{key}[{position}]", "A system is written like debian-12 or ubuntu-24.04.")
        return tuple(value)

    def tested(self) -> tuple[str, ...]:
        tested = self.systems("tested", "empty means that nobody tried it")
        systems = self.data.get("systems")
        if systems and isinstance(systems, list):
            for position, system in enumerate(tested):
                if system not in systems:
                    self.complain(f"tested[{position}]", f"{system} is not among the systems of this preset.")
        return tested

    def timeout(self) -> int:
        value = self.data.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TIMEOUT_SECONDS:
            self.complain("timeout_seconds", f"This is a whole number from 1 to {MAX_TIMEOUT_SECONDS}.")
            return 0
        return value

    def part(self, key: str) -> str | None:
        value = self.data.get(key)
        if value is None and key != "apply":
            return None
        if not isinstance(value, str) or not value.strip():
            self.complain(
                key, "This is required and is bash." if key == "apply" else "This is bash; leave it out if empty."
            )
            return None
        refuse_broken_text(value, key, self.complain)
        if len(value.encode("utf-8", "surrogatepass")) > MAX_PART_BYTES:
            self.complain(key, f"It is longer than {MAX_PART_BYTES:,} bytes.")
        return self.unix_lines(key, value)

    def unix_lines(self, key: str, value: str) -> str:
        converted = value.count("\r\n")
        if converted:
            self.warnings.append(f"{key}: {converted} Windows line ends (CRLF) were converted to LF.")
            value = value.replace("\r\n", "\n")
        if "\r" in value:
            self.complain(key, "It has a carriage return in the middle of a line, which bash takes as part of a word.")
        return value

    def variables(self) -> tuple[Variable, ...]:
        value = self.data.get("variables", [])
        if not isinstance(value, list) or len(value) > MAX_VARIABLES:
            self.complain("variables", f"This is a list of at most {MAX_VARIABLES} variables.")
            return ()
        found = [read_variable(entry, f"variables[{position}]", self.complain) for position, entry in enumerate(value)]
        names = [variable.name for variable in found if variable and variable.name]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.complain("variables", f"{name} is declared twice.")
        return tuple(variable for variable in found if variable)
