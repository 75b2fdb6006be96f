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
from hyprbox.lib.actors import Capability, require
from hyprbox.lib.pages import Crumb
from presets import inputs, selectors
from presets.documents import RISKS
from presets.selectors import Entry

CRUMBS = (Crumb("Presets"),)


def _matches(entry: Entry, q: str, risk: str) -> bool:
    preset = entry.preset
    names = " ".join(variable.name for variable in preset.variables)
    text = f"{preset.name} {preset.title} {preset.description} {preset.category} {names}".lower()
    return (not risk or preset.risk == risk) and all(word in text for word in q.lower().split())


def _by_category(entries: Iterable[Entry]) -> list[tuple[str, list[Entry]]]:
    """The baseline and the harmless ones first: that is what a newcomer should try."""

    def order(entry: Entry) -> tuple[bool, str, int, str]:
        return (
            entry.preset.category != "baseline",
            entry.preset.category,
            RISKS.index(entry.preset.risk),
            entry.preset.title,
        )

    ordered = sorted(entries, key=order)
    return [(category, list(members)) for category, members in groupby(ordered, key=lambda each: each.preset.category)]


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """Every preset, by category."""
    actor = pages.actor_of(request)
    wanted = {name: request.GET.get(name, "").strip()[:120] for name in ("q", "risk", "category", "node", "archived")}
    everything = selectors.list_entries(archived=bool(wanted["archived"]))
    found = [entry for entry in everything if _matches(entry, wanted["q"], wanted["risk"])]
    shown = [entry for entry in found if not wanted["category"] or entry.preset.category == wanted["category"]]
    context = {"wanted": wanted, "risks": RISKS, "total": len(found), "groups": _by_category(shown)}
    if pages.is_fragment(request):
        return render(request, "presets/_catalogue.html", context)
    context["categories"] = [(name, len(members)) for name, members in _by_category(found)]
    if actor.can(Capability.MANAGE_PRESETS):
        context["tampered"] = selectors.tampered_names()
    return pages.show(request, "presets/list.html", context, nav="presets", crumbs=CRUMBS)


@require_safe
def pick(request: HttpRequest) -> HttpResponse:
    """`?preset=...&node=...` of a form that has no JavaScript leads to the preset's own address."""
    pages.actor_of(request)
    preset = selectors.find_preset(request.GET.get("preset", ""))
    return redirect(
        f"{reverse('presets:preview', args=[preset.name])}?{urlencode({'node': request.GET.get('node', '')})}"
    )


@require_http_methods(["GET", "HEAD", "POST"])
def preview(request: HttpRequest, name: str) -> HttpResponse:
    """The form and the exact bash that its values give; sent on every change while one types.

    Whoever may not read what jobs ran does not try values either, and sees the preset with its defaults.
    """
    actor = pages.actor_of(request)
    may_try = actor.can(Capability.VIEW_OUTPUT)
    if request.method == "POST":
        require(actor, Capability.VIEW_OUTPUT)
    preset, entry = selectors.find_preset(name), selectors.find_entry(name)
    data = request.POST if request.method == "POST" else request.GET
    values = inputs.read_values(preset, data.dict() if may_try else {})
    shown = inputs.preview(preset, values, is_untouched=request.method != "POST")
    nodes = [node for node in data.getlist("node") if node]
    context = {"preset": preset, "entry": entry, "preview": shown, "nodes": nodes, "step": 1}
    if pages.is_fragment(request):
        return render(request, "presets/_preview_update.html", context)
    crumbs = (Crumb("Presets", reverse("presets:list")), Crumb(preset.title))
    return pages.show(request, "presets/preview.html", context, nav="presets", crumbs=crumbs)
