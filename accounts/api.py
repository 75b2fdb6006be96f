"""/api/auth/*: tokens for programs, and the cookie for browsers that talk to the API."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import factors, people, services, tasks
from accounts.authentication import COOKIE
from accounts.errors import ForeignOrigin, RefreshTokenInvalid
from accounts.models import User
from accounts.step_up import mark
from hyprbox.lib.api import StrictBooleanField, StrictSerializer, actor_of, parse


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "email", "name", "role", "created_at")


class LoginInput(StrictSerializer):
    email = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=1024, trim_whitespace=False)
    otp = serializers.CharField(max_length=16, required=False, allow_blank=True)


class StepUpInput(StrictSerializer):
    otp = serializers.CharField(max_length=16)


class RegisterInput(StrictSerializer):
    email = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=1024, trim_whitespace=False)
    name = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")


class RefreshInput(StrictSerializer):
    refresh = serializers.CharField(max_length=4096)


class LogoutInput(StrictSerializer):
    refresh = serializers.CharField(max_length=4096, required=False, allow_blank=True)
    everywhere = StrictBooleanField(required=False, default=False)


class SessionOutput(serializers.Serializer[services.Session]):
    access = serializers.CharField()
    refresh = serializers.CharField()
    user = UserSerializer()


class PairOutput(serializers.Serializer[services.Session]):
    access = serializers.CharField()
    refresh = serializers.CharField()


def require_same_origin(request: Request) -> None:
    """A browser that says where it comes from must come from here: logins have no CSRF token yet."""
    origin = request.headers.get("Origin")
    if not origin:
        if request.headers.get("Sec-Fetch-Site", "same-origin") in ("cross-site", "same-site"):
            raise ForeignOrigin()
        return
    if origin in (settings.HYPRBOX_PUBLIC_URL, *settings.HYPRBOX_CORS_ORIGINS):
        return
    if urlsplit(origin).netloc != request.get_host():
        raise ForeignOrigin()


def session_response(session: services.Session, status: int) -> Response:
    body = {
        "access": session.tokens.access,
        "refresh": session.tokens.refresh,
        "user": UserSerializer(session.user).data,
    }
    response = Response(body, status=status)
    _set_cookie(response, session.tokens.access)
    return response


def _set_cookie(response: Response, access: str) -> None:
    response.set_cookie(
        COOKIE,
        access,
        max_age=15 * 60,
        httponly=True,
        samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
    )


def agent_of(request: Request) -> str:
    """What the program calls itself; it helps people to know their sessions again."""
    return request.headers.get("User-Agent", "")[:200]


class PublicView(APIView):
    """A call that is made before there is a credential."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class Login(PublicView):
    def post(self, request: Request) -> Response:
        require_same_origin(request)
        given = parse(LoginInput, request)
        session = services.log_in(by=actor_of(request), user_agent=agent_of(request), **given)
        return session_response(session, 200)


class Register(PublicView):
    def post(self, request: Request) -> Response:
        require_same_origin(request)
        given = parse(RegisterInput, request)
        is_open = settings.DEBUG or settings.HYPRBOX_ALLOW_REGISTRATION
        session = people.register(by=actor_of(request), is_open=is_open, user_agent=agent_of(request), **given)
        return session_response(session, 201)


class Refresh(PublicView):
    def post(self, request: Request) -> Response:
        require_same_origin(request)
        given = parse(RefreshInput, request)
        by = actor_of(request)
        try:
            pair = services.refresh(token=given["refresh"], by=by, user_agent=agent_of(request))
        except RefreshTokenInvalid as error:
            if error.ended_for is not None:
                tasks.tell_refresh_reused.defer(user_id=str(error.ended_for), ip=by.ip)
            raise
        response = Response({"access": pair.access, "refresh": pair.refresh})
        if COOKIE in request.COOKIES:
            _set_cookie(response, pair.access)
        return response


class Logout(APIView):
    permission_classes = (AllowAny,)  # the refresh token alone is enough

    def post(self, request: Request) -> Response:
        given = parse(LogoutInput, request)
        services.log_out(by=actor_of(request), refresh_token=given.get("refresh", ""), everywhere=given["everywhere"])
        response = Response(status=204)
        response.delete_cookie(COOKIE, samesite="Lax")
        return response


class StepUp(APIView):
    """Show the second factor again: for five minutes this session may do what is sensitive."""

    def post(self, request: Request) -> Response:
        given = parse(StepUpInput, request)
        by = actor_of(request)
        until = factors.step_up(by=by, proof=factors.Proof(given["otp"]))
        mark(request._request, by, until)
        return Response(status=204)


class Me(APIView):
    def get(self, request: Request) -> Response:
        return Response(UserSerializer(services.whoami(by=actor_of(request))).data)
