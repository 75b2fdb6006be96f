"""A start with other settings is an entry of the audit log, and no secret of theirs is in it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection

from audit import services
from audit.actions import Action
from audit.models import Event
from hyprbox import known_settings
from hyprbox.lib import mackey
from tests.factories import SYSTEM

pytestmark = pytest.mark.django_db


def noted() -> list[Any]:
    return [event.detail for event in Event.objects.filter(action=Action.SETTINGS_CHANGED).order_by("id")]


def test_the_first_start_notes_what_is_set_and_the_next_one_nothing(settings: Any) -> None:
    settings.HYPRBOX_TRUSTED_PROXIES = ["10.0.0.5", "10.1.0.0/24"]
    for _ in range(3):
        known_settings.note()
    [first] = noted()
    assert first["settings"]["HYPRBOX_TRUSTED_PROXIES"] == "10.0.0.5, 10.1.0.0/24"
    assert first["settings"]["HYPRBOX_ALLOW_REGISTRATION"] == "false"
    assert first["settings"]["HYPRBOX_SESSION_IDLE"] == "1800"


def test_what_is_another_one_is_named(settings: Any) -> None:
    known_settings.note()
    settings.HYPRBOX_ALLOW_REGISTRATION = True
    settings.ALLOWED_HOSTS = ["hyprbox.example", "other.example"]
    known_settings.note()
    assert noted()[1]["changed"].keys() == {"HYPRBOX_ALLOWED_HOSTS", "HYPRBOX_ALLOW_REGISTRATION"}
    assert noted()[1]["changed"]["HYPRBOX_ALLOW_REGISTRATION"] == "false → true"
    assert noted()[1]["settings"]["HYPRBOX_ALLOW_REGISTRATION"] == "true"
    settings.HYPRBOX_ALLOW_REGISTRATION = False
    known_settings.note()
    assert noted()[2]["changed"] == {"HYPRBOX_ALLOW_REGISTRATION": "true → false"}


def test_what_is_long_or_has_a_password_is_cut_and_still_the_same(settings: Any) -> None:
    settings.ALLOWED_HOSTS = [f"host-{number}.example" for number in range(200)]
    settings.HYPRBOX_PUBLIC_URL = "https://ada:hunter2@hyprbox.example"
    known_settings.note()
    known_settings.note()
    [only] = noted()
    assert "hunter2" not in str(only)
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "one.more.example"]
    known_settings.note()
    assert noted()[1]["changed"].keys() == {"HYPRBOX_ALLOWED_HOSTS"}


def test_how_the_database_is_reached_counts(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known_settings.note()
    monkeypatch.setitem(settings.DATABASES["default"]["OPTIONS"], "sslmode", "disable")
    known_settings.note()
    assert "DATABASE_URL" in noted()[1]["changed"]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("SECRET_KEY", "HYPRBOX_SECRET_KEY"),
        ("HYPRBOX_METRICS_TOKEN", "HYPRBOX_METRICS_TOKEN"),
        ("EMAIL_HOST_PASSWORD", "EMAIL_URL"),
    ],
)
def test_of_a_secret_it_says_only_that_it_is_another_one(settings: Any, setting: str, name: str) -> None:
    known_settings.note()
    setattr(settings, setting, "another-secret-0123456789")
    known_settings.note()
    assert noted()[1]["changed"] == {name: "another one"}
    assert "another-secret" not in str(noted())
    before, after = (detail["settings"][name] for detail in noted())
    assert before.startswith("hmac:") and after.startswith("hmac:") and before != after


def test_another_key_of_the_seals_makes_no_setting_another_one(settings: Any, tmp_path: Path) -> None:
    settings.HYPRBOX_MAC_KEY_FILE = tmp_path / "mac.key"
    mackey.create_key(tmp_path / "mac.key")
    known_settings.note()
    mackey.add_key(tmp_path / "mac.key")
    known_settings.note()
    mackey.retire_others(tmp_path / "mac.key")
    known_settings.note()
    assert len(noted()) == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_that_start_at_once_one_notes_it() -> None:
    def start() -> None:
        known_settings.note()
        connection.close()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(noted()) == 1


def test_a_start_without_a_database_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(action: Action) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(known_settings.selectors, "newest", refuse)
    known_settings.note()
    assert noted() == []


@pytest.mark.parametrize(
    "detail", [{}, {"settings": 7}, {"settings": {"HYPRBOX_DEBUG": [1], "HYPRBOX_SECRET_KEY": "ü"}}]
)
def test_an_entry_that_is_none_of_ours_stops_no_start(detail: Any) -> None:
    services.record(Action.SETTINGS_CHANGED, by=SYSTEM, target="settings", detail=detail)
    known_settings.note()
    assert len(noted()) == 2
