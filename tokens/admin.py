"""Node tokens in the Django admin: create one and see it once, revoke."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from hyprbox.lib.actors import actor_of
from hyprbox.lib.errors import HyprBoxError, StepUpRequired
from tokens import services
from tokens.models import NodeToken


@admin.register(NodeToken)
class NodeTokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "prefix", "node_id", "created_by", "created_at", "expires_at", "revoked_at", "last_used_at")
    search_fields = ("name", "prefix", "node_id")
    fields = ("name", "expires_at")
    actions = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: NodeToken, form: Any, change: bool) -> None:
        token, plaintext = services.issue_token(by=actor_of(request), name=obj.name, expires_at=obj.expires_at)
        obj.pk = token.pk
        messages.success(request, f"This is the token, shown this once: {plaintext}")

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """The audit log has it; Django's own log would say less."""

    @admin.action(description="Revoke the chosen tokens")
    def revoke(self, request: HttpRequest, queryset: QuerySet[NodeToken]) -> None:
        for token in queryset:
            try:
                services.revoke_token(by=actor_of(request), token_id=token.pk)
            except StepUpRequired:
                raise
            except HyprBoxError as error:
                messages.warning(request, f"{token.name}: {error.message}")
