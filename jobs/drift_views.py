"""Drift's pages: every pin, the pins of one preset with the form for a new one, and what its buttons do."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from hyprbox.lib import pages
from hyprbox.lib.errors import Conflict, InvalidInput
from hyprbox.lib.pages import Crumb
from jobs import drift, drifted, ordering
from nodes import selectors as nodes
from presets import inputs
from presets import selectors as presets

_PRESETS = "presets:list"


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """Every pin, the drifted ones first."""
    states = drifted.list_states(by=pages.actor_of(request))
    crumbs = (Crumb("Presets", reverse(_PRESETS)), Crumb("Drift"))
    return pages.show(request, "jobs/drift.html", {"states": states}, nav="presets", crumbs=crumbs)


@require_safe
def line(request: HttpRequest, name: str) -> HttpResponse:
    """One sentence for the preset's own page."""
    states = drifted.list_states(by=pages.actor_of(request), preset=name)
    return render(request, "jobs/_drift_line.html", {"states": states, "told": drifted.of_all(states)})


@require_http_methods(["GET", "HEAD", "POST"])
def of_preset(request: HttpRequest, name: str) -> HttpResponse:
    """The pins of one preset; admins send a new one here."""
    actor = pages.actor_of(request)
    preset, error = presets.find_preset(name), None
    data = request.POST if request.method == "POST" else request.GET
    values = inputs.read_values(preset, data.dict())
    if request.method == "POST":
        kind, _, target = request.POST.get("target", "").partition(":")
        chosen = {"node_id": target if kind == "node" else "", "tag": target if kind == "tag" else ""}
        try:
            drift.create_pin(by=actor, preset=name, variables=values, **chosen)
            messages.success(
                request, "Pinned. Its first check is queued within ten minutes, the next ones every night."
            )
            return redirect("jobs:drift_of", name)
        except (InvalidInput, Conflict) as caught:
            error = caught
    shown = inputs.preview(preset, values, is_untouched=request.method != "POST")
    context: dict[str, Any] = {"preset": preset, "preview": shown, "error": error}
    context["states"] = drifted.list_states(by=actor, preset=name)
    context["facets"], context["target"] = nodes.facets(), data.get("target", "")
    context["cards"] = ordering.listed_nodes([])
    here = Crumb(preset.title, reverse("presets:preview", args=[name]))
    crumbs = (Crumb("Presets", reverse(_PRESETS)), here, Crumb("Drift"))
    status = error.status if error else 200
    return pages.show(request, "jobs/drift_of.html", context, nav="presets", crumbs=crumbs, status=status)


@require_POST
def check(request: HttpRequest, pin_id: uuid.UUID) -> HttpResponse:
    batch, _ = drift.check_now(by=pages.actor_of(request), pin_id=pin_id)
    return redirect(f"{reverse('jobs:list')}?batch={batch.pk}")


@require_POST
def resume(request: HttpRequest, pin_id: uuid.UUID) -> HttpResponse:
    drift.resume_pin(by=pages.actor_of(request), pin_id=pin_id)
    return redirect(pages.safe_next(request, reverse("jobs:drift")))


@require_POST
def remove(request: HttpRequest, pin_id: uuid.UUID) -> HttpResponse:
    drift.remove_pin(by=pages.actor_of(request), pin_id=pin_id)
    messages.success(request, "The pin is removed. The jobs of its checks stay.")
    return redirect(pages.safe_next(request, reverse("jobs:drift")))
