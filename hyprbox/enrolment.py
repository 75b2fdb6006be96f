"""Creating a node token touches tokens and nodes, so its doors are on the roof."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox import installer
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.api import Pages, StrictSerializer, actor_of, parse
from hyprbox.lib.errors import InvalidInput
from nodes import names
from nodes import services as nodes
from tokens import selectors, services
from tokens.api import TokenSerializer
from tokens.models import NodeToken


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A new token with its plaintext, and the command that starts an agent with it."""

    token: NodeToken
    plaintext: str

    @property
    def install_command(self) -> str:
        return str(installer.Command(self.plaintext, self.token.node_id))

    @property
    def hint(self) -> str:
        """What keeps the command from installing the agent, too; empty when nothing does."""
        return "" if installer.agent_sha256() else installer.NOT_BUILT

    @property
    def is_local(self) -> bool:
        """Whether the address in the command is one of this very machine, where other servers cannot reach it."""
        return (urlsplit(settings.HYPRBOX_PUBLIC_URL).hostname or "") in ("127.0.0.1", "::1", "localhost")


@transaction.atomic
def enrol(*, by: Actor, name: str, node_id: str = "", expires_at: datetime | None = None) -> Enrolment:
    """A token; with a `node_id` also the node, UNKNOWN until its first heartbeat."""
    require(by, Capability.MANAGE_TOKENS)
    node_pk = None
    if node_id:
        if not names.is_node_id(node_id):
            raise InvalidInput(
                fields={
                    "node_id": ["Letters, digits, dot, dash and underscore, at most 63, the first a letter or digit."]
                }
            )
        node_pk = nodes.ensure_node(by=by, node_id=node_id).pk
    token, plaintext = services.issue_token(
        by=by, name=name or node_id, node_id=node_id, node_pk=node_pk, expires_at=expires_at
    )
    return Enrolment(token, plaintext)


class TokenInput(StrictSerializer):
    name = serializers.CharField(max_length=120)
    node_id = serializers.CharField(max_length=63, required=False, allow_blank=True, allow_null=True, default="")
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


def _once(enrolment: Enrolment, status: int) -> Response:
    body = {
        **TokenSerializer(enrolment.token).data,
        "token": enrolment.plaintext,
        "install_command": enrolment.install_command,
    }
    return Response(body, status=status, headers={"Cache-Control": "no-store"})


class TokenList(APIView):
    def get(self, request: Request) -> Response:
        pages = Pages()
        rows = pages.paginate_queryset(selectors.list_tokens(by=actor_of(request)), request, self)
        return pages.get_paginated_response(TokenSerializer(rows, many=True).data)

    def post(self, request: Request) -> Response:
        require(actor_of(request), Capability.MANAGE_TOKENS)
        given = parse(TokenInput, request)
        enrolment = enrol(
            by=actor_of(request),
            name=given["name"],
            node_id=given["node_id"] or "",
            expires_at=given["expires_at"],
        )
        return _once(enrolment, 201)


class TokenRotate(APIView):
    def post(self, request: Request, token_id: str) -> Response:
        parse(StrictSerializer, request)
        token, plaintext = services.rotate_token(by=actor_of(request), token_id=token_id)
        return _once(Enrolment(token, plaintext), 201)
