"""What a web process does not start with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hyprbox import startup
from hyprbox.lib import signing
from tests.house import ROOT, clean_environment, free_port

STRONG = "k3J9x0QmZr7TtUuWv2LbNcPd5sYhGf81AaEeIiOo4M6_"


def loading(**environment: str) -> str:
    """What loading the settings says to these; empty when it takes them."""
    given = {"HYPRBOX_SECRET_KEY": STRONG, **environment}
    done = subprocess.run(
        [sys.executable, "-c", "import hyprbox.settings"],
        env=clean_environment(**given),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_good_settings_load() -> None:
    assert loading() == ""
    assert loading(HYPRBOX_PUBLIC_URL="https://hyprbox.example") == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"HYPRBOX_SECRET_KEY": "a" * 60}, "HYPRBOX_SECRET_KEY"),
        ({"HYPRBOX_SECRET_KEY": "short-1234567"}, "HYPRBOX_SECRET_KEY"),
        ({"HYPRBOX_SECRET_KEY": "insecure-development-key-for-debug-only"}, "HYPRBOX_SECRET_KEY"),
        ({"HYPRBOX_SECRET_KEY": "", "HYPRBOX_VAR_DIR": "/nonexistent"}, "HYPRBOX_SECRET_KEY"),
        ({"HYPRBOX_PUBLIC_URL": "http://hyprbox.example"}, "HYPRBOX_PUBLIC_URL"),
        ({"HYPRBOX_PUBLIC_URL": "hyprbox.example"}, "HYPRBOX_PUBLIC_URL"),
        ({"DATABASE_URL": "sqlite:///x.db"}, "DATABASE_URL"),
        ({"HYPRBOX_MIGRATION_DATABASE_URL": "postgresql://hyprbox_owner@db.example/hyprbox"}, "of DATABASE_URL"),
        (
            {
                "DATABASE_URL": "postgresql://hyprbox@db.example/hyprbox",
                "HYPRBOX_MIGRATION_DATABASE_URL": "postgresql://hyprbox_owner@db.example/other",
            },
            "HYPRBOX_MIGRATION_DATABASE_URL must lead to the database of DATABASE_URL",
        ),
        (
            {
                "DATABASE_URL": "postgresql://hyprbox@db.example/hyprbox",
                "HYPRBOX_MIGRATION_DATABASE_URL": "postgresql://db.example/hyprbox",
            },
            "must both name their role",
        ),
    ],
)
def test_bad_settings_are_named(bad: dict[str, str], word: str) -> None:
    assert word in loading(**bad)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_may_lose_what_it_confirmed_is_refused(settings: Any) -> None:
    """The tests' own cluster is such a one."""
    assert any("fsync = off" in sentence for sentence in startup.refusals())
    settings.DEBUG = True
    assert startup.refusals() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644])
def test_a_signing_key_that_others_can_read_is_refused(settings: Any, tmp_path: Path, mode: int) -> None:
    settings.HYPRBOX_SIGNING_KEY_FILE = tmp_path / "signing.key"
    signing.create_key(settings.HYPRBOX_SIGNING_KEY_FILE)
    assert not any("signing.key" in sentence for sentence in startup.refusals())
    settings.HYPRBOX_SIGNING_KEY_FILE.chmod(mode)
    assert any("signing.key" in sentence for sentence in startup.refusals())


@pytest.mark.django_db(transaction=True)
def test_a_missing_signing_key_is_refused(settings: Any, tmp_path: Path) -> None:
    settings.HYPRBOX_SIGNING_KEY_FILE = tmp_path / "signing.key"
    assert any("signing.key" in sentence for sentence in startup.refusals())


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_web_process_ends_and_says_why(settings: Any) -> None:
    command = [sys.executable, "-m", "uvicorn", "hyprbox.asgi:application", "--ws", "none", "--port", str(free_port())]
    done = subprocess.run(command, env=os.environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "HyprBox cannot start." in done.stderr + done.stdout
    assert "fsync = off" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
