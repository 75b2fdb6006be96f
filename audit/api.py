"""GET /api/audit, its export and its verification."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.views import APIView

from audit import downloads, selectors, services
from audit.exports import FORMATS
from audit.models import Event
from audit.verifying import CannotTell, Report
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.api import Pages, StrictSerializer, actor_of, parse_query
from hyprbox.lib.paging import LongPaginator


class EventSerializer(serializers.ModelSerializer[Event]):
    class Meta:
        model = Event
        fields = ("id", "at", "action", "actor_kind", "actor_name", "target", "detail", "ip", "request_id")


class EventFilter(StrictSerializer):
    actor = serializers.CharField(required=False, max_length=254)
    action = serializers.CharField(required=False, max_length=60)
    target = serializers.CharField(required=False, max_length=255)
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)


class EventListQuery(EventFilter):
    before = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)


class EventQuery(EventListQuery):
    page = serializers.CharField(required=False)
    page_size = serializers.CharField(required=False)


class ExportQuery(EventFilter):
    format = serializers.ChoiceField(choices=sorted(FORMATS), default="jsonl")


class Export(APIView):
    """GET /api/audit/export: the entries as a file, a row at a time."""

    def get(self, request: Request) -> StreamingHttpResponse:
        by = actor_of(request)
        require(by, Capability.VIEW_OWN_AUDIT)
        return downloads.as_file(by, parse_query(ExportQuery, request))


class Verify(APIView):
    """GET /api/audit/verify: walks the whole chain."""

    def get(self, request: Request) -> Response:
        by = actor_of(request)
        require(by, Capability.VIEW_OWN_AUDIT)
        downloads.heavy.take(by.id)
        try:
            report = services.verify_log(by=by)
        except CannotTell as error:
            report = Report(why=str(error))
        return Response(report.as_dict())


class EventPages(Pages):
    """`next` leads to what is older than the last entry shown (`before`), so that no page is slower than the first."""

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        before = parse_query(EventQuery, request).get("before")
        if before is None:
            shown = super().paginate_queryset(queryset, request, view)
            self.last = shown[-1].pk if shown and self.page is not None and self.page.has_next() else None
            return shown
        self.request, self.page = request, None
        size = self.get_page_size(request) or self.page_size
        self.total = LongPaginator(queryset, size).count
        found = selectors.slice_of(queryset, size=size, before=before)
        self.last = found.older_than
        return found.events

    def get_next_link(self) -> str | None:
        if self.last is None or self.request is None:
            return None
        address = remove_query_param(self.request.build_absolute_uri(), self.page_query_param)
        return str(replace_query_param(address, "before", self.last))

    def get_previous_link(self) -> str | None:
        return None if self.page is None else super().get_previous_link()

    def get_paginated_response(self, data: Any) -> Response:
        if self.page is not None:
            return super().get_paginated_response(data)
        return Response({"count": self.total, "next": self.get_next_link(), "previous": None, "results": data})


class Events(generics.ListAPIView[Event]):
    serializer_class = EventSerializer
    pagination_class = EventPages
    queryset = Event.objects.none()

    def get_queryset(self):  # type: ignore[no-untyped-def]
        request: Request = self.request
        query = parse_query(EventQuery, request)
        for name in ("page", "page_size", "before"):
            query.pop(name, None)
        return selectors.list_events(by=actor_of(request), **query)
