"""/api/presets: the catalogue and custom presets, and a preset rendered with values.

Reading is for everyone who is logged in, writing for admins. A document comes as JSON or as YAML; it is read by
`presets.documents` alone, so files, API and editor take the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hyprbox.lib import downloads
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.api import StrictJSONParser, StrictSerializer, actor_of, parse, parse_query
from hyprbox.lib.errors import BodyTooLarge, InvalidInput
from presets import params, rendering, selectors, services
from presets.documents import MAX_DOCUMENT_BYTES, PARTS, to_document
from presets.models import PresetRevision
from presets.selectors import Entry


@dataclass(frozen=True, slots=True)
class Document:
    """A body as it came."""

    raw: bytes
    kind: str


class _DocumentParser(BaseParser):
    kind = "json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        raw = stream.read()
        if len(raw) > MAX_DOCUMENT_BYTES:
            raise BodyTooLarge()
        return Document(raw, self.kind)


class JsonDocument(_DocumentParser):
    media_type = "application/json"


class YamlDocument(_DocumentParser):
    media_type = "application/yaml"
    kind = "yaml"


class OldYamlDocument(YamlDocument):
    media_type = "application/x-yaml"


DOCUMENT_PARSERS = [JsonDocument, YamlDocument, OldYamlDocument]


class RenderBody(StrictSerializer):
    variables = serializers.DictField(required=False, default=dict)


class SaveQuery(StrictSerializer):
    note = serializers.CharField(required=False, default="", max_length=services.MAX_NOTE)
    waive = serializers.BooleanField(required=False, default=False)


class ListQuery(StrictSerializer):
    archived = serializers.BooleanField(required=False, default=False)


class DiffQuery(StrictSerializer):
    old = serializers.IntegerField(min_value=1)
    new = serializers.IntegerField(min_value=1)


class DuplicateBody(StrictSerializer):
    name = serializers.CharField(max_length=63)


def summary(entry: Entry) -> dict[str, Any]:
    """A preset in a list: its document without the bash, which parts it has, and where it comes from."""
    preset = entry.preset
    document = {key: value for key, value in to_document(preset).items() if key not in PARTS}
    facts = {"parts": list(preset.parts), "revision": preset.revision, "builtin": entry.is_builtin}
    if not entry.is_builtin:
        facts |= {
            "number": entry.number,
            "saved_by": entry.saved_by,
            "saved_at": entry.saved_at,
            "origin": entry.origin or None,
            "archived": entry.is_archived,
        }
    return {**document, **facts}


def whole(entry: Entry) -> dict[str, Any]:
    return {**summary(entry), **entry.preset.parts, "warnings": list(entry.preset.warnings)}


def revision_facts(revision: PresetRevision) -> dict[str, Any]:
    names = ("number", "author", "note", "waived", "created_at")
    return {"revision": revision.sha256, **{name: getattr(revision, name) for name in names}}


def _answer(name: str, status: int = 200) -> Response:
    entry = selectors.find_entry(name)
    return Response(whole(entry), status=status, headers={"ETag": f'"{entry.preset.revision}"'})


def _saving(request: Request) -> dict[str, Any]:
    query = parse_query(SaveQuery, request)
    document: Any = request.data  # of the document parsers; an empty form when there is no body
    if not isinstance(document, Document):
        document = Document(b"", "json")
    return {"by": actor_of(request), "text": document.raw, "kind": document.kind, **query}


class PresetList(APIView):
    parser_classes = DOCUMENT_PARSERS

    def get(self, request: Request) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        query = parse_query(ListQuery, request)
        results = [summary(entry) for entry in selectors.list_entries(archived=query["archived"])]
        return Response({"count": len(results), "next": None, "previous": None, "results": results})

    def post(self, request: Request) -> Response:
        require(actor_of(request), Capability.MANAGE_PRESETS)
        revision = services.create_preset(**_saving(request))
        return _answer(revision.preset.name, status=201)


class PresetDetail(APIView):
    parser_classes = DOCUMENT_PARSERS

    def get(self, request: Request, name: str) -> Response:
        require(actor_of(request), Capability.VIEW_FLEET)
        return _answer(name)

    def put(self, request: Request, name: str) -> Response:
        """Save the next revision. With `If-Match` only on top of the revision that was edited."""
        require(actor_of(request), Capability.MANAGE_PRESETS)
        base = request.headers.get("If-Match", "").strip().removeprefix("W/").strip('"')
        services.save_revision(name=name, base="" if base == "*" else base, **_saving(request))
        return _answer(name)


class PresetRender(APIView):
    parser_classes = [StrictJSONParser]

    def post(self, request: Request, name: str) -> Response:
        require(actor_of(request), Capability.VIEW_OUTPUT)
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


class PresetExport(APIView):
    """The document as YAML, the same that POST and PUT take."""

    def get(self, request: Request, name: str) -> HttpResponseBase:
        require(actor_of(request), Capability.VIEW_FLEET)
        return yaml_file(name, services.export_yaml(selectors.find_entry(name)))


def yaml_file(name: str, text: str) -> HttpResponse:
    """A download. A preset's name is letters, digits and dashes."""
    return downloads.offer(HttpResponse(text, content_type="application/yaml"), f"{name}.yaml")


class PresetRevisions(APIView):
    def get(self, request: Request, name: str) -> Response:
        results = [revision_facts(each) for each in selectors.list_revisions(by=actor_of(request), name=name)]
        return Response({"count": len(results), "next": None, "previous": None, "results": results})


class PresetRevisionDetail(APIView):
    def get(self, request: Request, name: str, number: int) -> Response:
        revision = selectors.find_revision(by=actor_of(request), name=name, number=number)
        document = to_document(selectors.read_document(revision.document))
        return Response({**revision_facts(revision), "document": document, "source": revision.source})


class PresetDiff(APIView):
    def get(self, request: Request, name: str) -> Response:
        wanted = parse_query(DiffQuery, request)
        lines = selectors.diff(by=actor_of(request), name=name, **wanted)
        return Response({**wanted, "diff": "\n".join(lines)})


class PresetDuplicate(APIView):
    def post(self, request: Request, name: str) -> Response:
        given = parse(DuplicateBody, request)
        revision = services.duplicate_preset(by=actor_of(request), name=name, new_name=given["name"])
        return _answer(revision.preset.name, status=201)


class PresetArchive(APIView):
    def post(self, request: Request, name: str) -> Response:
        parse(StrictSerializer, request)
        services.archive_preset(by=actor_of(request), name=name)
        return _answer(name)


class PresetRestore(APIView):
    def post(self, request: Request, name: str) -> Response:
        parse(StrictSerializer, request)
        services.restore_preset(by=actor_of(request), name=name)
        return _answer(name)


def _key(name: str) -> str:
    return name if name == "variables" else f"variables.{name}"
