"""An address whose view says nothing of who may: people alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import keys
from accounts.models import User
from nodes.models import Node
from tests import factories
from tests.client import ApiClient


class Silent(APIView):
    """As somebody writes it who forgot to say."""

    def get(self, request: Request) -> Response:
        return Response({"reached": True})

    post = get


urlpatterns = [path("api/silent", Silent.as_view())]


@pytest.mark.urls(__name__)
def test_a_view_that_says_nothing_is_for_people_alone(api: ApiClient, vera: User, web_1: Node) -> None:
    _, key = keys.create_key(by=factories.as_actor(vera), name="ci", scopes=["read"])
    page = Client()
    page.force_login(vera)
    callers: dict[str, Any] = {
        "nobody": api,
        "an agent": api.agent(factories.make_token(web_1)),
        "a stranger": api.agent("nonsense"),
        "a viewer": api.by(vera),
        "a viewer's program": api.agent(key),
        "a viewer's page": page,
    }
    found = {name: caller.get("/api/silent").status_code for name, caller in callers.items()}
    assert found == {
        "nobody": 401,
        "an agent": 401,
        "a stranger": 401,
        "a viewer": 200,
        "a viewer's program": 200,
        "a viewer's page": 200,
    }
    assert api.post("/api/silent").status_code == 401
    factories.leave(vera, is_active=False)
    assert [callers[name].get("/api/silent").status_code for name in list(callers)[3:]] == [401, 401, 401]
