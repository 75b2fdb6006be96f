"""POST /api/auth/refresh: families that rotate, and what happens to an old token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.db.models import F
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts import families, jwt, services, tasks
from accounts.errors import RefreshTokenInvalid
from accounts.models import RefreshFamily, User
from audit.models import Event
from hyprbox.lib.actors import Actor
from tests.factories import PASSWORD, leave, make_user

HERE = Actor.anonymous(ip="127.0.0.1")


def log_in(api: Any) -> str:
    answer = api.post("/api/auth/login", {"email": "otto@example.com", "password": PASSWORD}, user_agent="cli")
    return str(answer.json()["refresh"])


def refresh(api: Any, token: str, user_agent: str = "cli") -> Any:
    return api.post("/api/auth/refresh", {"refresh": token}, user_agent=user_agent)


def test_each_use_gives_a_new_token(api: Any, otto: User) -> None:
    seen = [log_in(api)]
    for _ in range(3):
        seen.append(refresh(api, seen[-1]).json()["refresh"])
    assert len(set(seen)) == 4
    assert RefreshFamily.objects.filter(revoked_at=None).count() == 1


def test_an_old_one_ends_the_family_and_is_told(api: Any, otto: User) -> None:
    first = log_in(api)
    pair = refresh(api, first).json()
    assert refresh(api, first, user_agent="thief").status_code == 401
    assert refresh(api, pair["refresh"]).status_code == 401
    assert api.get("/api/auth/me", authorization=f"Bearer {pair['access']}").status_code == 401
    assert Event.objects.filter(action="refresh.reused", target="user:otto@example.com").count() == 1


def letters() -> list[mail.EmailMessage]:
    """What the worker sends of what was asked of it."""
    for job in ProcrastinateJob.objects.filter(task_name="accounts.tasks.tell_refresh_reused").order_by("id"):
        tasks.tell_refresh_reused(**job.args)
    return list(mail.outbox)


def test_its_owner_and_the_monitoring_are_told_once(api: Any, otto: User, settings: Any) -> None:
    settings.HYPRBOX_METRICS_TOKEN = "of-the-monitoring"
    first = log_in(api)
    pair = refresh(api, first).json()
    assert refresh(api, first).status_code == 200  # the answer was lost: nobody is told of that
    assert letters() == []
    for _ in range(3):
        assert refresh(api, first, user_agent="thief").status_code == 401
    assert refresh(api, pair["refresh"]).status_code == 401
    (letter,) = letters()
    assert letter.to == ["otto@example.com"] and "from 127.0.0.1," in letter.body and "/reset/" in letter.body
    assert first not in letter.body and "thief" not in letter.body
    text = api.get("/metrics", authorization="Bearer of-the-monitoring").content.decode()
    assert "\nhyprbox_refresh_reused 1.0\n" in text


def test_nothing_else_that_is_refused_sends_a_letter(api: Any, otto: User) -> None:
    token = log_in(api)
    assert refresh(api, "nonsense").status_code == 401
    leave(otto, is_active=False)
    assert refresh(api, token).status_code == 401
    assert letters() == [] and not Event.objects.filter(action="refresh.reused").exists()


def test_the_same_client_gets_the_same_answer_for_ten_seconds(api: Any, otto: User) -> None:
    first = log_in(api)
    second = refresh(api, first).json()["refresh"]
    assert refresh(api, first).json()["refresh"] == second
    RefreshFamily.objects.update(rotated_at=F("rotated_at") - timedelta(seconds=11))
    assert refresh(api, first).status_code == 401


def test_the_grace_is_over_once_the_successor_was_used(api: Any, otto: User) -> None:
    first = log_in(api)
    second = refresh(api, first).json()["refresh"]
    assert refresh(api, second).status_code == 200
    assert refresh(api, first).status_code == 401
    assert RefreshFamily.objects.get().revoked_at is not None


@pytest.mark.parametrize(
    ("count", "ip_of", "successes"),
    [(30, lambda n: "127.0.0.1", 30), (50, lambda n: f"10.0.0.{n}", 1)],
    ids=["one client", "fifty clients"],
)
@pytest.mark.django_db(transaction=True)
def test_many_at_once_make_one_successor(count: int, ip_of: Callable[[int], str], successes: int) -> None:
    make_user("otto")
    token = services.log_in(email="otto@example.com", password=PASSWORD, by=HERE).tokens.refresh

    def attempt(number: int) -> str:
        try:
            return services.refresh(token=token, by=Actor.anonymous(ip=ip_of(number))).refresh
        except RefreshTokenInvalid:
            return ""
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        got = [found for found in pool.map(attempt, range(count)) if found]
    assert (len(set(got)), len(got)) == (1, successes)


def test_a_family_ends_after_thirty_days_however_often_it_is_used(api: Any, otto: User) -> None:
    token = log_in(api)
    left = RefreshFamily.objects.get().expires_at - timezone.now()
    assert timedelta(days=29, hours=23, minutes=59) < left <= timedelta(days=30)
    end_family(timezone.now() + timedelta(days=1))
    second = refresh(api, token).json()["refresh"]
    assert jwt.RefreshToken(second)["exp"] <= (timezone.now() + timedelta(days=1)).timestamp()
    end_family(timezone.now() - timedelta(seconds=1))
    assert refresh(api, second).status_code == 401


def end_family(at: datetime) -> None:
    family = RefreshFamily.objects.get()
    family.expires_at = at
    families.put_seal(family)
    family.save()


@pytest.mark.parametrize(("left", "status"), [(timedelta(minutes=1), 200), (timedelta(minutes=-1), 401)])
def test_a_token_is_good_for_seven_days(api: Any, otto: User, left: timedelta, status: int) -> None:
    log_in(api)
    family = RefreshFamily.objects.get()
    family.rotated_at = (timezone.now() - timedelta(days=7) + left).replace(microsecond=0)
    token = jwt.first_refresh(family)
    family.digest = hashlib.sha256(token.encode()).digest()
    family.save()
    assert refresh(api, token).status_code == status


@pytest.mark.parametrize("change", [{"is_active": False}, {"token_version": 2}])
def test_it_dies_with_its_user(api: Any, otto: User, change: Any) -> None:
    token = log_in(api)
    leave(otto, **change)
    assert refresh(api, token).status_code == 401


def test_nothing_of_a_token_is_stored(api: Any, otto: User) -> None:
    token = log_in(api)
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(f)::text FROM accounts_refreshfamily f")
        text = cursor.fetchone()[0]
    assert token.rsplit(".", 1)[1] not in text and jwt.RefreshToken(token)["jti"] not in text


def test_the_thirty_first_of_a_minute_waits(api: Any, db: None) -> None:
    answers = [refresh(api, "nonsense").status_code for _ in range(31)]
    assert answers == [401] * 30 + [429]
