"""What the overview shows and what its address asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

from django.http import QueryDict
from django.utils import timezone

from hyprbox.fleet import sentences
from hyprbox.lib import searching
from hyprbox.lib.actors import Actor
from jobs import selectors as jobs
from nodes import selectors
from nodes.selectors import Counts, NodeCard, NodeFilter
from nodes.series import Range
from nodes.status import WORST_FIRST, Status

VIEWS = ("cards", "table", "map")
PAGE_SIZES = {"cards": 60, "table": 200, "map": 5000}
MAP_FROM = 200
CHOICES = {
    "views": (("cards", "Cards", "grid"), ("table", "Table", "table"), ("map", "Map", "map")),
    "colours": (("cpu", "CPU"), ("mem", "Memory"), ("disk", "Disk")),
    "figure_columns": (("cpu", "CPU"), ("memory", "Mem"), ("disk", "Disk")),
    "key_states": (Status.WARNING, Status.CRITICAL, Status.OFFLINE, Status.UNKNOWN),
}
ATTENTION = 6
SORTS = {
    "worst": ("Worst first", "status"),
    "name": ("Name", "node_id"),
    "cpu": ("CPU", "-cpu_percent"),
    "memory": ("Memory", "-memory_percent"),
    "disk": ("Disk", "-disk_percent"),
    "seen": ("Last seen", "-last_seen_at"),
}
COLOURS = {"cpu": "cpu_percent", "mem": "memory_percent", "disk": "disk_percent"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the address of the overview asks for."""

    status: str
    group: str
    tag: str
    q: str
    sort: str
    view: str
    colour: str
    range: Range

    @classmethod
    def of(cls, query: QueryDict, total: int) -> Wanted:
        status = query.get("status", "").upper()
        sort = query.get("sort", "worst")
        view = query.get("view", "")
        return cls(
            status=status if status in Status.values else "",
            group=query.get("group", "").replace("\0", "")[:63],
            tag=query.get("tag", "").replace("\0", "")[:63],
            q=query.get("q", "").replace("\0", "")[:120].strip(),
            sort=sort if sort in SORTS else "worst",
            view=view if view in VIEWS else ("map" if total >= MAP_FROM else "cards"),
            colour=query.get("colour", "") if query.get("colour", "") in COLOURS else "cpu",
            range=Range(query["range"]) if query.get("range") in Range.values else Range.DAY,  # type: ignore[arg-type]
        )

    @property
    def filter(self) -> NodeFilter:
        statuses = (self.status,) if self.status else ()
        asked = NodeFilter(statuses=statuses, group=self.group, tag=self.tag, q=self.q, ordering=SORTS[self.sort][1])
        return replace(asked, q="") if searching.is_too_short(asked.words) else asked

    @property
    def hint(self) -> str:
        """Why `q` does not narrow the list yet."""
        return searching.HINT if searching.is_too_short(NodeFilter(q=self.q).words) else ""

    @property
    def is_narrow(self) -> bool:
        return bool(self.status or self.group or self.tag or self.q)

    @property
    def topic(self) -> str:
        return {"cards": "cards", "table": "rows", "map": f"cells-{self.colour}"}[self.view]


@dataclass(frozen=True, slots=True)
class FleetState:
    """The figures on top of the overview; the page and the live stream render the same."""

    counts: Counts
    worst: list[NodeCard]
    jobs_day: dict[str, int]

    @property
    def headline(self) -> str:
        return sentences.headline(self.counts)

    @property
    def lead(self) -> str:
        return sentences.lead(self.counts, self.worst)

    @property
    def boxes_label(self) -> str:
        return sentences.boxes_label(self.counts)

    @property
    def jobs_total(self) -> int:
        return sum(self.jobs_day.values())

    @property
    def needs(self) -> list[tuple[Status, str]]:
        """Statuses that need someone, with their words: (CRITICAL, "2 critical")."""
        found = [
            (status, self.counts.by_status[status]) for status in (Status.CRITICAL, Status.OFFLINE, Status.WARNING)
        ]
        return [(status, f"{count:,} {status.label.lower()}") for status, count in found if count]

    @property
    def by_status(self) -> list[tuple[Status, int]]:
        return [(status, self.counts.by_status[status]) for status in WORST_FIRST]

    @property
    def failed_words(self) -> str:
        return f"{self.jobs_day['FAILED']:,} failed"

    @property
    def running_words(self) -> str:
        return f"{self.jobs_day['RUNNING']:,} running"

    @property
    def boxes(self) -> list[Status]:
        """One box for each node, the worst first; only while they are few."""
        if self.counts.total > MAP_FROM:
            return []
        return [status for status in WORST_FIRST for _ in range(self.counts.by_status[status])]


def fleet_state(by: Actor) -> FleetState:
    counts = selectors.counts()
    statuses = (Status.CRITICAL, Status.OFFLINE, Status.WARNING)
    worst = selectors.list_nodes(NodeFilter(statuses=statuses, ordering="status"))[:ATTENTION]
    day = timezone.now() - timedelta(hours=24)
    return FleetState(counts, selectors.cards(worst), jobs.counts_by_status(by=by, since=day))


def groups_of(cards: list[NodeCard], metric: str) -> list[tuple[str, list[NodeCard], int]]:
    """(group, its nodes with the worst and busiest first, how many are critical), the largest group first."""
    by_group = sorted(
        cards, key=lambda card: (card.group, WORST_FIRST.index(card.status), -(getattr(card, metric) or 0))
    )
    found = [(name, list(members)) for name, members in groupby(by_group, key=lambda card: card.group)]
    found.sort(key=lambda group: -len(group[1]))
    return [(name, nodes, sum(node.status == Status.CRITICAL for node in nodes)) for name, nodes in found]
