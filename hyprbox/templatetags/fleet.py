"""What node templates need of the fleet's rules: `{% load fleet %}`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from hyprbox.lib.templatetags.ui import heat, look_of
from nodes.selectors import NodeCard
from nodes.status import DEFAULT_LIMITS, Status

register = template.Library()


class Figure(NamedTuple):
    """One of a node's three percentages; `value` is None when it is not of now, `tone` is set past a limit."""

    label: str
    colour: str
    value: float | None
    tone: str


@register.filter
def figures(card: NodeCard) -> list[Figure]:
    """CPU, memory and disk of a card."""
    return [
        _figure(card, "CPU", "cpu", "cpu_percent"),
        _figure(card, "Mem", "mem", "memory_percent"),
        _figure(card, "Disk", "disk", "disk_percent"),
    ]


def _figure(card: NodeCard, label: str, colour: str, metric: str) -> Figure:
    value = getattr(card, metric) if card.is_fresh else None
    limits = DEFAULT_LIMITS[metric]
    tone = ""
    if value is not None and value >= limits.warning:
        tone = "crit" if value >= limits.critical else "warn"
    return Figure(label, colour, value, tone)


@register.simple_tag
def heat_cell(card: NodeCard, colour: str, is_first: bool = False) -> SafeString:
    """One node in the map, coloured by cpu, mem or disk. Not a template: a map has thousands of them."""
    word = look_of(card.status).word.lower()
    value = {"cpu": card.cpu_percent, "mem": card.memory_percent, "disk": card.disk_percent}[colour]
    if card.status == Status.ONLINE:
        state = format_html('data-h="{}"', heat(value))
    else:
        state = format_html('data-s="{}"', look_of(card.status).tone)
    figure = f", {value:.0f} %" if card.is_fresh and value is not None else ""
    return format_html(
        '<a href="{}{}/" id="cell-{}" data-live {}{} title="{}: {}{}" aria-label="{}, {}"></a>',
        _nodes_address(),
        card.node_id,
        card.pk,
        state,
        "" if is_first else _OUT_OF_TAB_ORDER,
        card.label,
        word,
        figure,
        card.label,
        word,
    )


_OUT_OF_TAB_ORDER = mark_safe(' tabindex="-1"')


@lru_cache(maxsize=1)
def _nodes_address() -> str:
    return reverse("nodes:detail", args=["x"]).removesuffix("x/")
