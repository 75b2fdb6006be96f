"""The fleet's pages: overview, one node, live. They show nodes beside jobs and presets, so they are on the roof."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.core.paginator import Page
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from audit import selectors as audit
from hyprbox.fleet import feed, figures, sentences, state
from hyprbox.fleet.state import COLOURS, PAGE_SIZES, SORTS, Wanted
from hyprbox.lib import pages, searching
from hyprbox.lib.actors import Actor, Capability
from hyprbox.lib.pages import Crumb
from jobs import drifted, summary
from jobs import selectors as jobs
from nodes import clones, selectors, series
from nodes.series import History, Range
from presets import selectors as presets
from presets.documents import RISKS, Preset

YOUNG_POINTS = 24
CHART_RANGES = (Range.HOUR, Range.DAY, Range.WEEK)
FORK_SHOWN = timedelta(days=7)


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """The whole fleet: one sentence, the figures, who needs someone now, and every node."""
    fleet = state.fleet_state(pages.actor_of(request))
    if not fleet.counts.total:
        return pages.show(request, "nodes/empty.html", {}, nav="fleet", crumbs=(Crumb("Fleet"),), topics=("first",))
    wanted = Wanted.of(request.GET, fleet.counts.total)
    if pages.is_fragment(request):
        response = render(request, "nodes/_nodes.html", _listing(request, wanted))
        response["HX-Push-Url"] = _address(request)
        return response
    history = series.fleet_history(wanted.range, node_count=fleet.counts.total)
    if _is_young(history) and "range" not in request.GET:
        wanted = replace(wanted, range=Range.HOUR)
        history = series.fleet_history(wanted.range, node_count=fleet.counts.total)
    context = {"fleet": fleet, "chart": figures.fleet_chart(history), "charts": True, "ranges": CHART_RANGES}
    context |= {"sorts": SORTS, "facets": selectors.facets(), **_listing(request, wanted)}
    context["forked"] = _newest_fork(pages.actor_of(request))
    topics = ("fleet", wanted.topic)
    return pages.show(request, "nodes/overview.html", context, nav="fleet", crumbs=(Crumb("Fleet"),), topics=topics)


def _newest_fork(actor: Actor) -> audit.Fork | None:
    """What an agent told against the audit log lately, for those who may read it."""
    if Capability.VIEW_AUDIT not in actor.capabilities:
        return None
    return audit.last_fork(since=timezone.now() - FORK_SHOWN)


def _listing(request: HttpRequest, wanted: Wanted) -> dict[str, Any]:
    with searching.limited(wanted.filter.words, by=pages.actor_of(request)):
        page: Page[Any] = pages.page_of(request, selectors.list_nodes(wanted.filter), PAGE_SIZES[wanted.view])
        cards = selectors.cards(page.object_list)  # type: ignore[arg-type]
    groups = state.groups_of(cards, COLOURS[wanted.colour]) if wanted.view == "map" else []
    return {"wanted": wanted, "page": page, "cards": cards, "groups": groups, **state.CHOICES}


def _address(request: HttpRequest) -> str:
    """This address without empty parameters."""
    query = request.GET.copy()
    for name in [name for name, value in query.items() if not value]:
        del query[name]
    return f"{request.path}?{query.urlencode()}" if query else request.path


@require_safe
def node(request: HttpRequest, node_id: str) -> HttpResponse:
    """One node: is it well, since when, which figure is the cause."""
    actor = pages.actor_of(request)
    detail, row = selectors.node_detail(node_id), selectors.find_node(node_id)
    chosen = _chosen_range(request, row.pk)
    recent = jobs.jobs_of_node(by=actor, node_pk=row.pk, limit=8)
    context = {
        **node_context(detail, chosen),
        "recent": [summary.of(job, timezone.now()) for job in recent],
        "watched": drifted.of_node(by=actor, node=row),
        "activity": selectors.activity(row, limit=30),
        "presets": sorted(presets.list_presets(), key=_harmless_first),
        "charts": True,
    }
    crumbs = (Crumb("Fleet", "/"), Crumb(node_id, is_mono=True))
    topics = (f"node-{row.pk}-{chosen.value}",)
    return pages.show(request, "nodes/detail.html", context, nav="fleet", crumbs=crumbs, topics=topics)


@require_POST
def confirm_machine(request: HttpRequest, node_id: str) -> HttpResponse:
    """Two machines were suspected behind one node, and a person says that there is one."""
    clones.confirm_machine(by=pages.actor_of(request), node_id=node_id)
    messages.success(request, "The machine of its next heartbeat is this node. Jobs are handed out again.")
    return redirect("nodes:detail", node_id)


def _harmless_first(preset: Preset) -> tuple[bool, int, str]:
    """The report leads, because it only reads."""
    return preset.name != "system-report", RISKS.index(preset.risk), preset.title


def _is_young(history: History) -> bool:
    """Whether it has less than two hours to show, which would be a dot on a chart of a day."""
    return history.range is Range.DAY and len(history.series["cpu_percent"]) < YOUNG_POINTS


def _chosen_range(request: HttpRequest, node_pk: uuid.UUID) -> Range:
    if request.GET.get("range") in Range.values:
        return Range(request.GET["range"])
    return Range.HOUR if _is_young(series.node_history(node_pk, Range.DAY)) else Range.DAY


def node_context(detail: selectors.NodeDetail, chosen: Range) -> dict[str, Any]:
    """What the live parts of a node's page need; its stream renders the same."""
    history = series.node_history(detail.card.pk, chosen)
    return {
        "detail": detail,
        "card": detail.card,
        "lead": sentences.node_lead(detail.card),
        "range": chosen,
        "ranges": tuple(Range),
        "metrics": figures.node_metrics(detail, history),
        "facts": figures.node_facts(detail),
    }


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """What happens, as it happens: heartbeats, changes of status, jobs."""
    actor = pages.actor_of(request)
    context = {"lines": feed.recent(actor), "pace": feed.pace(actor), "kinds": feed.KINDS}
    return pages.show(request, "live/live.html", context, nav="live", crumbs=(Crumb("Live"),), topics=("feed",))
