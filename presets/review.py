"""Everything that can be said about the text of a preset document: what keeps it from being saved, and what is only advised.

The editor, the API, `manage.py preset lint` and the verbs that save all ask here, so that they agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from presets import lint, shelltools
from presets.documents import Preset, PresetError, load_json, load_yaml
from presets.lint import ERROR, WARNING, Finding
from presets.places import Places

_PLACE = re.compile(r"line (\d+), column (\d+)")
# Without these the text is not a script at all: no one may wave them through.
NEVER_WAIVED = frozenset({"document", "syntax", "structure"})


@dataclass(frozen=True, slots=True)
class Remark:
    """One finding, and where it is in the document: lines and columns from 1, or 0 where it has no place."""

    finding: Finding
    line: int = 0
    column: int = 0

    @property
    def where(self) -> str:
        """Such as `apply, line 3, column 7`; inside the part, because that is what the author counts."""
        found = self.finding
        if found.line:
            return f"{found.part}, line {found.line}, column {found.column}"
        return f"line {self.line}" if self.line else ""

    @property
    def sentence(self) -> str:
        return f"{self.where}: {self.finding.message}" if self.where else self.finding.message

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self.finding), "document_line": self.line, "document_column": self.column}


@dataclass(frozen=True, slots=True)
class Review:
    """A document as it was read. `preset` is None when it is none; `text` has plain line ends."""

    text: str
    preset: Preset | None
    remarks: tuple[Remark, ...]

    def of(self, severity: str) -> list[Remark]:
        return [remark for remark in self.remarks if remark.finding.severity == severity]

    @property
    def errors(self) -> list[Remark]:
        return self.of(ERROR)

    def errors_but(self, *, waived: bool) -> list[Remark]:
        """What keeps it from being saved: with `waived` only what nobody may overrule."""
        return [each for each in self.errors if not waived or each.finding.code in NEVER_WAIVED]

    @property
    def fields(self) -> dict[str, list[str]]:
        """The errors as an answer names them: by key of the document."""
        fields: dict[str, list[str]] = {}
        for remark in self.errors:
            sentence = remark.finding.message
            if remark.finding.line:
                sentence = f"Line {remark.finding.line}, column {remark.finding.column}: {sentence}"
            fields.setdefault(remark.finding.part or "document", []).append(sentence)
        return fields


def review(text: str | bytes, *, kind: str = "yaml", with_tools: bool = True) -> Review:
    """Read and check one document. `kind` is yaml or json; without tools neither bash nor ShellCheck is asked."""
    text, broken = _as_text(text)
    plain = text.replace("\r\n", "\n")
    remarks = list(_line_ends(text, plain))
    places = Places(plain) if kind == "yaml" else None
    try:
        preset = (load_yaml if kind == "yaml" else load_json)(broken or plain)
    except PresetError as error:
        return Review(plain, None, (*remarks, *_complaints(error, places)))
    remarks += [Remark(Finding("", 0, 0, WARNING, "crlf", warning)) for warning in preset.warnings]
    found = shelltools.check(preset) if with_tools else (*lint.lint(preset), *lint.advice(preset))
    remarks += [Remark(each, *_place(each, places)) for each in _sorted(preset, found)]
    return Review(plain, preset, tuple(remarks))


def _as_text(given: str | bytes) -> tuple[str, bytes]:
    """The text; for what is not UTF-8 a stand-in, and the bytes, so that the reader can say what is wrong with them."""
    if isinstance(given, str):
        return given, b""
    try:
        return given.decode(), b""
    except UnicodeDecodeError:
        return given.decode(errors="replace"), given


def _line_ends(text: str, plain: str) -> Iterable[Remark]:
    count = len(text) - len(plain)
    if count:
        sentence = (
            f"{count} Windows line ends (CRLF) were converted to LF, because bash takes the CR as part of a word."
        )
        yield Remark(Finding("", 0, 0, WARNING, "crlf", sentence), text[: text.index("\r\n")].count("\n") + 1)


def _complaints(error: PresetError, places: Places | None) -> Iterable[Remark]:
    for path, sentences in error.fields.items():
        for sentence in sentences:
            line, column = places.of_path(path) if places else (0, 0)
            if path == "document" and (match := _PLACE.search(sentence)):
                line, column = int(match[1]), int(match[2])
            yield Remark(Finding(path, 0, 0, ERROR, "document", sentence), line, column)


def _place(finding: Finding, places: Places | None) -> tuple[int, int]:
    if places is None or not finding.part:
        return 0, 0
    return places.in_part(finding.part, finding.line, finding.column)


def _sorted(preset: Preset, found: Iterable[Finding]) -> list[Finding]:
    """In the order of the text; what two tools say of one place stands together."""
    order = ["", *preset.parts]
    return sorted(set(found), key=lambda each: (order.index(each.part), each.line, each.column, each.code))
