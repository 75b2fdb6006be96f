"""/api/auth/*: one's own password, sessions and keys, and a forgotten password."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import keys, logins, passwords, rates, selectors, tasks
from accounts.api import PublicView, require_same_origin
from accounts.models import ApiKey
from hyprbox.lib.actors import Scope
from hyprbox.lib.api import Pages, StrictSerializer, actor_of, parse


class PasswordInput(StrictSerializer):
    current = serializers.CharField(max_length=1024, trim_whitespace=False)
    new = serializers.CharField(max_length=1024, trim_whitespace=False)


class ResetInput(StrictSerializer):
    email = serializers.CharField(max_length=254)


class ResetConfirmInput(StrictSerializer):
    token = serializers.CharField(max_length=500)
    new = serializers.CharField(max_length=1024, trim_whitespace=False)


class LoginRowSerializer(serializers.Serializer[selectors.LoginRow]):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=["page", "api"])
    ip = serializers.CharField()
    user_agent = serializers.CharField()
    created_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    is_current = serializers.BooleanField()


class KeyInput(StrictSerializer):
    name = serializers.CharField(max_length=120)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.choices), min_length=1, max_length=3)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    class Meta:
        model = ApiKey
        fields = ("id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at")


class Password(APIView):
    def post(self, request: Request) -> Response:
        given = parse(PasswordInput, request)
        user = passwords.change_password(by=actor_of(request), **given)
        tasks.tell_password_changed.defer(user_id=str(user.pk))
        return Response(status=204)


class Reset(PublicView):
    """202 whatever the address, in the same time: the worker looks whether there is such an account."""

    def post(self, request: Request) -> Response:
        require_same_origin(request)
        given = parse(ResetInput, request)
        ask_for_reset(given["email"], actor_of(request).ip)
        return Response(status=202)


def ask_for_reset(email: str, ip: str) -> None:
    """Have the worker send a link. Raises `TooManyAttempts`."""
    rates.take_from(ip, "reset")
    tasks.send_reset.defer(email=email, ip=ip)


class ResetConfirm(PublicView):
    def post(self, request: Request) -> Response:
        require_same_origin(request)
        given = parse(ResetConfirmInput, request)
        user = passwords.confirm_reset(secret=given["token"], new=given["new"], by=actor_of(request))
        tasks.tell_password_changed.defer(user_id=str(user.pk))
        return Response(status=204)


class SessionList(APIView):
    def get(self, request: Request) -> Response:
        return logins_response(request, selectors.list_logins(by=actor_of(request)))


def logins_response(request: Request, rows: list[selectors.LoginRow]) -> Response:
    pages: Any = Pages()
    page = pages.paginate_queryset(rows, request)
    return Response(pages.get_paginated_response(LoginRowSerializer(page, many=True).data).data)


class SessionDetail(APIView):
    def delete(self, request: Request, session_id: uuid.UUID) -> Response:
        logins.end_session(by=actor_of(request), session_id=session_id)
        return Response(status=204)


class KeyList(APIView):
    def get(self, request: Request) -> Response:
        pages: Any = Pages()
        page = pages.paginate_queryset(selectors.list_keys(by=actor_of(request)), request)
        return Response(pages.get_paginated_response(KeySerializer(page, many=True).data).data)

    def post(self, request: Request) -> Response:
        given = parse(KeyInput, request)
        key, plaintext = keys.create_key(by=actor_of(request), **given)
        return Response({**KeySerializer(key).data, "key": plaintext}, status=201)


class KeyDetail(APIView):
    def delete(self, request: Request, key_id: uuid.UUID) -> Response:
        keys.revoke_key(by=actor_of(request), key_id=key_id)
        return Response(status=204)
