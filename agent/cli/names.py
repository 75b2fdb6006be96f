"""Names for the shell's completion: of the last minutes from a file, else asked for, within what a key press may take."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FRESH_SECONDS = 300.0
ASK_SECONDS = 1.0
MAX_NAMES = 2000
CATALOGUE = Path(__file__).resolve().parents[2] / "presets" / "catalogue"


def _path() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path("~/.cache").expanduser()) / "hyprbox" / "names.json"


def _read() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(_path().read_text(encoding="utf-8"))
        return data if isinstance(data, dict) else {}
    return {}


def remember(url: str, **found: list[str]) -> None:
    """Note the names of one sort, such as `nodes=[...]`. A folder that cannot be written is no trouble."""
    with contextlib.suppress(OSError):
        data = _read()
        for kind, names in found.items():
            data.setdefault(url, {})[kind] = {"at": time.time(), "names": names[:MAX_NAMES]}
        _path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = _path().with_name(f".names.{os.getpid()}")
        temporary.write_text(json.dumps(data), encoding="utf-8")
        os.rename(temporary, _path())


def _names(kind: str, path: str, pick: Callable[[Any], list[str]], **query: int) -> list[str]:
    """The names of this kind; `pick` takes them out of one row of what the path answers."""
    from agent.cli.api import Api
    from agent.cli.base import Settings
    from agent.cli.exits import Trouble

    try:
        api = Api(Settings())
        known = _read().get(api.url, {}).get(kind) or {"at": 0.0, "names": []}
        if time.time() - known["at"] < FRESH_SECONDS or not api.is_logged_in:
            return list(known["names"])
        try:
            answer = api.call("GET", path, params=query, timeout=(ASK_SECONDS, ASK_SECONDS)).json()
        except Trouble:
            return list(known["names"])
        found = list(dict.fromkeys(name for row in answer["results"] for name in pick(row)))
        remember(api.url, **{kind: found})
        return found
    except (Trouble, ValueError, KeyError, TypeError):  # a completion never complains
        return []


def _of_nodes(kind: str, pick: Callable[[Any], list[str]], incomplete: str) -> list[str]:
    return [name for name in _names(kind, "/api/nodes", pick, page_size=200) if name.startswith(incomplete)]


def complete_nodes(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _of_nodes("nodes", lambda row: [row["node_id"]], incomplete)


def complete_tags(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _of_nodes("tags", lambda row: list(row["tags"]), incomplete)


def complete_groups(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _of_nodes("groups", lambda row: [row["group"]] if row["group"] else [], incomplete)


def complete_targets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    here = ["local"] if "local".startswith(incomplete) else []
    return here + complete_nodes(ctx, parameter, incomplete)


def complete_presets(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    found = _names("presets", "/api/presets", lambda row: [row["name"]])
    found = found or [path.stem for path in sorted(CATALOGUE.glob("*.yaml"))]
    return [name for name in found if name.startswith(incomplete)]
