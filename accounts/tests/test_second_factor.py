"""Second factors: having one, showing it once, and losing it."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyotp
import pytest
from django.db import connection
from django.test import Client

from accounts import factors, services
from accounts.errors import TooManyLogins
from accounts.models import User
from audit import sealed
from audit.models import Event
from hyprbox.lib import rowmac
from hyprbox.lib.actors import Actor
from tests import factories
from tests.client import ApiClient
from tests.factories import PASSWORD

SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
NOBODY = Actor.anonymous(ip="127.0.0.1")


class Clock:
    """The time of the codes; the test moves it, since each code works once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset = 0.0
        real = time.time
        monkeypatch.setattr("accounts.factors.time.time", lambda: real() + self.offset)
        self.now = lambda: real() + self.offset

    def code(self, steps: int = 0) -> str:
        return pyotp.TOTP(SEED).at(int(self.now()) + 30 * steps)

    def next(self) -> str:
        """A code that was not used yet."""
        self.offset += 30
        return self.code()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr("accounts.factors.time", type("T", (), {"time": staticmethod(time.time)}))
    return Clock(monkeypatch)


def give_app(user: User, clock: Clock) -> list[str]:
    """The user has an app from now on. Returns the recovery codes."""
    _, codes = factors.add_totp(by=factories.as_actor(user), seed=SEED, code=clock.next())
    user.refresh_from_db()
    return codes


def log_in(api: ApiClient, user: User, otp: str | None = None) -> Any:
    body = {"email": user.email, "password": PASSWORD}
    return api.post("/api/auth/login", body if otp is None else {**body, "otp": otp})


def bearer(answer: Any) -> ApiClient:
    assert answer.status_code == 200, answer.content
    return ApiClient(f"Bearer {answer.json()['access']}")


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


# --- step-up ---


def sensitive(api: ApiClient) -> Any:
    return api.post("/api/users/invite", {"email": "new@example.com"})


def test_whoever_has_no_factor_is_not_asked(api: ApiClient, ada: User) -> None:
    assert sensitive(api.by(ada)).status_code == 201


def test_what_is_sensitive_asks_for_a_fresh_factor(api: ApiClient, ada: User, clock: Clock) -> None:
    give_app(ada, clock)
    signed_in = bearer(log_in(api, ada, clock.next()))
    assert sensitive(signed_in).status_code == 201  # the login showed it a moment ago
    ada.refresh_families.update(fresh_until=None)
    refused = sensitive(signed_in)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "step_up_required")
    wrong = signed_in.post("/api/auth/step-up", {"otp": "000000"})
    assert (wrong.status_code, list(wrong.json()["error"]["fields"])) == (400, ["otp"])
    assert sensitive(signed_in).status_code == 403
    assert signed_in.post("/api/auth/step-up", {"otp": clock.next()}).status_code == 204
    assert sensitive(signed_in).status_code == 201
    assert Event.objects.filter(action__startswith="step_up.").count() == 2


def test_fresh_is_five_minutes_and_one_session(api: ApiClient, ada: User, clock: Clock) -> None:
    give_app(ada, clock)
    one, other = bearer(log_in(api, ada, clock.next())), bearer(log_in(api, ada, clock.next()))
    ada.refresh_families.update(fresh_until=None)
    assert one.post("/api/auth/step-up", {"otp": clock.next()}).status_code == 204
    assert (sensitive(one).status_code, sensitive(other).status_code) == (201, 403)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_refreshfamily SET fresh_until = fresh_until - interval '300 seconds'")
    assert sensitive(one).status_code == 403


def test_a_key_of_somebody_with_a_factor_does_nothing_sensitive(api: ApiClient, ada: User, clock: Clock) -> None:
    made = api.by(ada).post("/api/auth/keys", {"name": "ci", "scopes": ["admin"]}).json()
    key = ApiClient(f"Bearer {made['key']}")
    assert sensitive(key).status_code == 201
    give_app(ada, clock)
    assert sensitive(key).json()["error"]["code"] == "step_up_required"
    assert key.post("/api/auth/step-up", {"otp": clock.next()}).json()["error"]["code"] == "forbidden"
    assert key.get("/api/users").status_code == 200


def test_a_step_up_without_a_factor_or_a_session_says_so(api: ApiClient, ada: User, vera: User, clock: Clock) -> None:
    answer = bearer(log_in(api, vera)).post("/api/auth/step-up", {"otp": "000000"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_factor")
    give_app(ada, clock)
    assert api.by(ada).post("/api/auth/step-up", {"otp": clock.next()}).json()["error"]["code"] == "step_up_impossible"


# --- losing it ---


def test_an_admin_takes_a_factor_away(api: ApiClient, ada: User, vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    hers = bearer(log_in(api, vera, clock.next()))
    assert api.by(vera).delete(f"/api/users/{vera.pk}/second-factor").status_code == 403
    assert api.by(ada).delete(f"/api/users/{vera.pk}/second-factor").status_code == 204
    assert hers.get("/api/auth/me").status_code == 401
    assert log_in(api, vera).status_code == 200
    assert Event.objects.filter(action="factor.reset", target=f"user:{vera.email}").count() == 1
    again = api.by(ada).delete(f"/api/users/{vera.pk}/second-factor")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "no_factor")


def test_nobody_takes_their_own_away_as_an_admin(api: ApiClient, ada: User, clock: Clock) -> None:
    give_app(ada, clock)
    signed_in = bearer(log_in(api, ada, clock.next()))
    assert signed_in.delete(f"/api/users/{ada.pk}/second-factor").json()["error"]["code"] == "own_account"


# --- roles that need one ---


def test_a_role_that_needs_one_may_only_set_it_up(
    api: ApiClient, client: Client, ada: User, vera: User, clock: Clock, settings: Any
) -> None:
    settings.HYPRBOX_REQUIRE_SECOND_FACTOR = ["admin", "operator"]
    signed_in = bearer(log_in(api, ada))
    assert signed_in.get("/api/auth/me").status_code == 200
    for refused in (signed_in.get("/api/nodes"), sensitive(signed_in), signed_in.post("/api/auth/keys", KEY)):
        assert refused.json()["error"]["code"] == "second_factor_required"
    assert bearer(log_in(api, vera)).get("/api/nodes").status_code == 200
    landed = client.post("/login/", {"email": ada.email, "password": PASSWORD, "next": "/jobs/"})
    assert landed["Location"] == "/profile/second-factor/"
    assert client.get("/jobs/")["Location"] == "/profile/second-factor/"
    assert client.get("/profile/second-factor/").status_code == 200
    assert client.get(f"/{settings.HYPRBOX_ADMIN_PATH}/").status_code == 302
    give_app(ada, clock)
    assert bearer(log_in(api, ada, clock.next())).get("/api/nodes").status_code == 200


KEY = {"name": "ci", "scopes": ["read"]}


def test_the_last_factor_of_such_a_role_stays(ada: User, clock: Clock, settings: Any) -> None:
    give_app(ada, clock)
    settings.HYPRBOX_REQUIRE_SECOND_FACTOR = ["admin"]
    fresh = services.log_in(email=ada.email, password=PASSWORD, otp=clock.next(), by=NOBODY)
    family = ada.refresh_families.latest("created_at")
    by = factories.as_actor(fresh.user)
    by = type(by)(**{**{name: getattr(by, name) for name in by.__slots__}, "fresh_until": family.fresh_until})
    with pytest.raises(factors.FactorNeeded):
        factors.remove_totp(by=by, password=PASSWORD)
    ada.refresh_from_db()
    assert ada.has_totp and ada.has_factor


# --- on pages ---


def sign_in(client: Client, user: User, otp: str = "", **more: str) -> Any:
    first = client.post("/login/", {"email": user.email, "password": PASSWORD, **more})
    return client.post("/login/second/", {"_otp": otp, **more}) if otp else first


def test_the_login_page_goes_on_to_the_second_step(client: Client, vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    assert sign_in(client, vera, next="/jobs/")["Location"] == "/login/second/?next=%2Fjobs%2F"
    assert client.get("/")["Location"].startswith("/login/")
    wrong = client.post("/login/second/", {"_otp": "000000", "next": "/jobs/"})
    assert wrong.status_code == 401 and factors.WRONG in wrong.content.decode()
    answer = client.post("/login/second/", {"_otp": clock.next(), "next": "/jobs/"})
    assert (answer.status_code, answer["Location"]) == (302, "/jobs/")
    assert client.get("/").status_code == 200
    assert Client().get("/login/second/?next=/jobs/")["Location"] == "/login/?next=%2Fjobs%2F"


def test_a_password_that_changed_meanwhile_ends_the_second_step(client: Client, vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    sign_in(client, vera)
    factories.leave(vera, token_version=vera.token_version + 1)
    assert client.post("/login/second/", {"_otp": clock.next()})["Location"].startswith("/login/?")


def test_setting_up_on_the_profile(client: Client, vera: User, clock: Clock) -> None:
    sign_in(client, vera)
    other = Client()
    sign_in(other, vera)
    wrong = client.post("/profile/second-factor/app/", {"password": "wrong password"})
    assert wrong.status_code == 400 and "not your current password" in wrong.content.decode()
    page = client.post("/profile/second-factor/app/", {"password": PASSWORD}).content.decode()
    seed = re.search(r'id="seed"[^>]*>([A-Z2-7 ]+)<', page)
    assert seed is not None and "<svg" in page and "otpauth://totp/" in page and "style=" not in page
    app = pyotp.TOTP(seed[1].replace(" ", ""))
    bad = client.post("/profile/second-factor/app/confirm/", {"code": "000000"})
    assert bad.status_code == 400 and "not the app" in bad.content.decode()
    vera.refresh_from_db()
    assert not vera.has_factor
    done = client.post("/profile/second-factor/app/confirm/", {"code": app.at(int(clock.now()))})
    codes = re.findall(r'class="l">([a-z2-9]{5}-[a-z2-9]{5})<', done.content.decode())
    assert len(codes) == 10
    vera.refresh_from_db()
    assert vera.has_totp and factors.seed_of(vera) == app.secret
    assert client.get("/profile/").status_code == 200 and other.get("/profile/").status_code == 302
    assert Event.objects.filter(action="factor.added").count() == 1


def test_a_form_that_needs_the_factor_comes_back_with_its_fields(client: Client, ada: User, clock: Clock) -> None:
    give_app(ada, clock)
    sign_in(client, ada, clock.next())
    invite = {"email": "new@example.com", "role": "operator"}
    _no_longer_fresh(client)
    asked = client.post("/settings/people/", invite)
    text = asked.content.decode()
    assert asked.status_code == 403 and "Is it still you?" in text
    assert '<input type="hidden" name="email" value="new@example.com">' in text and 'action="/settings/people/"' in text
    wrong = client.post("/settings/people/", {**invite, "_otp": "000000"})
    assert wrong.status_code == 400 and 'value="new@example.com"' in wrong.content.decode()
    before = client.session.session_key
    done = client.post("/settings/people/", {**invite, "_otp": clock.next()})
    assert done.status_code in (200, 302)
    assert Event.objects.filter(action="user.invited", target="user:new@example.com").count() == 1
    assert client.session.session_key != before
    assert client.post("/settings/people/", {**invite, "email": "b@example.com"}).status_code in (200, 302)


def _no_longer_fresh(client: Client) -> None:
    session = client.session
    session["_fresh_until"] = "2020-01-01T00:00:00+00:00"
    session.save()


def test_the_step_up_page_leads_on(client: Client, ada: User, clock: Clock) -> None:
    give_app(ada, clock)
    sign_in(client, ada, clock.next())
    _no_longer_fresh(client)
    assert client.get("/step-up/?next=/tokens/").status_code == 200
    assert client.post("/step-up/", {"next": "//evil.example", "_otp": clock.next()})["Location"] == "/"
    assert client.post("/step-up/", {"next": "/jobs/", "_otp": clock.next()})["Location"] == "/jobs/"


def test_removing_the_app_needs_the_password_and_a_fresh_factor(client: Client, vera: User, clock: Clock) -> None:
    give_app(vera, clock)
    sign_in(client, vera, clock.next())
    _no_longer_fresh(client)
    path = "/profile/second-factor/app/remove/"
    assert client.post(path, {"password": PASSWORD}).status_code == 403
    assert client.post(path, {"password": "wrong password", "_otp": clock.next()}).status_code == 400
    assert client.post(path, {"password": PASSWORD}).status_code == 302
    vera.refresh_from_db()
    assert (vera.has_factor, vera.has_totp, vera.recovery_codes) == (False, False, [])
    assert client.get("/profile/second-factor/").status_code == 200
    assert Event.objects.filter(action="factor.removed").count() == 1


def test_new_recovery_codes_end_the_old_ones(client: Client, api: ApiClient, vera: User, clock: Clock) -> None:
    old = give_app(vera, clock)
    sign_in(client, vera, clock.next())
    page = client.post("/profile/second-factor/codes/").content.decode()
    new = re.findall(r'class="l">([a-z2-9]{5}-[a-z2-9]{5})<', page)
    assert len(new) == 10 and not set(new) & set(old)
    assert log_in(api, vera, old[0]).status_code == 401
    assert log_in(api, vera, new[0]).status_code == 200
