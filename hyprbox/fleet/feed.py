"""The live page: its lines and its figures. The page begins with them, the stream goes on with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from hyprbox.lib.actors import Actor
from hyprbox.lib.templatetags.ui import look_of
from jobs import selectors as jobs
from jobs import summary
from jobs.models import Job
from nodes import selectors
from nodes.selectors import ActivityItem, NodeCard, NodeFilter

KINDS = (("hb", "Heartbeats"), ("st", "Status"), ("job", "Jobs"))
FIRST_LINES = 60
FIRST_DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Line:
    """One event. `kind` is a key of `KINDS`; `tone` colours what someone should look at."""

    at: datetime
    kind: str
    icon: str
    node_id: str
    text: str
    tone: str = ""
    note: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """How busy the fleet is. `per_second` follows from the intervals of the nodes that report."""

    per_second: float
    reporting: int
    total: int
    running: int
    queued: int
    flips: int

    @property
    def headline(self) -> str:
        if not self.reporting:
            return "No heartbeats at the moment"
        if self.per_second >= 1:
            return f"{self.per_second:.1f} heartbeats a second"
        return f"A heartbeat every {1 / self.per_second:.0f} seconds"


def heartbeat_line(card: NodeCard) -> Line | None:
    """None for a node that never reported."""
    if card.last_seen_at is None:
        return None
    figures = (("cpu", card.cpu_percent), ("mem", card.memory_percent), ("disk", card.disk_percent))
    text = "   ".join(f"{name} {'  –' if value is None else f'{value:3.0f}'} %" for name, value in figures)
    return Line(card.last_seen_at, "hb", "pulse", card.node_id, text)


def flip_line(node_id: str, item: ActivityItem) -> Line:
    look = look_of(item.status)
    tone = look.tone if look.tone in ("warn", "crit", "ok") else ""
    return Line(item.at, "st", look.icon, node_id, f"{item.title}. {item.detail}", tone, "status")


def job_line(job: Job, now: datetime) -> Line:
    told = summary.of(job, now)
    look = look_of(told.look)
    at = job.finished_at or job.started_at or job.created_at
    text = f"{job.preset_title}: {look.word.lower()}"
    if told.result:
        text += f", {told.result}"
    tone = look.tone if look.tone in ("crit", "warn", "unknown") else ""
    return Line(at, "job", look.icon, job.node.node_id, text, tone, "job", f"/jobs/{job.pk}/")


def recent(by: Actor) -> list[Line]:
    """What the page starts with, newest first."""
    now = timezone.now()
    cards = selectors.cards(selectors.list_nodes(NodeFilter(ordering="-last_seen_at"))[:FIRST_LINES])
    beats: Iterable[Line | None] = (heartbeat_line(card) for card in cards)
    lines = [line for line in beats if line is not None]
    lines += [flip_line(node_id, item) for node_id, item in selectors.latest_flips(now - FIRST_DAY, FIRST_LINES)]
    lines += [job_line(job, now) for job in jobs.list_jobs(by=by, since=now - FIRST_DAY)[:FIRST_LINES]]
    return sorted(lines, key=lambda line: line.at, reverse=True)[:FIRST_LINES]


def pace(by: Actor) -> Pace:
    now = timezone.now()
    counts = selectors.counts()
    fresh = selectors.cards(selectors.list_nodes(NodeFilter()))
    reporting = [card for card in fresh if card.is_fresh]
    states = jobs.counts_by_status(by=by, since=now - FIRST_DAY)
    return Pace(
        per_second=sum(1 / max(card.interval_seconds, 1) for card in reporting),
        reporting=len(reporting),
        total=counts.total,
        running=states["RUNNING"],
        queued=states["QUEUED"],
        flips=len(selectors.latest_flips(now - FIRST_DAY)),
    )
