"""Every address of the control plane. The heartbeat, the long poll and the streams are in `hyprbox.asgi`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView, TemplateView
from drf_spectacular.views import SpectacularAPIView

from accounts import views as accounts
from hyprbox import enrolment, health, views
from hyprbox.doors import by_method
from jobs import agent_api
from jobs import api as jobs_api
from tokens import api as tokens_api

admin.site.site_header = admin.site.site_title = "HyprBox"
admin.site.index_title = "Django admin"
APPS = ("accounts", "audit", "tokens", "nodes", "presets", "jobs")
_MODULES = [import_module(f"{name}.urls") for name in APPS]

api: list[URLPattern | URLResolver] = [
    path("tokens", enrolment.TokenList.as_view()),
    path("tokens/<uuid:token_id>", tokens_api.TokenDetail.as_view()),
    path("tokens/<uuid:token_id>/rotate", enrolment.TokenRotate.as_view()),
    path(
        "jobs/<uuid:job_id>/output",
        by_method(jobs_api.JobOutput.as_view(), POST=agent_api.Output.as_view()),
    ),
]
for _module in _MODULES:
    api += getattr(_module, "api_urlpatterns", [])
if settings.HYPRBOX_ENABLE_DOCS:
    api += [
        path("schema", SpectacularAPIView.as_view(), name="schema"),
        path("docs", TemplateView.as_view(template_name="docs.html")),
    ]
api.append(re_path(r"^.*$", views.api_not_found))

urlpatterns: list[Any] = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    path("api/", include(api)),
    # Its own forms for these know neither our limits nor our rules.
    path(f"{settings.HYPRBOX_ADMIN_PATH}/login/", RedirectView.as_view(pattern_name="login", query_string=True)),
    path(f"{settings.HYPRBOX_ADMIN_PATH}/password_change/", RedirectView.as_view(pattern_name="profile")),
    path(f"{settings.HYPRBOX_ADMIN_PATH}/logout/", accounts.logout),
    path(f"{settings.HYPRBOX_ADMIN_PATH}/", admin.site.urls),
    *getattr(views, "urlpatterns", []),
]
for _module in _MODULES:
    if _module.urlpatterns:
        urlpatterns.append(path("", include(_module)))

handler400 = "hyprbox.views.bad_request"
handler403 = "hyprbox.views.forbidden"
handler404 = "hyprbox.views.not_found"
handler500 = "hyprbox.views.server_error"
