"""Node tokens for the agent routes that run through DRF."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from audit import services as audit
from hyprbox.lib import lanes
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import Forbidden, NotAuthenticated
from hyprbox.lib.rowmac import RowTampered
from tokens import secrets, selectors
from tokens.errors import BadToken
from tokens.models import NodeToken


class NodeTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer hbnt_...`, pinned to a node. A person's credential is refused with 403."""

    def authenticate(self, request: Request) -> tuple[NodeToken, Actor]:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if not text:
            if getattr(getattr(request._request, "actor", None), "is_known", False):
                raise Forbidden("This address is for agents.")
            raise NotAuthenticated()
        if scheme.lower() != "bearer" or not text.startswith(secrets.SCHEME):
            raise NotAuthenticated("This address takes a node token.")
        try:
            token = self.find(text.strip(), request)
        except RowTampered as error:
            audit.note_tampered(error)
            raise BadToken() from error
        lanes.prove(getattr(request._request, "scope", {}), text.strip())
        if token.node_pk is None:
            raise Forbidden("This token belongs to no node yet: send a heartbeat first.")
        http = request._request
        ip, request_id = getattr(http, "client_ip", ""), getattr(http, "id", "")
        return token, Actor.agent(id=str(token.node_pk), name=token.node_id, ip=ip, request_id=request_id)

    def find(self, text: str, request: Request) -> NodeToken:
        """Raises `BadToken`, `RowTampered`."""
        return selectors.find_presented(text)

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
