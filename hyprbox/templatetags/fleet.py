"""What node templates need of the fleet's rules: `{% load fleet %}`."""

from __future__ import annotations

from typing import NamedTuple

from django import template

from nodes.selectors import NodeCard
from nodes.status import DEFAULT_LIMITS

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


@register.filter
def coloured_by(card: NodeCard, colour: str) -> float | None:
    """The figure that a heat cell shows."""
    return {"cpu": card.cpu_percent, "mem": card.memory_percent, "disk": card.disk_percent}[colour]
