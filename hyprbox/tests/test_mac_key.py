"""The key of the row seals, replaced: every row that fits is sealed anew, and nothing of the old key opens anything."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts import keys, people, recovery
from accounts.models import Passkey, User
from accounts.selectors import find_active
from accounts.tests.apps import Clock, give_app
from audit import sealed
from audit.actions import Action
from audit.models import Event
from audit.services import record
from hyprbox import integrity
from hyprbox.lib import mackey, rowmac, seals
from hyprbox.lib.actors import Actor
from hyprbox.management.commands import mac_key
from jobs import drift
from presets import services as presets
from presets.tests.test_custom import TEXT
from tests import factories

pytestmark = pytest.mark.django_db
HERE = Actor.anonymous(ip="127.0.0.1")


@pytest.fixture
def path(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mac_key, "WAIT_SECONDS", 0.0)
    made = settings.HYPRBOX_MAC_KEY_FILE = tmp_path / "mac.key"
    run("create")
    return Path(made)


def run(verb: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("mac_key", verb, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def bad() -> list[str]:
    return [subject for subject, _ in integrity.verify(by=factories.SYSTEM).bad]


def forge(user: User, key: bytes) -> None:
    """A role by SQL, sealed by someone who has the old key."""
    fields = {name: getattr(user, name) for name in User.SEALED} | {"role": "admin"}
    mac = seals.mac(key, "accounts_user", user.pk, user.row_version, fields)
    User.objects.filter(pk=user.pk).update(role="admin", mac=mac)


def test_rotation_seals_what_fits_and_names_what_does_not(path: Path, web_1: Any) -> None:
    users = [factories.make_user(name) for name in ("vera", "otto", "eve")]
    factories.make_token(web_1)
    factories.make_job(web_1)
    old = mackey.key()
    User.objects.filter(pk=users[2].pk).update(role="admin")
    out, err = run("rotate")
    assert "rows  3" in out
    assert err.startswith(f"accounts_user:{users[2].pk}  its seal does not fit")
    assert bad() == [f"accounts_user:{users[2].pk}"]
    assert mackey.key() != old and path.stat().st_mode & 0o777 == 0o400
    assert find_active(str(users[0].pk)) is not None and find_active(str(users[2].pk)) is None
    [entry] = Event.objects.filter(action="mac_key.rotated")
    assert entry.detail == {"rows": 3, "bad": 1}
    users[0].refresh_from_db()
    forge(users[0], old)
    assert find_active(str(users[0].pk)) is None


def test_rotation_seals_rows_of_every_kind(path: Path, ada: User, web_1: Any) -> None:
    by = factories.as_actor(ada)
    factories.make_token(web_1)
    keys.create_key(by=by, name="deploy", scopes=["read"])
    people.invite(by=by, email="new@example.com", role="viewer")
    presets.create_preset(by=by, text=TEXT)
    presets.save_revision(by=by, name="motd", text=TEXT.replace("title: ", "title: The "))
    drift.create_pin(by=by, preset="time-sync", variables={}, node_id="web-1")
    passkey = sealed.create(Passkey(user=ada, name="key", credential_id=b"id", public_key=b"key"))
    record(Action.PASSKEY_CREATED, by=by, row=passkey)
    kinds = rowmac.models_with_seals()
    assert [model for model in kinds if not model._default_manager.exists()] == []
    assert run("rotate")[1] == "" and bad() == []
    rows = [row for model in kinds for row in model._default_manager.all()]
    assert [row for row in rows if not rowmac.is_under_first_key(row)] == []


def test_between_its_halves_both_keys_hold(path: Path) -> None:
    before, after = factories.make_user("vera"), None
    run("add")
    after = factories.make_user("otto")
    assert find_active(str(before.pk)) and find_active(str(after.pk)) and bad() == []
    assert rowmac.is_under_first_key(after) and not rowmac.is_under_first_key(before)
    assert "rows  1" in run("reseal")[0]
    assert "rows  0" in run("reseal")[0]  # again, as after one that was cut short
    assert bad() == []


def test_recovery_codes_outlive_their_key_until_it_is_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vera = factories.make_user("vera")
    codes = give_app(vera, Clock(monkeypatch))
    run("rotate")
    run("rotate")
    assert len(mackey.keys().seals) == 1 and len(mackey.keys().codes) == 2
    assert recovery.use(vera, codes[0], by=HERE)
    assert "forgotten  2" in run("forget")[0]
    assert not recovery.use(vera, codes[1], by=HERE)
    assert sealed.problem(User.objects.get(pk=vera.pk)) == ""


@pytest.mark.parametrize("text", ["codes " + "ab" * 32, "ab" * 32 + "\nother " + "ab" * 32, "ab" * 32 + "\nab", ""])
def test_a_file_without_a_key_is_none(path: Path, text: str) -> None:
    path.chmod(0o600)
    path.write_text(text)
    with pytest.raises(CommandError, match="32 bytes in hex"):
        run("create")


def test_without_a_key_it_says_how_to_make_one(path: Path) -> None:
    path.unlink()
    with pytest.raises(CommandError, match="manage.py mac_key create"):
        run("rotate")
