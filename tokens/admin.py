"""Node tokens in the Django admin: create one and see it once, revoke."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from hyprbox.lib.actors import actor_of
from hyprbox.lib.admin import VerbAdmin, told
from hyprbox.lib.errors import HyprBoxError, SecondFactorRequired, StepUpRequired
from tokens import services
from tokens.models import NodeToken


@admin.register(NodeToken)
class NodeTokenAdmin(VerbAdmin):
    list_display = ("name", "prefix", "node_id", "created_by", "created_at", "expires_at", "revoked_at", "last_used_at")
    search_fields = ("name", "prefix", "node_id")
    fields = ("name", "expires_at")
    actions = ("revoke",)

    def audit_target(self, obj: NodeToken) -> str:
        return f"token:{obj.pk}"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        token, obj.plaintext = services.issue_token(by=actor_of(request), name=obj.name, expires_at=obj.expires_at)
        obj.pk = token.pk

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> HttpResponse:
        """The only page that ever shows the token. A message would take it through a cookie to the next page."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": obj.name,
            "token": obj.plaintext,
        }
        return TemplateResponse(request, "tokens/admin_issued.html", context)

    @admin.action(description="Revoke the chosen tokens")
    def revoke(self, request: HttpRequest, queryset: QuerySet[NodeToken]) -> None:
        for token in queryset:
            try:
                services.revoke_token(by=actor_of(request), token_id=token.pk)
            except (StepUpRequired, SecondFactorRequired):
                raise
            except HyprBoxError as error:
                messages.warning(request, f"{token.name}: {told(error)}")
