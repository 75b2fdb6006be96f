"""The one preset of the fault tests, and the web process that offers it beside the built-in ones.

    uvicorn tests.faults.witness_preset:application

Everything after the look-up by name is the product's own: checked, rendered, frozen, signed, queued.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from presets import catalogue, documents

NAME = "witness"
ROOT_VARIABLE = "HYPRBOX_FAULTS_ROOT"  # where hosts and witnesses are
_NUMBERS = ("SEED", "STDOUT_BYTES", "STDERR_BYTES", "EXIT_CODE", "TENTHS", "LEFTOVER")


@dataclass(frozen=True)
class Plan:
    """What one job is to do. `nonce` is its name in the client's log and in the witness file."""

    nonce: str
    seed: int = 1
    stdout_bytes: int = 1000
    stderr_bytes: int = 10
    exit_code: int = 0
    tenths: int = 2
    leftover: int = 0

    def variables(self) -> dict[str, Any]:
        numbers = (self.seed, self.stdout_bytes, self.stderr_bytes, self.exit_code, self.tenths, self.leftover)
        return {"NONCE": self.nonce, **dict(zip(_NUMBERS, numbers, strict=True))}


def preset(root: Path) -> documents.Preset:
    scribe = Path(__file__).with_name("scribe.py")
    command = shlex.join([sys.executable, "-I", "-S", str(scribe), str(root)])
    given = " ".join(f'"${name}"' for name in ("NONCE", *_NUMBERS))
    return documents.parse(
        {
            "name": NAME,
            "title": "Witness",
            "description": "Testifies that it ran.",
            "category": "tests",
            "risk": "safe",
            "variables": [
                {"name": "NONCE", "type": "identifier", "required": True},
                *({"name": name, "type": "int", "required": True, "min": 0, "max": 2**31} for name in _NUMBERS),
            ],
            "apply": f"{command} {given}\n",
        }
    )


def _offer(root: Path) -> None:
    ours, find = preset(root), catalogue.find
    catalogue.find = lambda name: ours if name == NAME else find(name)  # type: ignore[assignment]


if ROOT_VARIABLE in os.environ:
    _offer(Path(os.environ[ROOT_VARIABLE]))
    from hyprbox.asgi import application  # noqa: F401
