"""The key of stored secrets: made once, replaced without losing anything."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts import factors
from accounts.models import User
from accounts.tests.apps import SEED, Clock, give_app
from audit.models import Event
from hyprbox.lib import secretbox

pytestmark = pytest.mark.django_db  # making a key is noted in the audit log


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def path(settings: Any, tmp_path: Path) -> Path:
    made = settings.HYPRBOX_SECRETS_KEY_FILE = tmp_path / "secrets.key"
    call_command("secrets_key", "create", stdout=io.StringIO())
    return Path(made)


def test_what_was_encrypted_is_for_its_place_alone(path: Path) -> None:
    name, box = secretbox.encrypt(b"secret", place="a")
    assert secretbox.decrypt(name, box, place="a") == b"secret"
    assert b"secret" not in box and secretbox.encrypt(b"secret", place="a")[1] != box
    for other in ({"place": "b"}, {"box": box[:-1] + bytes([box[-1] ^ 1])}, {"name": "0" * 16}):
        with pytest.raises(secretbox.SecretsKeyUnusable):
            secretbox.decrypt(**{"name": name, "box": box, "place": "a", **other})


def test_a_key_that_others_can_read_or_that_is_none_is_refused(path: Path) -> None:
    path.chmod(0o444)
    with pytest.raises(secretbox.SecretsKeyUnusable, match="0400"):
        secretbox.keys()
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(CommandError, match="32 bytes in hex"):
        call_command("secrets_key", "create")


def test_rotation_encrypts_every_seed_anew(path: Path, vera: User, clock: Clock, capsys: Any) -> None:
    give_app(vera, clock)
    before = vera.totp_key_id
    call_command("secrets_key", "rotate")
    assert "seeds 1" in capsys.readouterr().out
    vera.refresh_from_db()
    assert vera.totp_key_id != before and list(secretbox.keys()) == [vera.totp_key_id]
    assert path.stat().st_mode & 0o777 == 0o400
    assert factors.seed_of(vera) == SEED
    assert factors.is_proven(vera, factors.Proof(clock.next()), by=factors.Actor.anonymous())
    assert Event.objects.filter(action="factor.encrypted").count() == 1


def test_the_host_takes_a_factor_away(path: Path, vera: User, clock: Clock, capsys: Any) -> None:
    give_app(vera, clock)
    call_command("second_factor", "reset", vera.email)
    vera.refresh_from_db()
    assert not vera.has_factor
    with pytest.raises(CommandError, match="no second factor"):
        call_command("second_factor", "reset", vera.email)
