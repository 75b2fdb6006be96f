"""The values of a preset's variables from the command line and from a file."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from agent.cli.exits import UsageTrouble

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
MAX_FILE_BYTES = 4 * 1024 * 1024


def gather(assignments: tuple[str, ...], file: str) -> dict[str, Any]:
    """`NAME=VALUE` texts over what the file says. Raises `UsageTrouble`; what values are right is not judged here."""
    values = _read_file(file) if file else {}
    for text in assignments:
        name, separator, value = text.partition("=")
        if not separator or not _NAME.fullmatch(name):
            shown = name if _NAME.fullmatch(name) else text.partition("=")[0][:63]
            raise UsageTrouble(f"--set “{shown}” is not NAME=VALUE, with a name in capitals such as PORT=8080.")
        values[name] = value
    return values


def _read_file(name: str) -> dict[str, Any]:
    try:
        raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if name == "-" else Path(name).read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageTrouble(f"{name} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}.") from None
    if len(raw) > MAX_FILE_BYTES:
        raise UsageTrouble(f"{name} has more than {MAX_FILE_BYTES:,} bytes.")
    data = _json(name, text) if text.lstrip().startswith("{") else _yaml(name, text)
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UsageTrouble(f"{name} is not a list of NAME: VALUE lines, nor a JSON object.")
    return data


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageTrouble(f"{name} is not valid JSON: {error}.") from None


def _yaml(name: str, text: str) -> Any:
    import yaml

    try:
        # Every value as it is written: `no` is not false, 010 is not 8. What a value must be, its variable knows.
        return yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageTrouble(f"{name} is not valid YAML: {' '.join(str(error).split())[:200]}.") from None
