"""A small preset to bend, and real bash to run what comes out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from presets import documents, rendering

BASH = shutil.which("bash") or "/bin/bash"
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def document(**over: Any) -> dict[str, Any]:
    """A valid document; a key set to None is left out."""
    base: dict[str, Any] = {
        "name": "sample",
        "title": "A sample",
        "description": "For tests.",
        "category": "tests",
        "risk": "safe",
        "apply": "true\n",
    }
    base.update(over)
    return {key: value for key, value in base.items() if value is not None}


def make_preset(**over: Any) -> documents.Preset:
    return documents.parse(document(**over))


def run(
    folder: Path, script: bytes, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a rendered script from a file, as the agent and a person do."""
    path = folder / "script.sh"
    path.write_bytes(script)
    return subprocess.run(
        [BASH, str(path), *arguments],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=ENVIRONMENT if env is None else env,
        cwd=folder,
        timeout=120,
    )


def run_preset(folder: Path, phase: str, values: dict[str, object] | None = None, **over: Any) -> Any:
    return run(folder, rendering.render(make_preset(**over), values or {}).script, phase)
