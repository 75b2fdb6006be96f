"""/api/drift: pins, what their checks told, and checks asked for now."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox.lib.actors import Capability
from hyprbox.lib.api import StrictSerializer, actor_of, parse, parse_query
from jobs import drift, drifted
from jobs.drifted import NodeState, PinState
from nodes import selectors as nodes


class PinBody(StrictSerializer):
    preset = serializers.CharField(max_length=63)
    variables = serializers.DictField(required=False, default=dict)
    node_id = serializers.CharField(max_length=63, required=False, default="")
    tag = serializers.CharField(max_length=63, required=False, default="")


class PinQuery(StrictSerializer):
    preset = serializers.CharField(required=False, max_length=63, default="")
    node_id = serializers.CharField(required=False, max_length=63, default="")


def pin_row(state: PinState, *, sees_variables: bool, with_nodes: bool = False) -> dict[str, Any]:
    """A pin for an answer. Variables are null for viewers, like a job's."""
    pin = state.pin
    row = {
        "id": pin.pk,
        "preset": pin.preset,
        "variables": pin.variables if sees_variables else None,
        "node_id": pin.node.node_id if pin.node else None,
        "tag": pin.tag or None,
        "owner": pin.owner_name,
        "created_at": pin.created_at,
        "paused_because": pin.paused_because or None,
        "nodes": len(state.nodes),
        "drifted": len(state.drifted),
        "failed": len(state.failed),
        "drifted_since": state.since,
        "summary": state.sentence,
    }
    return {**row, "results": [node_row(node) for node in state.nodes]} if with_nodes else row


def node_row(node: NodeState) -> dict[str, Any]:
    return {
        "node_id": node.node_id,
        "state": node.state,
        "drifted_since": node.since,
        "checked_at": node.checked_at,
        "job": node.job_id,
    }


def _row(request: Request, state: PinState, *, with_nodes: bool = False) -> dict[str, Any]:
    return pin_row(state, sees_variables=actor_of(request).can(Capability.VIEW_OUTPUT), with_nodes=with_nodes)


def _answer(request: Request, pin_id: uuid.UUID, status: int = 200) -> Response:
    state = drifted.state_of(by=actor_of(request), pin_id=pin_id)
    return Response(_row(request, state, with_nodes=True), status=status)


class DriftSummary(APIView):
    """All pins at a glance, and each node that drifted."""

    def get(self, request: Request) -> Response:
        parse_query(StrictSerializer, request)
        states = drifted.list_states(by=actor_of(request))
        results = [
            {"pin": state.pin.pk, "preset": state.pin.preset, **node_row(node)}
            for state in states
            for node in state.drifted
        ]
        counts = {
            "pins": len(states),
            "paused": sum(bool(state.pin.paused_because) for state in states),
            "checks": sum(len(state.nodes) for state in states),
            "drifted": len(results),
            "failed": sum(len(state.failed) for state in states),
        }
        return Response({**counts, "results": results})


class PinList(APIView):
    def get(self, request: Request) -> Response:
        query = parse_query(PinQuery, request)
        node = nodes.find_node(query["node_id"]) if query["node_id"] else None
        states = drifted.list_states(by=actor_of(request), preset=query["preset"], node=node)
        results = [_row(request, state) for state in states]
        return Response({"count": len(results), "next": None, "previous": None, "results": results})

    def post(self, request: Request) -> Response:
        pin = drift.create_pin(by=actor_of(request), **parse(PinBody, request))
        return _answer(request, pin.pk, status=201)


class PinDetail(APIView):
    def get(self, request: Request, pin_id: uuid.UUID) -> Response:
        return _answer(request, pin_id)

    def delete(self, request: Request, pin_id: uuid.UUID) -> Response:
        drift.remove_pin(by=actor_of(request), pin_id=pin_id)
        return Response(status=204)


class PinCheck(APIView):
    def post(self, request: Request, pin_id: uuid.UUID) -> Response:
        parse(StrictSerializer, request)
        batch, jobs = drift.check_now(by=actor_of(request), pin_id=pin_id)
        rows = [{"id": job.pk, "node_id": job.node.node_id} for job in jobs]
        return Response({"id": batch.pk, "jobs": rows}, status=201)


class PinResume(APIView):
    def post(self, request: Request, pin_id: uuid.UUID) -> Response:
        parse(StrictSerializer, request)
        drift.resume_pin(by=actor_of(request), pin_id=pin_id)
        return _answer(request, pin_id)
