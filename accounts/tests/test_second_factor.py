"""Second factors at a log-in: once, in time, and as they were left."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from accounts import factors
from accounts.errors import TooManyLogins
from accounts.models import User
from accounts.tests.apps import NOBODY, SEED, Clock, give_app, log_in
from audit import sealed
from audit.models import Event
from hyprbox.lib import rowmac
from tests import factories
from tests.client import ApiClient


def test_a_missing_or_wrong_factor_looks_like_a_wrong_password(api: ApiClient, vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    wrong = api.post("/api/auth/login", {"email": vera.email, "password": "wrong password"})
    for otp in (None, "000000", "aaaaa-aaaaa", "not a code"):
        answer = log_in(api, vera, otp)
        assert (answer.status_code, answer.content) == (401, wrong.content), otp
    assert Event.objects.filter(action="login.failed", target=f"user:{vera.email}").count() == 5


def test_the_right_code_opens_once(api: ApiClient, vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    code = clock.next()
    assert log_in(api, vera, code).status_code == 200
    assert log_in(api, vera, code).status_code == 401
    assert log_in(api, vera, clock.next()).status_code == 200


@pytest.mark.parametrize(("steps", "status"), [(-2, 401), (-1, 200), (0, 200), (1, 200), (2, 401)])
def test_a_code_is_good_one_step_to_either_side(
    api: ApiClient, vera: User, clock: Clock, steps: int, status: int
) -> None:
    give_app(vera, clock)
    clock.offset += 300
    assert log_in(api, vera, clock.code(steps)).status_code == status


def test_an_older_code_is_none_after_a_newer_one(api: ApiClient, vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    clock.offset += 300
    assert log_in(api, vera, clock.code(1)).status_code == 200
    assert log_in(api, vera, clock.code()).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_with_one_code_one_gets_in(clock: Clock) -> None:
    user = factories.make_user("otto")
    give_app(user, clock)
    code, start = clock.next(), threading.Barrier(8)

    def attempt(_: int) -> bool:
        try:
            start.wait()
            return factors._is_right(User.objects.get(pk=user.pk), factors.Proof(code), NOBODY)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_after_five_wrong_ones_it_waits(vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    for _ in range(5):
        assert not factors.is_proven(vera, factors.Proof("000000"), by=NOBODY)
    factories.lengthen_delays()
    with pytest.raises(TooManyLogins):
        factors.is_proven(vera, factors.Proof(clock.next()), by=NOBODY)


def test_recovery_codes_work_once_each_and_are_not_stored(api: ApiClient, vera: User, clock: Clock) -> None:
    codes = give_app(vera, clock)
    assert len(set(codes)) == 10
    assert log_in(api, vera, codes[0].upper()).status_code == 200
    assert log_in(api, vera, codes[0]).status_code == 401
    assert log_in(api, vera, codes[1].replace("-", " ")).status_code == 200
    vera.refresh_from_db()
    assert len(vera.recovery_codes) == 8
    stored = repr(list(User.objects.filter(pk=vera.pk).values())) + repr(list(Event.objects.values()))
    assert not [code for code in codes if code in stored or code.replace("-", "") in stored]
    assert Event.objects.filter(action="recovery.used").count() == 2


def test_the_seed_is_encrypted_for_its_user_alone(vera: User, otto: User, clock: Clock) -> None:
    give_app(vera, clock)
    assert SEED.encode() not in bytes(vera.totp_seed)
    assert factors.seed_of(vera) == SEED
    otto.totp_seed, otto.totp_key_id = vera.totp_seed, vera.totp_key_id
    with pytest.raises(factors.secretbox.SecretsKeyUnusable):
        factors.seed_of(otto)


def test_without_its_key_the_app_opens_nothing_and_recovery_codes_still_do(
    api: ApiClient, vera: User, clock: Clock, settings: Any, tmp_path: Path
) -> None:
    codes = give_app(vera, clock)
    settings.HYPRBOX_SECRETS_KEY_FILE = tmp_path / "away.key"
    assert log_in(api, vera, clock.next()).status_code == 401
    assert log_in(api, vera, codes[0]).status_code == 200


@pytest.mark.parametrize(
    "edit",
    ["has_factor = false", "totp_seed = '', has_factor = false", "recovery_codes = '{}'", "totp_key_id = 'x'"],
)
def test_a_factor_that_was_edited_in_the_database_opens_nothing(
    api: ApiClient, vera: User, clock: Clock, edit: str
) -> None:
    codes = give_app(vera, clock)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE accounts_user SET {edit} WHERE id = %s", [vera.pk])
    assert [log_in(api, vera, otp).status_code for otp in (None, clock.next(), codes[0])] == [401, 401, 401]
    assert [why for _, why in sealed.check_all(User) if why] == ["its seal does not fit"]


def test_users_from_before_second_factors_keep_their_seals(vera: User, otto: User) -> None:
    after = User.SEALED
    before = after[:5]
    assert before[-1] == "token_version"
    for user in (vera, otto):
        fields = {name: getattr(user, name) for name in before}
        mac = rowmac.mac_of("accounts_user", user.pk, user.row_version, fields)
        User.objects.filter(pk=user.pk).update(mac=mac)
    User.objects.filter(pk=otto.pk).update(role="admin")
    assert sealed.reseal_existing(User, before, after, Event) == 1
    assert {name: why for name, why in sealed.check_all(User)} == {
        f"accounts_user:{vera.pk}": "",
        f"accounts_user:{otto.pk}": "its seal does not fit",
    }
