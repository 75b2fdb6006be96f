"""GET /api/audit."""

from __future__ import annotations

from rest_framework import generics, serializers
from rest_framework.request import Request

from audit import selectors
from audit.models import Event
from hyprbox.lib.api import Pages, StrictSerializer, actor_of, parse_query


class EventSerializer(serializers.ModelSerializer[Event]):
    class Meta:
        model = Event
        fields = ("id", "at", "action", "actor_kind", "actor_name", "target", "detail", "ip", "request_id")


class EventQuery(StrictSerializer):
    actor = serializers.CharField(required=False, max_length=254)
    action = serializers.CharField(required=False, max_length=60)
    target = serializers.CharField(required=False, max_length=255)
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)
    page = serializers.CharField(required=False)
    page_size = serializers.CharField(required=False)


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
