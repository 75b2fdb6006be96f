"""The profile: one's own name, address, password, sessions and keys."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import logout as end_page_session
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from accounts import keys, logins, passwords, people, selectors, services, tasks
from accounts.forms import KEY_LIFETIMES, EmailForm, KeyForm, NameForm, PasswordForm, add_errors
from hyprbox.lib import pages
from hyprbox.lib.actors import Actor, Scope, actor_of
from hyprbox.lib.errors import Conflict, InvalidInput, RateLimited
from hyprbox.lib.middleware import with_wait
from hyprbox.lib.pages import Crumb

# What a key with each scope may do, in words.
SCOPE_WORDS = {Scope.READ: "Read", Scope.RUN: "Read and run", Scope.ADMIN: "Everything you may"}


@never_cache
@require_safe
def profile(request: HttpRequest) -> HttpResponse:
    return _page(request)


def _page(request: HttpRequest, status: int = 200, **context: Any) -> HttpResponse:
    by = pages.actor_of(request)
    user = services.whoami(by=by)
    shown = {
        "person": user,
        "name_form": NameForm(initial={"name": user.name}),
        "email_form": EmailForm(),
        "password_form": PasswordForm(),
        "key_form": KeyForm(initial={"scope": Scope.READ, "days": "90"}),
        "lifetimes": KEY_LIFETIMES,
        "scopes": [(scope, SCOPE_WORDS[scope]) for scope in Scope if keys.may_have(by, scope)],
        "keys": [(key, SCOPE_WORDS.get(Scope(key.scopes[-1]), "")) for key in selectors.list_keys(by=by)],
        "logins": selectors.list_logins(by=by),
        **context,
    }
    return pages.show(request, "accounts/profile.html", shown, nav="profile", crumbs=(Crumb("Profile"),), status=status)


def _try(request: HttpRequest, name: str, form: forms.Form, verb: Callable[[], Any]) -> tuple[Any, HttpResponse | None]:
    """What `verb` gives, or the page that says beside the inputs of form `name` why not."""
    pages.actor_of(request)
    if not form.is_valid():
        return None, _page(request, 400, **{name: form})
    try:
        return verb(), None
    except (InvalidInput, Conflict, RateLimited) as error:
        add_errors(form, error.fields, error.message)
        return None, with_wait(_page(request, error.status, **{name: form}), error)


@require_POST
def change_name(request: HttpRequest) -> HttpResponse:
    form = NameForm(request.POST)
    _, refusal = _try(
        request, "name_form", form, lambda: people.change_profile(by=actor_of(request), **form.cleaned_data)
    )
    if refusal:
        return refusal
    messages.success(request, "Your name is changed.")
    return redirect("profile")


@sensitive_post_parameters("password")
@require_POST
def change_email(request: HttpRequest) -> HttpResponse:
    form = EmailForm(request.POST)
    changed, refusal = _try(
        request, "email_form", form, lambda: people.change_email(by=actor_of(request), **form.cleaned_data)
    )
    if refusal:
        return refusal
    user, before = changed
    tasks.tell_email_changed.defer(user_id=str(user.pk), before=before)
    messages.success(request, f"Your address is {user.email} now. A letter to the old one says so.")
    return redirect("profile")


@sensitive_post_parameters("current", "new")
@require_POST
def change_password(request: HttpRequest) -> HttpResponse:
    form = PasswordForm(request.POST)
    user, refusal = _try(
        request, "password_form", form, lambda: passwords.change_password(by=actor_of(request), **form.cleaned_data)
    )
    if refusal:
        return refusal
    update_session_auth_hash(request, user)
    tasks.tell_password_changed.defer(user_id=str(user.pk))
    messages.success(request, "Your password is changed. You are signed out everywhere else.")
    return redirect("profile")


@require_POST
def end_session(request: HttpRequest, session_id: uuid.UUID) -> HttpResponse:
    """End one of one's own, or anyone's for an admin; then back to where the button was."""
    by: Actor = pages.actor_of(request)
    if str(session_id) == by.session:
        services.log_out(by=by)
        end_page_session(request)
        return redirect("login")
    logins.end_session(by=by, session_id=session_id)
    messages.success(request, "The session is ended.")
    return redirect(pages.safe_next(request, "/profile/"))


@require_POST
def sign_out_everywhere(request: HttpRequest) -> HttpResponse:
    services.log_out(by=pages.actor_of(request), everywhere=True)
    end_page_session(request)
    return redirect("login")


@never_cache
@require_POST
def create_key(request: HttpRequest) -> HttpResponse:
    """The answer is the only page that ever shows the key."""
    form = KeyForm(request.POST)

    def make() -> Any:
        given = form.cleaned_data
        scopes = [given["scope"]]
        return keys.create_key(by=actor_of(request), name=given["name"], scopes=scopes, expires_at=form.expires_at())

    made, refusal = _try(request, "key_form", form, make)
    return refusal or _page(request, made={"key": made[0], "plaintext": made[1]})


@require_POST
def revoke_key(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    key = keys.revoke_key(by=pages.actor_of(request), key_id=key_id)
    messages.success(request, f"“{key.name}” is revoked. Whatever uses it is refused from now on.")
    return redirect("profile")
