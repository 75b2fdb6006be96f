"""Serializers and doors of /api/tokens; creating one also touches nodes, so that door is on the roof."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox.lib.api import actor_of
from tokens import services
from tokens.models import NodeToken


class TokenSerializer(serializers.ModelSerializer[NodeToken]):
    prefix = serializers.SerializerMethodField()

    class Meta:
        model = NodeToken
        fields = (
            "id", "name", "prefix", "node_id", "created_by", "created_at", "expires_at", "revoked_at", "last_used_at",
            "replaces",
        )  # fmt: skip

    def get_prefix(self, token: NodeToken) -> str:
        return token.prefix


class TokenDetail(APIView):
    def delete(self, request: Request, token_id: str) -> Response:
        services.revoke_token(by=actor_of(request), token_id=token_id)
        return Response(status=204)
