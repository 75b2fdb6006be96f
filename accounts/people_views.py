"""Settings, People: who may sign in, for admins."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import factors, logins, mails, people, selectors
from accounts.errors import UnknownUser
from accounts.forms import InviteForm, PersonForm, add_errors
from accounts.models import User
from hyprbox.lib import pages
from hyprbox.lib.actors import Capability, Role, actor_of, require
from hyprbox.lib.errors import HyprBoxError, InvalidInput, StepUpRequired
from hyprbox.lib.middleware import tell_refusal, with_wait
from hyprbox.lib.pages import Crumb

PAGE_SIZE = 50
_START = {"role": Role.VIEWER}


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def person_list(request: HttpRequest) -> HttpResponse:
    """All people, open invitations and the form for a new one; its answer alone shows the link, if no letter went out."""
    require(pages.actor_of(request), Capability.MANAGE_USERS)
    if request.method != "POST":
        return _list(request, InviteForm(initial=_START))
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _list(request, form, status=400)
    try:
        invitation, secret = people.invite(by=actor_of(request), **form.cleaned_data)
    except StepUpRequired:
        raise
    except HyprBoxError as error:
        tell_refusal(request, error)
        add_errors(form, error.fields or {"email": [error.message]}, error.message)
        return with_wait(_list(request, form, status=error.status), error)
    if mails.send_invitation(invitation, secret):
        messages.success(request, f"The invitation to {invitation.email} is on its way.")
        return redirect("people")
    made = {"invitation": invitation, "link": mails.invitation_address(secret)}
    return _list(request, InviteForm(initial=_START), made=made)


def _list(request: HttpRequest, form: InviteForm, *, status: int = 200, **context: Any) -> HttpResponse:
    by = actor_of(request)
    page = pages.page_of(request, selectors.list_users(by=by), PAGE_SIZE)
    invitations = selectors.list_invitations(by=by)
    shown = {"form": form, "page": page, "invitations": invitations, "roles": Role.choices, **context}
    crumbs = (Crumb("Settings"), Crumb("People"))
    return pages.show(request, "accounts/people.html", shown, nav="settings", crumbs=crumbs, status=status)


@require_safe
def person(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    """One person: role, whether they may sign in, where they are signed in."""
    return _person(request, user_id)


def _person(
    request: HttpRequest, user_id: uuid.UUID, form: PersonForm | None = None, status: int = 200
) -> HttpResponse:
    by = pages.actor_of(request)
    user = selectors.list_users(by=by).filter(pk=user_id).first()
    if user is None:
        raise UnknownUser()
    context = {
        "person": user,
        "form": form or PersonForm(initial={"name": user.name, "role": user.role}),
        "roles": Role.choices,
        "logins": selectors.list_logins(by=by, user_id=user.pk),
        "is_oneself": str(user.pk) == by.id,
    }
    crumbs = (Crumb("Settings"), Crumb("People", reverse("people")), Crumb(user.email))
    return pages.show(request, "accounts/person.html", context, nav="settings", crumbs=crumbs, status=status)


@require_POST
def change(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    pages.actor_of(request)
    form = PersonForm(request.POST)
    if not form.is_valid():
        return _person(request, user_id, form, 400)
    given = {name: value for name, value in form.cleaned_data.items() if value}
    try:
        user = people.change_user(by=actor_of(request), user_id=user_id, **given)
    except InvalidInput as error:
        add_errors(form, error.fields, error.message)
        return _person(request, user_id, form, 400)
    messages.success(request, f"{user.email} is changed.")
    return redirect("person", user.pk)


@require_POST
def enable(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    return _act(request, user_id, partial(people.change_user, is_active=True), "may sign in again.")


@require_POST
def disable(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    told = "is disabled and signed out everywhere."
    return _act(request, user_id, partial(people.change_user, is_active=False), told)


@require_POST
def sign_out(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    return _act(request, user_id, logins.end_all_of, "is signed out everywhere.")


@require_POST
def reset_factor(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    told = "has no second factor any more, and is signed out everywhere."
    return _act(request, user_id, factors.reset, told)


def _act(request: HttpRequest, user_id: uuid.UUID, verb: Callable[..., User], told: str) -> HttpResponse:
    """Do it to this person, say what came of it and show them again."""
    pages.actor_of(request)
    user = verb(by=actor_of(request), user_id=user_id)
    messages.success(request, f"{user.email} {told}")
    return redirect("person", user.pk)


@require_POST
def remove(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    pages.actor_of(request)
    user = people.remove_user(by=actor_of(request), user_id=user_id)
    messages.success(request, f"{user.email} is removed. The audit log keeps what they did.")
    return redirect("people")


@require_POST
def revoke_invitation(request: HttpRequest, invitation_id: uuid.UUID) -> HttpResponse:
    pages.actor_of(request)
    invitation = people.revoke_invitation(by=actor_of(request), invitation_id=invitation_id)
    messages.success(request, f"The invitation to {invitation.email} is taken back.")
    return redirect("people")
