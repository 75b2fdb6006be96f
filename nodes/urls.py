"""The API's addresses. The pages show nodes beside jobs and presets, so they are on the roof."""

from __future__ import annotations

from typing import Any

from django.urls import path

from nodes import api

app_name = "nodes"
urlpatterns: list[Any] = []
api_urlpatterns = [
    path("nodes", api.NodeList.as_view()),
    path("nodes/sparks", api.NodeSparks.as_view()),
    path("nodes/<str:node_id>", api.NodeDetail.as_view()),
    path("nodes/<str:node_id>/status", api.NodeStatus.as_view()),
    path("nodes/<str:node_id>/confirm-machine", api.NodeMachine.as_view()),
    path("nodes/<str:node_id>/history", api.NodeHistory.as_view()),
    path("nodes/<str:node_id>/activity", api.NodeActivity.as_view()),
]
