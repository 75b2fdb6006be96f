"""Preset and values in, one standalone bash script out. The only place where shell text is built.

Values never touch the text of a part: they stand, quoted, in a preamble of `readonly` lines, and the parts
use "$NAME". The same preset and the same values give the same bytes.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from presets import leaks, params
from presets.documents import MAX_SCRIPT_BYTES, Preset

USAGE_EXIT = 64
_HEADER_LINES = 4
_STRICT = "set -euo pipefail\n"


@dataclass(frozen=True)
class Rendered:
    """A finished script. `variables` are the checked values in it; `secrets` are pointers and are not in it."""

    script: bytes
    sha256: str
    revision: str
    parts: tuple[str, ...]
    variables: Mapping[str, str]
    secrets: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.script.decode()


def render(preset: Preset, values: Mapping[str, object]) -> Rendered:
    """Check the values and render. Raises params.InvalidVariables for values that do not fit."""
    checked = params.validate(preset.variables, values)
    secret_names = {variable.name for variable in preset.variables if variable.type == "secret_ref"}
    variables = {name: value for name, value in checked.items() if name not in secret_names}
    secrets = {name: checked[name] for name in checked if name in secret_names and checked[name]}
    script = _script(preset, variables, sorted(secret_names)).encode()
    if len(script) > MAX_SCRIPT_BYTES:
        raise params.InvalidVariables(
            {"variables": [f"The script would have {len(script):,} bytes; {MAX_SCRIPT_BYTES:,} are allowed."]}
        )
    return Rendered(
        script=script,
        sha256=hashlib.sha256(script).hexdigest(),
        revision=preset.revision,
        parts=tuple(preset.parts),
        variables=variables,
        secrets=secrets,
        warnings=preset.warnings + _warnings(preset, variables),
    )


def skeleton(preset: Preset) -> str:
    """The script with every value left empty: what ShellCheck looks at."""
    secrets = [variable.name for variable in preset.variables if variable.type == "secret_ref"]
    return _script(preset, {each.name: "" for each in preset.variables if each.name not in secrets}, secrets)


def sketch(preset: Preset, values: Mapping[str, str]) -> str:
    """The script as it would look with values that may still be wrong: for reading only, it is never run."""
    secrets = sorted(variable.name for variable in preset.variables if variable.type == "secret_ref")
    shown = {each.name: values.get(each.name, "") for each in preset.variables if each.name not in secrets}
    return _script(preset, shown, secrets)


def values_in(script: bytes) -> dict[str, str]:
    """The values that a rendered script was given: `render(preset, ...).variables`, read back from its preamble.

    Raises ValueError for a script that does not begin as `render` lets one begin.
    """
    text, at = script.decode(), 0
    for _ in range(_HEADER_LINES):
        at = text.index("\n", at) + 1
    opening = f"\n{_STRICT}\n"
    if not text.startswith(opening, at):
        raise ValueError("no rendered script")
    first = at = at + len(opening)
    values: dict[str, str] = {}
    while text.startswith("readonly ", at):
        name, _, _ = text[at + len("readonly ") : text.index("\n", at)].partition("=")
        value, at = _unquoted(text, at + len(f"readonly {name}="))
        values[name] = value
        at += 1  # the line's end
    if text[first:at] != _preamble(values, []):
        raise ValueError("no rendered preamble")
    return values


def quote(value: str) -> str:
    """A value as one bash word. Single quotes always: nothing between them means anything to bash."""
    return "'" + value.replace("'", "'\\''") + "'"


def _unquoted(text: str, at: int) -> tuple[str, int]:
    """The value of the word that `quote` made at `at`, and where the word ends."""
    pieces, at = [], at + 1
    while True:
        end = text.index("'", at)
        pieces.append(text[at:end])
        if not text.startswith("'\\''", end):
            return "'".join(pieces), end + 1
        at = end + len("'\\''")


def _script(preset: Preset, variables: Mapping[str, str], secrets: list[str]) -> str:
    blocks = [_header(preset), _STRICT]
    if variables or secrets:
        blocks.append(_preamble(variables, secrets))
    blocks.extend(_function(name, text) for name, text in preset.parts.items())
    blocks.append(_choice(tuple(preset.parts)))
    return "\n".join(blocks)


def _header(preset: Preset) -> str:
    return (
        "#!/usr/bin/env bash\n"
        f"# {preset.title}\n"
        f"# Preset {preset.name}, revision {preset.revision[:12]}\n"
        f"# One part by hand: bash SCRIPT {'|'.join(preset.parts)}\n"
    )


def _preamble(variables: Mapping[str, str], secrets: list[str]) -> str:
    lines = [f"readonly {name}={quote(value)}\n" for name, value in variables.items()]
    for name in secrets:
        # The agent puts the secret into the environment of the one process that needs it. Taken out of the
        # environment here, it does not travel on into every command that the script starts.
        lines.append(f'{name}="${{{name}-}}"; export -n {name}; readonly {name}\n')
    return "".join(lines)


def _function(name: str, text: str) -> str:
    end = "" if text.endswith("\n") else "\n"
    return f"hb_{name}() {{\n{text}{end}}}\n"


def _choice(parts: tuple[str, ...]) -> str:
    # The function is a command of its own: in an `if`, or before ||, bash would switch `set -e` off inside it.
    arms = "".join(f"  {name}) hb_{name} ;;\n" for name in parts)
    usage = f"printf 'usage: bash %s {'|'.join(parts)}\\n' \"$0\" >&2"
    return f'case "${{1:-}}" in\n{arms}  *)\n    {usage}\n    exit {USAGE_EXIT}\n    ;;\nesac\n'


def _warnings(preset: Preset, variables: Mapping[str, str]) -> tuple[str, ...]:
    declared = {variable.name: variable for variable in preset.variables}
    found = []
    for name, value in variables.items():
        hidden = sum(1 for char in value if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf"))
        if hidden:
            found.append(f"{name} holds {hidden} character{'s' * (hidden > 1)} that a screen does not show.")
        if value != value.strip():
            found.append(f"{name} starts or ends with white space.")
        kind = leaks.looks_like(declared[name], value)
        if kind:
            found.append(
                f"{name} looks like {kind}: it would be stored with the job and shown to everyone who may read it. "
                "A secret belongs on the server, and into a variable of type secret_ref."
            )
    return tuple(found)
