"""/api/users: people, for admins."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import factors, logins, mails, people, selectors
from accounts.account_api import logins_response
from accounts.models import Invitation, User
from hyprbox.lib.actors import Role
from hyprbox.lib.api import Pages, StrictBooleanField, StrictSerializer, actor_of, parse


class PersonSerializer(serializers.ModelSerializer[User]):
    last_login_at = serializers.DateTimeField(source="last_login", read_only=True, allow_null=True)

    class Meta:
        model = User
        fields = ("id", "email", "name", "role", "is_active", "created_at", "last_login_at")


class PersonInput(StrictSerializer):
    email = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=1024, trim_whitespace=False)
    name = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    role = serializers.ChoiceField(choices=Role.choices, required=False, default=Role.VIEWER)


class PersonChange(StrictSerializer):
    name = serializers.CharField(max_length=120, required=False)
    role = serializers.ChoiceField(choices=Role.choices, required=False)
    is_active = StrictBooleanField(required=False)


class InvitationInput(StrictSerializer):
    email = serializers.CharField(max_length=254)
    role = serializers.ChoiceField(choices=Role.choices, required=False, default=Role.VIEWER)


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    class Meta:
        model = Invitation
        fields = ("id", "email", "role", "invited_by", "created_at", "expires_at")


class UserList(generics.ListAPIView[User]):
    serializer_class = PersonSerializer
    pagination_class = Pages
    queryset = User.objects.none()

    def get_queryset(self):  # type: ignore[no-untyped-def]
        return selectors.list_users(by=actor_of(self.request))

    def post(self, request: Request) -> Response:
        user = people.create_user(by=actor_of(request), **parse(PersonInput, request))
        return Response(PersonSerializer(user).data, status=201)


class UserDetail(APIView):
    def patch(self, request: Request, user_id: uuid.UUID) -> Response:
        user = people.change_user(by=actor_of(request), user_id=user_id, **parse(PersonChange, request))
        return Response(PersonSerializer(user).data)

    def delete(self, request: Request, user_id: uuid.UUID) -> Response:
        people.remove_user(by=actor_of(request), user_id=user_id)
        return Response(status=204)


class UserSessions(APIView):
    """Where someone is signed in; DELETE signs them out everywhere."""

    def get(self, request: Request, user_id: uuid.UUID) -> Response:
        return logins_response(request, selectors.list_logins(by=actor_of(request), user_id=user_id))

    def delete(self, request: Request, user_id: uuid.UUID) -> Response:
        logins.end_all_of(by=actor_of(request), user_id=user_id)
        return Response(status=204)


class UserFactor(APIView):
    """DELETE takes someone's second factor away, who lost it."""

    def delete(self, request: Request, user_id: uuid.UUID) -> Response:
        factors.reset(by=actor_of(request), user_id=user_id)
        return Response(status=204)


class Invite(generics.ListAPIView[Invitation]):
    """POST answers with the link itself when no mail server took the letter."""

    serializer_class = InvitationSerializer
    pagination_class = Pages
    queryset = Invitation.objects.none()

    def get_queryset(self):  # type: ignore[no-untyped-def]
        return selectors.list_invitations(by=actor_of(self.request))

    def post(self, request: Request) -> Response:
        invitation, secret = people.invite(by=actor_of(request), **parse(InvitationInput, request))
        body: dict[str, Any] = {**InvitationSerializer(invitation).data, "link": None}
        if not mails.send_invitation(invitation, secret):
            body["link"] = mails.invitation_address(secret)
        return Response(body, status=201)


class InvitationDetail(APIView):
    def delete(self, request: Request, invitation_id: uuid.UUID) -> Response:
        people.revoke_invitation(by=actor_of(request), invitation_id=invitation_id)
        return Response(status=204)
