"""What the OpenAPI document says of the addresses on the roof: node tokens, health, the agent's files."""

from __future__ import annotations

from rest_framework import serializers

from hyprbox import enrolment
from hyprbox.lib.openapi import ANYONE, BYTES, TEXT, Call, Page, Raw, shape
from tokens.api import TokenSerializer


class NewToken(TokenSerializer):
    """A node token with its plaintext, this once, and the command that starts an agent with it."""

    token = serializers.CharField()
    install_command = serializers.CharField()

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "token", "install_command")  # type: ignore[assignment]


TOKENS = {
    "GET /api/tokens": Call("The node tokens", {200: Page(TokenSerializer)}, role="admins"),
    "POST /api/tokens": Call(
        "Make a node token",
        {201: NewToken},
        body=enrolment.TokenInput,
        errors=(409,),
        role="admins",
        text="With a `node_id` it is that node's alone, else the first heartbeat decides.",
    ),
    "DELETE /api/tokens/{token_id}": Call("Revoke a node token", {204: None}, errors=(409,), role="admins"),
    "POST /api/tokens/{token_id}/rotate": Call(
        "Make a successor of a node token",
        {201: NewToken},
        errors=(409,),
        role="admins",
        text="The old one works until the new one was used, at most 24 hours.",
    ),
}
_READY = Raw(
    "application/json",
    shape(ready={"type": "boolean"}, failing={"type": "object", "additionalProperties": TEXT}),
)
# Views of plain Django, which the inspector does not see.
PLAIN = {
    "GET /healthz": Call("The process is up", {200: Raw("text/plain", TEXT)}, who=ANYONE),
    "GET /readyz": Call("This process can serve", {200: _READY, 503: _READY}, who=ANYONE),
    "GET /metrics": Call(
        "Figures for Prometheus",
        {200: Raw("text/plain", TEXT)},
        errors=(404,),
        who=ANYONE,
        text="With HYPRBOX_METRICS_TOKEN as bearer; off without it.",
    ),
    "GET /install.sh": Call("The script that installs the agent", {200: Raw("text/plain", TEXT)}, who=ANYONE),
    "GET /agent/hyprnode.pyz": Call(
        "The agent", {200: Raw("application/octet-stream", BYTES), 304: None}, errors=(404,), who=ANYONE
    ),
}
