"""Showing a second factor again, setting one up, and losing it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pyotp
import pytest
from django.test import Client

from accounts import factors, families, services
from accounts.models import User
from accounts.tests.apps import NOBODY, Clock, bearer, give_app, log_in
from accounts.tests.test_sessions import is_dead
from audit.models import Event
from tests import factories
from tests.client import ApiClient
from tests.factories import PASSWORD

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
    let_pass(ada, seconds=270)
    assert sensitive(one).status_code == 201
    let_pass(ada, seconds=30)
    assert sensitive(one).json()["error"]["code"] == "step_up_required"


def let_pass(user: User, *, seconds: int) -> None:
    """As if the factor had been shown so much earlier: the moment is sealed, so it is sealed anew."""
    for family in user.refresh_families.exclude(fresh_until=None):
        assert family.fresh_until is not None
        families.put_fresh(family, family.fresh_until - timedelta(seconds=seconds))
        family.save()


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
    before = client.cookies["hb_session"].value
    answer = client.post("/login/second/", {"_otp": clock.next(), "next": "/jobs/"})
    assert (answer.status_code, answer["Location"]) == (302, "/jobs/")
    assert client.get("/").status_code == 200
    assert client.cookies["hb_session"].value != before and is_dead(before)
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
    before = client.cookies["hb_session"].value
    done = client.post("/settings/people/", {**invite, "_otp": clock.next()})
    assert done.status_code in (200, 302)
    assert Event.objects.filter(action="user.invited", target="user:new@example.com").count() == 1
    assert client.cookies["hb_session"].value != before and is_dead(before)
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
