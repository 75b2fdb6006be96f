"""The document as Schemathesis reads it, and a world to which the calls are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connection, transaction
from drf_spectacular.generators import SchemaGenerator
from schemathesis.specs.openapi.schemas import OpenApiSchema

from hyprbox.lib import lanes
from tests.contract.world import World, make_world


@pytest.fixture(scope="session")
def contract() -> OpenApiSchema:
    """The document, with its objects closed: an answer that has more than it tells of breaks it."""
    document: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    for component in document["components"]["schemas"].values():
        if component.get("type") == "object" and component.get("properties"):
            component.setdefault("additionalProperties", False)
    return schemathesis.openapi.from_dict(document)


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    """Made once, in a transaction around all tests of a module, which leave nothing in it."""
    with django_db_blocker.unblock(), transaction.atomic():
        with connection.cursor() as cursor:  # on a busy machine an example is longer in the making
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield make_world()
        transaction.set_rollback(True)


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[WSGIHandler]:
    """Django in this very transaction: no rate is limited, and the connection outlives a request."""
    monkeypatch.setattr(lanes.TokenBucket, "take", lambda self, key: None)
    settings.HYPRBOX_ALLOW_REGISTRATION = True
    made = get_wsgi_application()
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield made
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)
