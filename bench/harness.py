"""What every benchmark gets and gives back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hyprbox.lib import mackey, secretbox, signing
from hyprbox.lib.postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Result:
    """One measured figure. `bar` is what it has to reach (None: told for information), in words in `bar_text`."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    met: bool | None = None
    bar_text: str = ""

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "value": self.value, "unit": self.unit, "bar": self.bar, "met": self.met}


def at_least(name: str, value: float, unit: str, bar: float) -> Result:
    return Result(name, value, unit, bar, value >= bar, f"≥ {bar:g}")


def at_most(name: str, value: float, unit: str, bar: float) -> Result:
    return Result(name, value, unit, bar, value <= bar, f"≤ {bar:g}")


def figure(name: str, value: float, unit: str) -> Result:
    """Without a bar: what helps to read the others."""
    return Result(name, value, unit)


def prepare(folder: Path) -> None:
    """Put into a var folder what HyprBox' processes do not start without."""
    folder.chmod(0o755)  # the account that runs PostgreSQL for root must pass
    (folder / "static").mkdir()
    signing.create_key(folder / "signing.key")
    mackey.create_key(folder / "mac.key")
    secretbox.create_key(folder / "secrets.key")


@dataclass(frozen=True)
class Context:
    """The surroundings of one run: a PostgreSQL as safe as in production, and a var folder, for scratch files as well."""

    postgres: EmbeddedPostgres
    folder: Path
    say: Callable[[str], None]

    def environment(self, database_url: str, **more: str) -> dict[str, str]:
        """The environment in which to start HyprBox' own processes."""
        return {
            **os.environ,
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "hyprbox.settings",
            "HYPRBOX_VAR_DIR": str(self.folder),
            "HYPRBOX_SECRET_KEY": "only-for-benchmarks-0123456789-abcdefghijklmnopqrstuvwxyz",
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def new_database(self, name: str, *, migrated: bool = True, as_owner: bool = False) -> str:
        """The URL of a new database, with HyprBox' tables unless told otherwise, for its app's role or for its owner."""
        self.postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.postgres.execute(f'CREATE DATABASE "{name}" OWNER hyprbox_owner')
        whose = self.postgres.owner_url if as_owner else self.postgres.url
        url = whose.replace("/hyprbox?", f"/{name}?")
        if migrated:
            command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
            subprocess.run(command, cwd=ROOT, env=self.environment(url), check=True)
        return url
