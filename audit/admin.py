"""The audit log in the Django admin: to read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.functional import cached_property

from audit.actions import Action
from audit.models import Event
from hyprbox.lib.admin import BoundedSearch

MOST_COUNTED = 100_000


class ActionFilter(admin.SimpleListFilter):
    """From the catalogue: which actions there are in a log of millions takes long to find out."""

    title = "action"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [(value, value) for value in Action.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        return queryset.filter(action=self.value()) if self.value() else queryset


class ShortPaginator(Paginator):  # type: ignore[type-arg]
    """Counts so far and no further; whoever looks for something older filters, or uses the page of the log."""

    @cached_property
    def count(self) -> int:
        events: Any = self.object_list
        return int(events.order_by()[:MOST_COUNTED].count())


@admin.register(Event)
class EventAdmin(BoundedSearch):
    finds_whole_values = True
    list_display = ("at", "action", "actor_name", "target", "ip")
    list_filter = (ActionFilter,)
    search_fields = ("actor_name__exact", "target__exact")
    search_help_text = "A whole name or target, such as ada@example.com or node:web-1"
    ordering = ("-id",)
    show_full_result_count = False
    paginator = ShortPaginator
    exclude = ("canonical", "hash")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("audit:list"))
