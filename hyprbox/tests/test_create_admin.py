"""`manage.py create_admin`: how a first admin comes about where strangers make no accounts."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from audit.models import Event
from tests import aside
from tests.factories import PASSWORD, make_user


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_it_makes_an_admin_who_can_sign_in(api: Any) -> None:
    made = aside.run("manage.py", "create_admin", "grace@example.com", "--name", "Grace", given=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    assert PASSWORD not in made.stdout + made.stderr
    user = User.objects.get()
    assert (user.email, user.name, user.role, user.is_active) == ("grace@example.com", "Grace", "admin", True)
    told = Event.objects.get(action="user.created")
    assert (told.actor_kind, told.actor_name, told.detail["role"]) == ("system", "create_admin", "admin")
    answer = api.post("/api/auth/login", {"email": user.email, "password": PASSWORD})
    assert answer.status_code == 200, answer.content
    assert api.get("/api/users", authorization=f"Bearer {answer.json()['access']}").status_code == 200
    again = aside.run("manage.py", "create_admin", "Grace@Example.com", given=f"{PASSWORD}\n")
    assert again.returncode == 1 and "Traceback" not in again.stderr
    assert User.objects.count() == 1


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What comes through the pipe."""

    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    for name in ("HYPRBOX_ADMIN_EMAIL", "HYPRBOX_ADMIN_PASSWORD", "HYPRBOX_ADMIN_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    return give


@pytest.mark.parametrize(
    ("email", "password", "sentence"),
    [
        ("", PASSWORD, "Say who"),
        ("grace", PASSWORD, "not an e-mail address"),
        ("zoe@example.com", PASSWORD, "already"),
        ("ZOE@example.com", PASSWORD, "already"),
        ("grace@example.com", "", "12 characters"),
        ("grace@example.com", "elevenchars", "12 characters"),
        ("grace@example.com", "password1234", "common"),
        ("grace@example.com", "grace@example.com", "too similar"),
        ("grace@example.com", "x" * 129, "128"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_makes_nobody(
    db: None, typed: Any, email: str, password: str, sentence: str
) -> None:
    make_user("zoe")
    typed(f"{password}\n")
    with pytest.raises(CommandError, match=sentence) as refused:
        call_command("create_admin", email)
    assert PASSWORD not in str(refused.value)
    assert [user.role for user in User.objects.all()] == ["viewer"]


def test_the_password_may_be_in_a_file(db: None, typed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    typed("")
    path = tmp_path / "password"
    monkeypatch.setenv("HYPRBOX_ADMIN_PASSWORD_FILE", str(path))
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("create_admin", "grace@example.com")
    assert not User.objects.exists()
    path.write_text(f"{PASSWORD}\n")
    call_command("create_admin", "grace@example.com", stdout=io.StringIO())
    assert User.objects.get().check_password(PASSWORD)
