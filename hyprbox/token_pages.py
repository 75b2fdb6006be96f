"""Settings, agent tokens. Creating one touches tokens and nodes, so these pages are on the roof."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from hyprbox import enrolment
from hyprbox.lib import pages, signing
from hyprbox.lib.actors import actor_of
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.pages import Crumb
from tokens import selectors, services
from tokens.models import NodeToken

CRUMBS = (Crumb("Settings"), Crumb("Agent tokens"))
LIFETIMES = (("", "Never"), ("1", "24 hours"), ("7", "7 days"), ("30", "30 days"), ("365", "A year"))
SOON = timedelta(days=1)


class TokenForm(forms.Form):
    """A new token. Without a node it is pinned to the first one that uses it."""

    name = forms.CharField(
        max_length=120, error_messages={"required": "Give the token a name, so that you know it again."}
    )
    node_id = forms.CharField(max_length=63, required=False)
    days = forms.ChoiceField(choices=LIFETIMES, required=False)

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["days"]
        return timezone.now() + timedelta(days=int(days)) if days else None


@dataclass(frozen=True, slots=True)
class Row:
    """A token in the list."""

    token: NodeToken
    state: str

    @property
    def can_be_revoked(self) -> bool:
        return self.state not in ("REVOKED", "EXPIRED")

    @property
    def can_be_rotated(self) -> bool:
        """One that no agent has is made anew instead."""
        return self.state in ("ACTIVE", "ENDS_SOON") and bool(self.token.node_id)


def state_of(token: NodeToken, now: datetime) -> str:
    if token.revoked_at is not None:
        return "REVOKED"
    if token.expires_at is not None and token.expires_at <= now:
        return "EXPIRED"
    if token.expires_at is not None and token.expires_at - now < SOON:
        return "ENDS_SOON"
    return "ACTIVE" if token.last_used_at is not None else "UNUSED"


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def token_list(request: HttpRequest) -> HttpResponse:
    """All tokens and the form for a new one; the answer to the form is the only page that ever shows its secret."""
    pages.actor_of(request)
    if request.method != "POST":
        return _page(request, TokenForm(initial={"days": ""}))
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, form, status=400)
    given = form.cleaned_data
    try:
        made = enrolment.enrol(
            by=actor_of(request), name=given["name"], node_id=given["node_id"].strip(), expires_at=form.expires_at()
        )
    except InvalidInput as error:
        for name, sentences in error.fields.items():
            form.add_error(name if name in form.fields else None, sentences)
        return _page(request, form, status=400)
    return _page(request, TokenForm(initial={"days": ""}), made=made)


def _page(
    request: HttpRequest, form: TokenForm, *, made: enrolment.Enrolment | None = None, status: int = 200
) -> HttpResponse:
    now = timezone.now()
    page = pages.page_of(request, selectors.list_tokens(by=actor_of(request)), 50)
    context: dict[str, Any] = {
        "form": form,
        "lifetimes": LIFETIMES,
        "made": made,
        "keys_sha256": signing.key_set_sha256() if made else "",
        "page": page,
        "rows": [Row(token, state_of(token, now)) for token in page],
    }
    topics = ("tokens", *((f"enrol-{made.token.pk}",) if made else ()))
    return pages.show(request, "tokens/list.html", context, nav="settings", crumbs=CRUMBS, topics=topics, status=status)


@never_cache
@require_POST
def rotate(request: HttpRequest, token_id: uuid.UUID) -> HttpResponse:
    """A successor for a token; this answer is the only page that ever shows its secret."""
    pages.actor_of(request)
    token, plaintext = services.rotate_token(by=actor_of(request), token_id=token_id)
    return _page(request, TokenForm(initial={"days": ""}), made=enrolment.Enrolment(token, plaintext))


@require_POST
def revoke(request: HttpRequest, token_id: uuid.UUID) -> HttpResponse:
    pages.actor_of(request)
    token = services.revoke_token(by=actor_of(request), token_id=token_id)
    messages.success(request, f"“{token.name}” is revoked. Its agent is refused from now on.")
    return redirect("tokens:list")
