"""Pages for people who are not signed in: a forgotten password, and the two links that letters carry."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import mails, passwords, people, tasks
from accounts.account_api import ask_for_reset
from accounts.errors import LinkInvalid
from accounts.forms import InvitationForm, NewPasswordForm, ResetForm, add_errors
from hyprbox.lib.actors import actor_of
from hyprbox.lib.errors import HyprBoxError
from hyprbox.lib.middleware import tell_refusal, with_wait

METHODS = ["GET", "HEAD", "POST"]


def _page(request: HttpRequest, template: str, status: int = 200, **context: Any) -> HttpResponse:
    host = urlsplit(settings.HYPRBOX_PUBLIC_URL).netloc
    return render(request, f"accounts/{template}.html", {"host": host, **context}, status=status)


def _refused(
    request: HttpRequest, template: str, form: forms.Form, error: HyprBoxError, **context: Any
) -> HttpResponse:
    """The form again, with what was wrong."""
    tell_refusal(request, error)
    add_errors(form, error.fields, error.message)
    return with_wait(_page(request, template, error.status, form=form, **context), error)


@never_cache
@require_http_methods(METHODS)
def reset(request: HttpRequest) -> HttpResponse:
    """Ask for a link. The answer is the same for every address, and says how the link gets to its owner."""
    is_mailed = mails.reaches_people()
    if request.method != "POST":
        return _page(request, "reset", form=ResetForm(), is_mailed=is_mailed)
    form = ResetForm(request.POST)
    if not form.is_valid():
        return _page(request, "reset", 400, form=form, is_mailed=is_mailed)
    try:
        ask_for_reset(form.cleaned_data["email"], actor_of(request).ip)
    except HyprBoxError as error:
        return _refused(request, "reset", form, error, is_mailed=is_mailed)
    return _page(request, "reset", form=form, sent=form.cleaned_data["email"], is_mailed=is_mailed)


@never_cache
@sensitive_post_parameters("new")
@require_http_methods(METHODS)
def reset_confirm(request: HttpRequest, secret: str) -> HttpResponse:
    """Choose a new password with a link."""
    try:
        user = passwords.find_reset(secret).user
    except LinkInvalid as error:
        tell_refusal(request, error)
        return _page(request, "link_over", error.status, message=error.message, again=True)
    if request.method != "POST":
        return _page(request, "new_password", form=NewPasswordForm(), person=user)
    form = NewPasswordForm(request.POST)
    if not form.is_valid():
        return _page(request, "new_password", 400, form=form, person=user)
    try:
        user = passwords.confirm_reset(secret=secret, new=form.cleaned_data["new"], by=actor_of(request))
    except HyprBoxError as error:
        return _refused(request, "new_password", form, error, person=user)
    tasks.tell_password_changed.defer(user_id=str(user.pk))
    messages.success(request, "Your password is changed. Sign in with it.")
    return redirect("login")


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(METHODS)
def invitation(request: HttpRequest, secret: str) -> HttpResponse:
    """Make the account that an admin offered."""
    try:
        found = people.find_invitation(secret)
    except LinkInvalid as error:
        tell_refusal(request, error)
        return _page(request, "link_over", error.status, message=error.message, again=False)
    if request.method != "POST":
        return _page(request, "invitation", form=InvitationForm(), invitation=found)
    form = InvitationForm(request.POST)
    if not form.is_valid():
        return _page(request, "invitation", 400, form=form, invitation=found)
    try:
        people.accept_invitation(secret=secret, by=actor_of(request), **form.cleaned_data)
    except HyprBoxError as error:
        return _refused(request, "invitation", form, error, invitation=found)
    messages.success(request, "Your account is ready. Sign in with your new password.")
    return redirect("login")
