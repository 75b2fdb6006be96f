"""What a web process does not start with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.tests.ports import free_port
from hyprbox import startup
from hyprbox.lib import signing
from tests.house import ROOT, clean_environment

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
    empty = ("TRUSTED_PROXIES", "PORT", "DB_POOL", "OFFLINE_AFTER", "SESSION_IDLE", "DEBUG", "REQUIRE_NODE_TOKEN",
             "ALLOW_REGISTRATION", "ENABLE_DOCS", "ALLOWED_HOSTS", "ADMIN_PATH", "LOG_LEVEL", "MAIL_FROM")  # fmt: skip
    assert loading(**{f"HYPRBOX_{name}": "" for name in empty}) == ""


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
        (
            {"HYPRBOX_TRUSTED_PROXIES": "10.0.0.1,proxy.internal"},
            "HYPRBOX_TRUSTED_PROXIES: “proxy.internal” is neither",
        ),
        ({"HYPRBOX_PUBLIC_URL": "http://127.0.0.1:99999"}, "HYPRBOX_PUBLIC_URL"),
        ({"HYPRBOX_PORT": "http"}, "HYPRBOX_PORT is “http”: it would be a whole number"),
        ({"HYPRBOX_DB_POOL": "1"}, "HYPRBOX_DB_POOL is “1”: it would be a whole number from 5"),
        ({"HYPRBOX_OFFLINE_AFTER": "10m"}, "HYPRBOX_OFFLINE_AFTER is “10m”"),
        ({"HYPRBOX_SESSION_IDLE": "-5"}, "HYPRBOX_SESSION_IDLE is “-5”"),
        ({"HYPRBOX_DEBUG": "flase"}, "HYPRBOX_DEBUG is “flase”: it would be true or false"),
        ({"HYPRBOX_REQUIRE_NODE_TOKEN": "ture"}, "HYPRBOX_REQUIRE_NODE_TOKEN is “ture”"),
        ({"HYPRBOX_ALLOW_REGISTRATION": "never"}, "HYPRBOX_ALLOW_REGISTRATION is “never”"),
        ({"HYPRBOX_ENABLE_DOCS": "2"}, "HYPRBOX_ENABLE_DOCS is “2”"),
        ({"HYPRBOX_ALLOWED_HOSTS": "https://hyprbox.example"}, "“https://hyprbox.example” is not the name of a host"),
        ({"HYPRBOX_ADMIN_PATH": "api/<x>"}, "HYPRBOX_ADMIN_PATH is “api/<x>”"),
        ({"HYPRBOX_LOG_LEVEL": "LOUD"}, "HYPRBOX_LOG_LEVEL is “LOUD”: it would be one of DEBUG, INFO"),
        ({"HYPRBOX_MAIL_FROM": "HyprBox"}, "HYPRBOX_MAIL_FROM is “HyprBox”"),
        ({"EMAIL_URL": "mail.example:587"}, "EMAIL_URL is no address of a mail server"),
        ({"EMAIL_URL": "smtp://u:hidden-word@mail.example:port"}, "EMAIL_URL is no address of a mail server"),
    ],
)
def test_bad_settings_are_named(bad: dict[str, str], word: str) -> None:
    said = loading(**bad)
    assert word in said and said.startswith("django.core.exceptions.ImproperlyConfigured: ")
    assert "hidden-word" not in said


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
