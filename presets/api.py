"""/api/presets: the catalogue, and a preset rendered with values. Reading is for everyone who is logged in."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox.lib.actors import Capability, require
from hyprbox.lib.api import StrictSerializer, actor_of, parse
from hyprbox.lib.errors import InvalidInput
from presets import params, rendering, selectors
from presets.documents import PARTS, Preset, to_document


class RenderBody(StrictSerializer):
    variables = serializers.DictField(required=False, default=dict)


def summary(preset: Preset) -> dict[str, Any]:
    """A preset in a list: its document without the bash, and which parts it has."""
    document = {key: value for key, value in to_document(preset).items() if key not in PARTS}
    return {**document, "parts": list(preset.parts), "revision": preset.revision, "builtin": True}


class PresetList(APIView):
    def get(self, request: Request) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        results = [summary(preset) for preset in selectors.list_presets()]
        return Response({"count": len(results), "next": None, "previous": None, "results": results})


class PresetDetail(APIView):
    def get(self, request: Request, name: str) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        preset = selectors.find_preset(name)
        return Response({**summary(preset), **preset.parts, "warnings": list(preset.warnings)})


class PresetRender(APIView):
    def post(self, request: Request, name: str) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        preset = selectors.find_preset(name)
        values = parse(RenderBody, request)["variables"]
        try:
            rendered = rendering.render(preset, values)
        except params.InvalidVariables as error:
            raise InvalidInput(fields={_key(name): sentences for name, sentences in error.fields.items()}) from None
        return Response(
            {
                "script": rendered.text,
                "sha256": rendered.sha256,
                "revision": rendered.revision,
                "warnings": list(rendered.warnings),
            }
        )


def _key(name: str) -> str:
    return name if name == "variables" else f"variables.{name}"
