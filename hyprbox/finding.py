"""What the palette finds: nodes, presets and jobs whose name holds every word."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse
from django.utils import timezone

from hyprbox.lib import searching
from hyprbox.lib.actors import Actor, Capability
from hyprbox.lib.templatetags.ui import look_of
from jobs import selectors as jobs
from jobs import summary
from nodes import selectors as nodes
from nodes.selectors import NodeFilter
from nodes.status import Status
from presets import selectors as presets

LIMIT = 6


@dataclass(frozen=True, slots=True)
class Found:
    """One line of the palette."""

    href: str
    icon: str
    label: str
    note: str
    is_mono: bool = False


def find(q: str, *, by: Actor) -> list[Found]:
    """What matches; without words, the nodes that need someone. Few letters find presets, which are few."""
    if not q:
        troubled = (Status.CRITICAL, Status.OFFLINE, Status.WARNING)
        return _nodes(NodeFilter(statuses=troubled, ordering="status"))
    if searching.is_too_short(q):
        return _presets(q, by)
    with searching.limited(q, by=by):
        return [*_nodes(NodeFilter(q=q, ordering="status")), *_presets(q, by), *_jobs(q, by)]


def _nodes(wanted: NodeFilter) -> list[Found]:
    cards = nodes.cards(nodes.list_nodes(wanted)[:LIMIT])
    return [
        Found(reverse("nodes:detail", args=[card.node_id]), "server", card.label, card.status.label, is_mono=True)
        for card in cards
    ]


def _presets(q: str, by: Actor) -> list[Found]:
    words = q.lower().split()
    matching = [
        preset
        for preset in presets.list_presets()
        if all(word in f"{preset.name} {preset.title}".lower() for word in words)
    ]
    icon = "play" if by.can(Capability.RUN_JOBS) else "preset"
    return [
        Found(reverse("presets:preview", args=[preset.name]), icon, preset.title, look_of(preset.risk).word)
        for preset in matching[:LIMIT]
    ]


def _jobs(q: str, by: Actor) -> list[Found]:
    now = timezone.now()
    return [
        Found(
            reverse("jobs:detail", args=[job.pk]),
            "job",
            f"{job.preset_title} on {job.node.node_id}",
            look_of(summary.of(job, now).look).word,
        )
        for job in jobs.find_jobs(by=by, q=q)[:LIMIT]
    ]
