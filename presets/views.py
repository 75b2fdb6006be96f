"""The catalogue and a preset's preview. Choosing nodes and running is `jobs.views`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_safe

from hyprbox.lib import pages
from hyprbox.lib.pages import Crumb
from presets import inputs, selectors
from presets.documents import RISKS, Preset

CRUMBS = (Crumb("Presets"),)


def _matches(preset: Preset, q: str, risk: str) -> bool:
    names = " ".join(variable.name for variable in preset.variables)
    text = f"{preset.name} {preset.title} {preset.description} {preset.category} {names}".lower()
    return (not risk or preset.risk == risk) and all(word in text for word in q.lower().split())


def _by_category(presets: Iterable[Preset]) -> list[tuple[str, list[Preset]]]:
    """The harmless ones first: that is what a newcomer should try."""
    ordered = sorted(presets, key=lambda preset: (preset.category, RISKS.index(preset.risk), preset.title))
    return [(category, list(members)) for category, members in groupby(ordered, key=lambda preset: preset.category)]


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """Every preset, by category."""
    pages.actor_of(request)
    wanted = {name: request.GET.get(name, "").strip()[:120] for name in ("q", "risk", "category", "node")}
    everything = selectors.list_presets()
    found = [preset for preset in everything if _matches(preset, wanted["q"], wanted["risk"])]
    shown = [preset for preset in found if not wanted["category"] or preset.category == wanted["category"]]
    context = {"wanted": wanted, "risks": RISKS, "total": len(found), "groups": _by_category(shown)}
    if pages.is_fragment(request):
        return render(request, "presets/_catalogue.html", context)
    context["categories"] = [(name, len(members)) for name, members in _by_category(found)]
    return pages.show(request, "presets/list.html", context, nav="presets", crumbs=CRUMBS)


@require_safe
def pick(request: HttpRequest) -> HttpResponse:
    """`?preset=...&node=...` of a form that has no JavaScript leads to the preset's own address."""
    preset = selectors.find_preset(request.GET.get("preset", ""))
    return redirect(
        f"{reverse('presets:preview', args=[preset.name])}?{urlencode({'node': request.GET.get('node', '')})}"
    )


@require_http_methods(["GET", "HEAD", "POST"])
def preview(request: HttpRequest, name: str) -> HttpResponse:
    """The form and the exact bash that its values give; sent on every change while one types."""
    pages.actor_of(request)
    preset = selectors.find_preset(name)
    data = request.POST if request.method == "POST" else request.GET
    values = inputs.read_values(preset, data.dict())
    shown = inputs.preview(preset, values, is_untouched=request.method != "POST")
    context = {"preset": preset, "preview": shown, "nodes": [node for node in data.getlist("node") if node], "step": 1}
    if pages.is_fragment(request):
        return render(request, "presets/_preview_update.html", context)
    crumbs = (Crumb("Presets", reverse("presets:list")), Crumb(preset.title))
    return pages.show(request, "presets/preview.html", context, nav="presets", crumbs=crumbs)
