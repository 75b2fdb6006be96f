"""Django's own admin: another set of pages over the same verbs, behind the same sign-in."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, clear_url_caches, get_resolver

import hyprbox.urls
from accounts.models import PageSession, RateCounter, User
from accounts.tests.apps import Clock, give_app
from audit import sealed
from audit import services as audit
from audit.actions import Action
from audit.models import Event
from hyprbox.lib import searching
from hyprbox.lib.actors import Role
from hyprbox.lib.admin import VerbAdmin
from hyprbox.lib.lanes import TokenBucket
from tests import factories
from tests.factories import PASSWORD, SYSTEM
from tokens.models import NodeToken

ADMIN = "/django-admin"
USERS, TOKENS, EVENTS = f"{ADMIN}/accounts/user/", f"{ADMIN}/tokens/nodetoken/", f"{ADMIN}/audit/event/"
NEW = {"email": "new@example.com", "name": "New", "role": "viewer", "password": "a passphrase nobody guesses"}


def signed_in(user: User) -> Client:
    client = Client()
    assert client.post("/login/", {"email": user.email, "password": PASSWORD}).status_code == 302
    return client


def text(answer: HttpResponse) -> str:
    return answer.content.decode()


def actions() -> list[str]:
    return list(Event.objects.order_by("id").values_list("action", flat=True))


def all_addresses(resolver: URLResolver, before: str = "") -> Iterator[str]:
    for entry in resolver.url_patterns:
        here = before + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield here
        else:
            yield from all_addresses(entry, here)


def test_it_has_no_sign_in_of_its_own(client: Client, ada: User) -> None:
    answer = client.get(f"{ADMIN}/", follow=True)
    assert answer.redirect_chain[-1][0] == "/login/?next=%2Fdjango-admin%2F"
    assert client.post(f"{ADMIN}/login/", {"username": ada.email, "password": PASSWORD}).status_code == 302
    assert client.get(f"{ADMIN}/").status_code == 302
    ours = signed_in(ada)
    assert ours.get(USERS).status_code == 200
    assert ours.get(f"{ADMIN}/password_change/")["Location"] == "/profile/"
    assert ours.post(f"{ADMIN}/logout/")["Location"] == "/login/"
    assert actions()[-1] == "logout.done" and not PageSession.objects.filter(user=ada).exists()


@pytest.mark.parametrize("who", ["nobody", "vera", "otto", "mallory"])
def test_none_of_its_addresses_is_for_anyone_but_admins(
    request: pytest.FixtureRequest, client: Client, ada: User, who: str
) -> None:
    if who != "nobody":
        client.force_login(request.getfixturevalue(who))
    token = factories.token_row(factories.make_token())
    pages = [address for address in all_addresses(get_resolver()) if address.startswith("django-admin/")]
    assert len(pages) > 20
    open_to_all = (f"{ADMIN}/login/", f"{ADMIN}/logout/", f"{ADMIN}/password_change/")
    for page in pages:
        path = "/" + re.sub(r"<[a-z_]+:?\w*>", str(token.pk), re.sub(r"\^|\$|\(\?P<\w+>.*", "", page))
        if path not in open_to_all:
            for answer in (client.get(path), client.post(path, NEW)):
                assert answer.status_code in (302, 403, 404, 405), path
                assert answer.status_code != 302 or "/login/" in answer["Location"], (path, answer["Location"])
    assert not User.objects.filter(email=NEW["email"]).exists()


def test_people_are_made_and_changed_by_the_same_verbs(ada: User, otto: User) -> None:
    ours = signed_in(ada)
    assert ours.post(f"{USERS}add/", NEW).status_code == 302
    made = User.objects.get(email=NEW["email"])
    assert sealed.problem(made) == "" and made.check_password(NEW["password"])
    assert "too short" in text(ours.post(f"{USERS}add/", {**NEW, "email": "x@example.com", "password": "short"}))
    ours.post(f"{USERS}{otto.pk}/change/", {"name": "Otto", "role": "viewer", "is_active": "on"})
    otto.refresh_from_db()
    assert (otto.role, otto.token_version, sealed.problem(otto)) == (Role.VIEWER, 2, "")
    refused = ours.post(f"{USERS}{ada.pk}/change/", {"name": "Ada", "role": "viewer", "is_active": "on"}, follow=True)
    assert "Nobody changes their own role" in text(refused)
    assert User.objects.get(pk=ada.pk).role == Role.ADMIN
    assert [name for name in actions() if name.startswith("user.")] == ["user.created", "user.changed"]


def test_nothing_is_deleted_here_one_by_one_or_many_at_once(ada: User, otto: User) -> None:
    ours = signed_in(ada)
    token, event = factories.token_row(factories.make_token()), Event.objects.latest("id")
    for place, pk in ((USERS, otto.pk), (TOKENS, token.pk), (EVENTS, event.pk)):
        assert ours.post(f"{place}{pk}/delete/", {"post": "yes"}).status_code == 403
        ours.post(place, {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
        assert "delete_selected" not in text(ours.get(place))
    assert User.objects.count() == 2 and NodeToken.objects.count() == 1
    assert Event.objects.filter(pk=event.pk).exists()


def test_a_token_is_on_one_page_once(ada: User) -> None:
    ours = signed_in(ada)
    answer = ours.post(f"{TOKENS}add/", {"name": "rack 4", "expires_at_0": "", "expires_at_1": ""})
    [plaintext] = re.findall(r"hbnt_[a-z0-9]{8}[A-Za-z0-9_-]{43}", text(answer))
    row = factories.token_row(plaintext)
    assert (row.name, row.created_by, sealed.problem(row)) == ("rack 4", ada.email, "")
    assert answer["Cache-Control"] and "no-store" in answer["Cache-Control"]
    assert plaintext not in str(answer.cookies)
    for page in (ours.get(TOKENS), ours.get(f"{TOKENS}{row.pk}/change/"), ours.get("/settings/tokens/")):
        assert page.status_code == 200 and plaintext not in text(page) and bytes(row.digest).hex() not in text(page)
    assert plaintext not in str(dict(ours.session.items()))


def test_many_tokens_are_revoked_at_once_each_with_its_entry(ada: User, web_1: Any) -> None:
    ours = signed_in(ada)
    rows = [factories.token_row(factories.make_token(web_1)) for _ in range(3)]
    ours.post(TOKENS, {"action": "revoke", "_selected_action": [row.pk for row in rows]})
    assert NodeToken.objects.filter(revoked_at=None).count() == 0
    assert [sealed.problem(row) for row in NodeToken.objects.all()] == [""] * 3
    assert actions()[-3:] == ["token.revoked"] * 3
    again = ours.post(TOKENS, {"action": "revoke", "_selected_action": [rows[0].pk]}, follow=True)
    assert "revoked already" in text(again)


def test_the_log_is_there_to_be_read(ada: User) -> None:
    ours = signed_in(ada)
    audit.record(Action.NODE_CHANGED, by=SYSTEM, target="node:web-7", detail={"note": "<b>x</b>"})
    event = Event.objects.latest("id")
    assert "node:web-7" in text(ours.get(f"{EVENTS}?q=node:web-7"))
    assert "node:web-7" in text(ours.get(f"{EVENTS}?action=node.changed"))
    assert "node:web-7" not in text(ours.get(f"{EVENTS}?action=token.created"))
    shown = text(ours.get(f"{EVENTS}{event.pk}/change/"))
    assert "node:web-7" in shown and "<b>x</b>" not in shown and 'name="_save"' not in shown
    assert ours.post(f"{EVENTS}{event.pk}/change/", {"target": "x"}).status_code == 403
    assert ours.get(f"{EVENTS}add/").status_code == 403


def test_history_is_the_audit_logs(ada: User, otto: User) -> None:
    ours = signed_in(ada)
    ours.post(f"{USERS}{otto.pk}/change/", {"name": "O", "role": "viewer", "is_active": "on"})
    history = ours.get(f"{USERS}{otto.pk}/history/")
    assert history["Location"] == "/audit/?target=user%3Aotto%40example.com"
    assert "user.changed" in text(ours.get(history["Location"]))
    assert not LogEntry.objects.exists()


def test_it_asks_for_the_second_factor_like_every_page(ada: User, otto: User, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    give_app(ada, clock)
    client = Client()
    client.post("/login/", {"email": ada.email, "password": PASSWORD})
    assert client.get(USERS).status_code == 302  # the password alone opens nothing here either
    client.post("/login/second/", {"_otp": clock.next()})
    session = client.session
    session["_fresh_until"] = "2020-01-01T00:00:00+00:00"
    session.save()
    token = factories.token_row(factories.make_token())
    forms = {
        f"{USERS}add/": NEW,
        f"{USERS}{otto.pk}/change/": {"name": "Otto", "role": "admin", "is_active": "on"},
        f"{TOKENS}add/": {"name": "rack 5", "expires_at_0": "", "expires_at_1": ""},
        TOKENS: {"action": "revoke", "_selected_action": [str(token.pk)]},
    }
    for path, form in forms.items():
        assert client.post(path, form).status_code == 403, path
    otto.refresh_from_db()
    assert otto.role == Role.OPERATOR and NodeToken.objects.count() == 1 and User.objects.count() == 2
    assert "Is it still you?" in text(client.post(TOKENS, forms[TOKENS]))
    client.post(TOKENS, {**forms[TOKENS], "_otp": clock.next()})
    token.refresh_from_db()
    assert token.revoked_at is not None


def test_it_is_behind_the_same_limits(client: Client, ada: User) -> None:
    for _ in range(11):
        answer = client.post(f"{ADMIN}/login/", {"email": ada.email, "password": "wrong"}, follow=True)
    assert answer.status_code in (200, 429)
    assert not RateCounter.objects.exists(), "its own form reaches no hasher: it is a way to ours"


# --- searches ---

TOO_MUCH = "Search for at most 5 words of 100 characters together."


@pytest.mark.parametrize("words", ["x" * 101, "a b c d e f", " ".join("x" * 2 for _ in range(5000)), '"' * 101])
@pytest.mark.parametrize("place", [USERS, TOKENS, EVENTS])
def test_a_search_without_end_is_not_made(ada: User, place: str, words: str) -> None:
    ours = signed_in(ada)
    answer = ours.get(place, {"q": words, "o": "1"}, follow=True)
    assert answer.redirect_chain == [(f"{place}?o=1", 302)]
    assert TOO_MUCH in text(answer)
    assert ours.post(f"{place}?{urlencode({'q': words})}", {"action": "revoke"})["Location"] == place


@pytest.mark.parametrize("words", ["x" * 100, "ada b c d e"])
@pytest.mark.parametrize("place", [USERS, TOKENS, EVENTS])
def test_a_search_within_the_limits_is(ada: User, place: str, words: str) -> None:
    answer = signed_in(ada).get(place, {"q": words})
    assert answer.status_code == 200 and TOO_MUCH not in text(answer)


def test_few_letters_find_whole_values_only(ada: User) -> None:
    ours = signed_in(ada)
    audit.record(Action.NODE_CHANGED, by=SYSTEM, target="ab", detail={})
    assert ">ab<" in text(ours.get(f"{EVENTS}?q=ab"))
    answer = ours.get(f"{USERS}?q=ad", follow=True)
    assert searching.HINT in text(answer) and ada.email in text(answer)
    assert ada.email in text(ours.get(f"{USERS}?q=ada")) and "otto" not in text(ours.get(f"{USERS}?q=ada"))


def test_what_completes_a_name_has_the_same_bound(ada: User) -> None:
    asked = {"app_label": "accounts", "model_name": "apikey", "field_name": "user"}
    ours = signed_in(ada)
    found = ours.get(f"{ADMIN}/autocomplete/", {**asked, "term": "ada@"})
    assert [one["text"] for one in found.json()["results"]] == [str(ada)]
    refused = ours.get(f"{ADMIN}/autocomplete/", {**asked, "term": "a b c d e f"})
    assert refused.status_code == 400 and TOO_MUCH in text(refused)


def test_a_search_takes_two_seconds_and_is_counted(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    found = VerbAdmin.get_search_results

    def slow(self: Any, request: Any, queryset: Any, words: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            told.append(cursor.fetchone()[0])
            if words:
                cursor.execute("SELECT pg_sleep(5)")
        return found(self, request, queryset, words)

    monkeypatch.setattr(VerbAdmin, "get_search_results", slow)
    monkeypatch.setattr(searching, "SECONDS", 0.1)
    ours = signed_in(ada)
    answer = ours.get(f"{USERS}?q=ada")
    assert (answer.status_code, told[-1]) == (400, "100ms") and "longer than two seconds" in text(answer)
    assert ours.get(USERS).status_code == 200 and told[-1] == "5s"
    monkeypatch.setattr(searching, "_per_person", TokenBucket(rate=1, burst=2))
    seen = [ours.get(f"{EVENTS}?q=node:x") for _ in range(3)]
    assert [one.status_code for one in seen] == [200, 200, 429]
    assert seen[-1]["Retry-After"] == "1"


def test_it_knows_no_other_models() -> None:
    names = {model._meta.label for model in admin.site._registry}
    assert names == {"accounts.User", "tokens.NodeToken", "audit.Event"}


def test_its_path_is_a_setting(settings: Any) -> None:
    settings.HYPRBOX_ADMIN_PATH = "behind/the-curtain"
    try:
        importlib.reload(hyprbox.urls)
        clear_url_caches()
        assert Client().get("/behind/the-curtain/").status_code == 302
        assert Client().get(f"{ADMIN}/").status_code == 404
    finally:
        settings.HYPRBOX_ADMIN_PATH = "django-admin"
        importlib.reload(hyprbox.urls)
        clear_url_caches()
