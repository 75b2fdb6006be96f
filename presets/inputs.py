"""A preset's variables as a typed form, and what the form's values give. Pure: pages of two apps use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from presets import params, rendering
from presets.documents import Preset
from presets.params import Variable

TYPE_WORDS = {
    "string": "text",
    "int": "whole number",
    "bool": "yes or no",
    "enum": "choice",
    "port": "port",
    "hostname": "host name",
    "ip": "IP address",
    "cidr": "network",
    "path": "path",
    "identifier": "name",
    "url": "address",
    "duration": "duration",
    "secret_ref": "secret, by pointer",
}
SENT = "sent"  # a form that was sent names it, because an unticked box sends nothing


@dataclass(frozen=True, slots=True)
class Input:
    """One field of the form, with its present text and what is wrong with it."""

    variable: Variable
    value: str
    errors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.variable.name

    @property
    def kind(self) -> str:
        """check, select, area or line."""
        if self.variable.type == "bool":
            return "check"
        if self.variable.type == "enum":
            return "select"
        is_long = self.variable.type == "string" and (
            self.variable.max_length is None or self.variable.max_length > 200
        )
        return "area" if is_long and "\n" in (self.value or self.variable.default or "") else "line"

    @property
    def type_words(self) -> str:
        words = TYPE_WORDS[self.variable.type]
        return words if self.variable.required else f"{words}, optional"

    @property
    def is_checked(self) -> bool:
        return self.value == "true"

    @property
    def is_number(self) -> bool:
        return self.variable.type in ("int", "port")

    @property
    def limits(self) -> str:
        """What the value must stay within, in words; empty when nothing limits it."""
        low, high = self.variable.min, self.variable.max
        if low is None and high is None:
            return ""
        show = params.seconds_in_words if self.variable.type == "duration" else str
        if low is not None and high is not None:
            return f"{show(low)} to {show(high)}."
        return f"At least {show(low)}." if low is not None else f"At most {show(high or 0)}."


@dataclass(frozen=True, slots=True)
class Preview:
    """The form and the script that its values give. Without errors `script` is exactly what would run."""

    preset: Preset
    inputs: tuple[Input, ...]
    script: str
    sha256: str = ""
    warnings: tuple[str, ...] = ()
    other_errors: tuple[str, ...] = ()
    bad_lines: tuple[int, ...] = field(default=())

    @property
    def is_valid(self) -> bool:
        return not self.error_count

    @property
    def error_count(self) -> int:
        return sum(bool(item.errors) for item in self.inputs) + len(self.other_errors)

    @property
    def values(self) -> dict[str, str]:
        return {item.name: item.value for item in self.inputs}

    @property
    def parts(self) -> list[tuple[str, int]]:
        """(part, the line of the script where its function begins)."""
        lines = self.script.split("\n")
        return [(part, lines.index(f"hb_{part}() {{") + 1) for part in self.preset.parts]


def read_values(preset: Preset, data: Mapping[str, str]) -> dict[str, str]:
    """The text of each variable out of a sent form, or the defaults when `data` is not a sent form."""
    if SENT not in data:
        return {each.name: data.get(each.name, default_text(each)) for each in preset.variables}
    return {each.name: _sent(each, data) for each in preset.variables}


def _sent(variable: Variable, data: Mapping[str, str]) -> str:
    if variable.type == "bool":
        return "true" if data.get(variable.name) else "false"
    # Browsers send line ends as CRLF.
    return data.get(variable.name, "").replace("\r\n", "\n")


def default_text(variable: Variable) -> str:
    if variable.default is None:
        return "false" if variable.type == "bool" else ""
    return params.seconds_in_words(int(variable.default)) if variable.type == "duration" else variable.default


def preview(preset: Preset, values: Mapping[str, str], *, is_untouched: bool = False) -> Preview:
    """Render the values, or show with each bad one what is wrong with it and on which line it stands.

    `is_untouched`: nobody has typed yet, so what is merely still empty is not called wrong.
    """
    given = {each.name: values.get(each.name, "") for each in preset.variables}
    try:
        rendered = rendering.render(preset, given)
    except params.InvalidVariables as error:
        fields = {name: found for name, found in error.fields.items() if not is_untouched or given.get(name)}
        return _wrong(preset, given, fields)
    inputs = tuple(Input(each, given[each.name]) for each in preset.variables)
    return Preview(preset, inputs, rendered.text, rendered.sha256, rendered.warnings)


def _shown(variable: Variable, text: str) -> str:
    """The value as it would stand in the script, or as it was typed."""
    try:
        return params.check_value(variable, text)
    except params.InvalidValue:
        return text.replace("\0", "�")


def _wrong(preset: Preset, given: Mapping[str, str], fields: Mapping[str, list[str]]) -> Preview:
    inputs = tuple(Input(each, given[each.name], tuple(fields.get(each.name, ()))) for each in preset.variables)
    other = tuple(sentence for name, found in fields.items() if name not in given for sentence in found)
    script = rendering.sketch(preset, {each.name: _shown(each, given[each.name]) for each in preset.variables})
    starts = tuple(f"readonly {name}=" for name in fields)
    bad = tuple(number for number, line in enumerate(script.split("\n"), 1) if starts and line.startswith(starts))
    return Preview(preset, inputs, script, other_errors=other, bad_lines=bad)
