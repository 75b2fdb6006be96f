"""GET /api/audit, its export and its verification."""

from __future__ import annotations

from django.http import StreamingHttpResponse
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from audit import downloads, selectors, services
from audit.exports import FORMATS
from audit.models import Event
from audit.verifying import CannotTell, Report
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.api import Pages, StrictSerializer, actor_of, parse_query
from hyprbox.lib.lanes import TokenBucket

_heavy = TokenBucket(rate=10 / 60, burst=10)  # exports and verifications, for each person


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


class EventQuery(EventFilter):
    page = serializers.CharField(required=False)
    page_size = serializers.CharField(required=False)


class ExportQuery(EventFilter):
    format = serializers.ChoiceField(choices=sorted(FORMATS), default="jsonl")


class Export(APIView):
    """GET /api/audit/export: the entries as a file, a row at a time."""

    def get(self, request: Request) -> StreamingHttpResponse:
        by = actor_of(request)
        require(by, Capability.VIEW_AUDIT)
        _heavy.take(by.id)
        return downloads.as_file(by, parse_query(ExportQuery, request))


class Verify(APIView):
    """GET /api/audit/verify: walks the whole chain."""

    def get(self, request: Request) -> Response:
        by = actor_of(request)
        require(by, Capability.VIEW_AUDIT)
        _heavy.take(by.id)
        try:
            report = services.verify_log(by=by)
        except CannotTell as error:
            report = Report(why=str(error))
        return Response(report.as_dict())


class EventList(generics.ListAPIView[Event]):
    serializer_class = EventSerializer
    pagination_class = Pages
    queryset = Event.objects.none()

    def get_queryset(self):  # type: ignore[no-untyped-def]
        request: Request = self.request
        query = parse_query(EventQuery, request)
        query.pop("page", None)
        query.pop("page_size", None)
        return selectors.list_events(by=actor_of(request), **query)
