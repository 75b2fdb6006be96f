"""/api/nodes for people. The heartbeat itself is `nodes.ingest`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox.lib import searching
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.api import Pages, StrictSerializer, actor_of, chosen, parse, parse_query
from hyprbox.lib.errors import InvalidInput
from nodes import clones, selectors, series, services
from nodes.models import Node
from nodes.selectors import NodeFilter
from nodes.series import Range
from nodes.services import NodeChanges
from nodes.status import Judgement, Status

MAX_SPARKS = 200
DATE = serializers.DateTimeField()


class NodeQuery(StrictSerializer):
    status = serializers.ListField(child=serializers.CharField(max_length=80), required=False, default=list)
    group = serializers.CharField(max_length=63, required=False, default="")
    tag = serializers.CharField(max_length=63, required=False, default="")
    q = serializers.CharField(max_length=200, required=False, default="")
    ordering = serializers.CharField(max_length=40, required=False, default="node_id")
    page = serializers.CharField(required=False)
    page_size = serializers.CharField(required=False)

    def validate_status(self, given: list[str]) -> list[str]:
        return chosen(given, Status.values)


class NodePatch(StrictSerializer):
    display_name = serializers.CharField(required=False, allow_blank=True, max_length=120)
    group = serializers.CharField(required=False, allow_blank=True, max_length=63)
    tags = serializers.ListField(child=serializers.CharField(max_length=63), required=False, max_length=32)
    notes = serializers.CharField(required=False, allow_blank=True, max_length=10_000)


class RangeQuery(StrictSerializer):
    range = serializers.ChoiceField(choices=Range.choices, required=False, default=Range.DAY)


class SparksQuery(RangeQuery):
    node_id = serializers.ListField(child=serializers.CharField(max_length=63), required=False, default=list)


class ActivityQuery(StrictSerializer):
    before = serializers.DateTimeField(required=False, default=None)
    limit = serializers.IntegerField(required=False, default=50, min_value=1, max_value=200)


class NodeSerializer(serializers.ModelSerializer[Node]):
    """A node in a list. `metrics` holds all that its last heartbeat measured."""

    status = serializers.SerializerMethodField()
    reasons = serializers.SerializerMethodField()
    os = serializers.SerializerMethodField()

    class Meta:
        model = Node
        fields: tuple[str, ...] = (
            "node_id", "display_name", "group", "tags", "notes", "region", "os", "status", "reasons", "agent_version",
            "interval_seconds", "first_seen_at", "last_seen_at", "clock_offset_seconds", "clone_suspected_at",
            "metrics", "created_at",
        )  # fmt: skip

    def get_status(self, node: Node) -> str:
        return self._judgement(node).status

    def get_reasons(self, node: Node) -> list[dict[str, str]]:
        return [reason.as_dict() for reason in self._judgement(node).reasons]

    def get_os(self, node: Node) -> str:
        return " ".join(str(node.inventory[key]) for key in ("os", "os_version") if node.inventory.get(key))

    def _judgement(self, node: Node) -> Judgement:
        return selectors.judge_node(node, now=getattr(node, "now", None))


class NodeDetailSerializer(NodeSerializer):
    """One whole node."""

    class Meta(NodeSerializer.Meta):
        fields = (*NodeSerializer.Meta.fields, "inventory", "inventory_at", "concurrency")


class NodeList(APIView):
    def get(self, request: Request) -> Response:
        by = actor_of(request)
        require(by, Capability.VIEW_FLEET)
        query = parse_query(NodeQuery, request)
        wanted = NodeFilter(
            statuses=query["status"], group=query["group"], tag=query["tag"], q=query["q"], ordering=query["ordering"]
        )
        searching.require_enough(wanted.words)
        pages = Pages()
        with searching.limited(wanted.words, by=by):
            rows = pages.paginate_queryset(selectors.list_nodes(wanted), request, self)
        return pages.get_paginated_response(NodeSerializer(rows, many=True).data)


class NodeDetail(APIView):
    def get(self, request: Request, node_id: str) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        return Response(NodeDetailSerializer(selectors.find_node(node_id)).data)

    def patch(self, request: Request, node_id: str) -> Response:
        by = actor_of(request)
        require(by, Capability.EDIT_NODES)
        changes = NodeChanges(**parse(NodePatch, request))
        node = services.update_node(by=by, node_id=node_id, changes=changes)
        return Response(NodeDetailSerializer(node).data)

    def delete(self, request: Request, node_id: str) -> Response:
        services.remove_node(by=actor_of(request), node_id=node_id)
        return Response(status=204)


class NodeMachine(APIView):
    def post(self, request: Request, node_id: str) -> Response:
        parse(StrictSerializer, request)
        node = clones.confirm_machine(by=actor_of(request), node_id=node_id)
        return Response(NodeDetailSerializer(node).data)


class NodeStatus(APIView):
    def get(self, request: Request, node_id: str) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        node = selectors.find_node(node_id)
        judgement = selectors.judge_node(node)
        since = node.announced_at if node.announced_status == judgement.status else None
        return Response(
            {
                "node_id": node.node_id,
                "status": judgement.status,
                "reasons": [reason.as_dict() for reason in judgement.reasons],
                "since": since and DATE.to_representation(since),
                "last_seen_at": node.last_seen_at and DATE.to_representation(node.last_seen_at),
            }
        )


class NodeHistory(APIView):
    def get(self, request: Request, node_id: str) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        chosen = Range(parse_query(RangeQuery, request)["range"])
        history = series.node_history(selectors.find_node(node_id).pk, chosen)
        body: dict[str, Any] = {
            "range": chosen,
            "step_seconds": history.step_seconds,
            "starts_at": DATE.to_representation(history.starts_at),
            "ends_at": DATE.to_representation(history.ends_at),
            "series": {
                metric: [(f"{at:%Y-%m-%dT%H:%M:%SZ}", average, highest) for at, average, highest in points]
                for metric, points in history.series.items()
            },
        }
        return Response(body)


class NodeActivity(APIView):
    def get(self, request: Request, node_id: str) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        query = parse_query(ActivityQuery, request)
        items = selectors.activity(selectors.find_node(node_id), before=query["before"], limit=query["limit"])
        return Response({"results": [{**asdict(item), "at": DATE.to_representation(item.at)} for item in items]})


class NodeSparks(APIView):
    def get(self, request: Request) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        query = parse_query(SparksQuery, request)
        wanted = list(dict.fromkeys(query["node_id"]))
        if not 1 <= len(wanted) <= MAX_SPARKS:
            raise InvalidInput(fields={"node_id": [f"Name 1 to {MAX_SPARKS} nodes."]})
        found = series.sparks(wanted, Range(query["range"]))
        nodes = {
            node_id: {**asdict(spark), "ends_at": DATE.to_representation(spark.ends_at)}
            for node_id, spark in found.items()
        }
        return Response({"range": query["range"], "nodes": nodes})
