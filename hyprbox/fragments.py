"""What each topic of the dashboard's stream renders. A fragment is the very partial that the page was made of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.template.loader import render_to_string
from django.utils import timezone

from hyprbox.fleet import feed, state
from hyprbox.fleet.views import node_context
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.errors import InvalidInput
from hyprbox.lib.live import Event
from jobs import selectors as jobs
from jobs import summary
from jobs.states import Status
from nodes import selectors as nodes
from nodes.errors import UnknownNode
from nodes.selectors import NodeCard
from nodes.series import Range
from tokens import selectors as tokens

Frame = tuple[str, dict[str, Any]]
LATEST_JOBS = 50
PACE_SECONDS = 2.0
FIRST_LOOK = timedelta(seconds=1)


def fragment(id: str, template: str, context: dict[str, Any], **extra: Any) -> Frame:
    return "fragment", {"id": id, "html": render_to_string(template, context).strip(), **extra}


class Source:
    """One topic of one channel. `topics` are the hub's; `changes` renders what the hints name."""

    topics: ClassVar[tuple[str, ...]] = ()

    def __init__(self, by: Actor) -> None:
        self.by = by

    def snapshot(self) -> Iterable[Frame]:
        return ()

    def changes(self, events: list[Event]) -> Iterable[Frame]:
        return self.snapshot()


class Nav(Source):
    """The counts beside the places."""

    topics = ("nodes", "jobs")

    def snapshot(self) -> Iterator[Frame]:
        running = jobs.counts_by_status(by=self.by, since=timezone.now())[Status.RUNNING]
        counts = (("nav-nodes", nodes.counts().total, ""), ("nav-jobs", running, "run"))
        for id, count, tone in counts:
            yield fragment(id, "partials/_nav_count.html", {"id": id, "count": count, "tone": tone})


class Fleet(Source):
    """The figures on top of the overview."""

    topics = ("nodes", "jobs", "activity")

    def snapshot(self) -> Iterator[Frame]:
        context = {"fleet": state.fleet_state(self.by)}
        for id, template in (("headline", "_headline"), ("kpis", "_kpis"), ("attention", "_attention")):
            yield fragment(f"fleet-{id}", f"nodes/{template}.html", context)


class Since(Source):
    """One that remembers until when it has told, by the database's clock."""

    told_until: datetime | None = None

    def snapshot(self) -> Iterable[Frame]:
        if self.told_until is None:  # what was before is on the page
            self.step()
        return ()

    def step(self) -> tuple[datetime, datetime]:
        """Until when it had told, and now."""
        now = nodes.database_now()
        before, self.told_until = self.told_until or now - FIRST_LOOK, now
        return before, now


class Nodes(Since):
    """Each changed node, as a card, a row or a cell."""

    topics = ("nodes",)

    def __init__(self, by: Actor, prefix: str, template: str, **context: Any) -> None:
        super().__init__(by)
        self.prefix, self.template, self.context = prefix, template, context

    def changes(self, events: list[Event]) -> Iterator[Frame]:
        before, _ = self.step()
        for card in changed_cards(events, before):
            yield fragment(f"{self.prefix}-{card.pk}", self.template, {"card": card, **self.context}, list="nodes")


def changed_cards(events: list[Event], since: datetime) -> list[NodeCard]:
    """The nodes that the hints name; all that were touched when a hint names none because they are too many."""
    named = [event.ids.get("node") for event in events if event.topic == "nodes"]
    if any(pks is None for pks in named):
        return nodes.cards(nodes.touched(since=since - timedelta(seconds=1)))
    return nodes.node_cards({pk for pks in named for pk in pks or ()})


class OneNode(Source):
    """A node's page."""

    topics = ("nodes", "activity", "jobs")

    def __init__(self, by: Actor, pk: str, chosen: Range) -> None:
        super().__init__(by)
        self.pk, self.range = pk, chosen

    def snapshot(self) -> Iterator[Frame]:
        found = nodes.node_cards([self.pk])
        if not found:
            return
        try:
            context = node_context(nodes.node_detail(found[0].node_id), self.range)
        except UnknownNode:
            return
        yield fragment("node-headline", "nodes/_node_headline.html", context)
        for metric in context["metrics"]:
            yield fragment(f"metric-{metric.key}", "nodes/_metric.html", {**context, "metric": metric})

    def changes(self, events: list[Event]) -> Iterator[Frame]:
        mine = [event for event in events if self._concerns(event)]
        if any(event.topic == "nodes" for event in mine):
            yield from self.snapshot()
        if any(event.topic != "nodes" for event in mine):
            yield from self._history()

    def _concerns(self, event: Event) -> bool:
        named = event.ids.get("node")
        return named is None or named == self.pk or (isinstance(named, list) and self.pk in named)

    def _history(self) -> Iterator[Frame]:
        for card in nodes.node_cards([self.pk]):
            row = nodes.find_node(card.node_id)
            yield fragment("node-activity", "nodes/_timeline.html", {"activity": nodes.activity(row, limit=30)})
            now = timezone.now()
            recent = [summary.of(job, now) for job in jobs.jobs_of_node(by=self.by, node_pk=row.pk, limit=8)]
            yield fragment("node-jobs", "jobs/_of_node.html", {"recent": recent, "card": card})


class JobRows(Source):
    """The rows of the job list, and its sentence."""

    topics = ("jobs",)

    def snapshot(self) -> Iterator[Frame]:
        day = timezone.now() - timedelta(hours=24)
        counts = jobs.counts_by_status(by=self.by, since=day)
        yield fragment("jobs-headline", "jobs/_list_headline.html", {"counts": counts})

    def changes(self, events: list[Event]) -> Iterator[Frame]:
        yield from self.snapshot()
        now = timezone.now()
        for job in jobs.jobs_by_id(by=self.by, job_ids=job_ids(events)):
            yield fragment(f"job-{job.pk}", "jobs/_row.html", {"told": summary.of(job, now)}, list="jobs")


class OneBatch(JobRows):
    """A batch's page: how far it is, and the rows of its own jobs."""

    def __init__(self, by: Actor, batch_id: str) -> None:
        super().__init__(by)
        self.batch_id = batch_id

    def snapshot(self) -> Iterator[Frame]:
        batch = jobs.find_batch(by=self.by, batch_id=self.batch_id)
        shown = summary.of_batch(batch, jobs.counts_of_batch(by=self.by, batch=batch), jobs.waves(batch))
        for id in ("headline", "state"):
            yield fragment(f"batch-{id}", f"jobs/_batch_{id}.html", {"batch": batch, "shown": shown})

    def changes(self, events: list[Event]) -> Iterator[Frame]:
        mine = jobs.jobs_by_id(by=self.by, job_ids=job_ids(events))
        now = timezone.now()
        rows = [summary.of(job, now) for job in mine if str(job.batch_id) == self.batch_id]
        if rows or any(event.ids.get("job") is None for event in events):
            yield from self.snapshot()
        for told in rows:
            yield fragment(f"job-{told.job.pk}", "jobs/_row.html", {"told": told}, list="jobs")


def job_ids(events: list[Event]) -> list[str]:
    """The newest first, at most fifty."""
    named = dict.fromkeys(str(event.ids["job"]) for event in reversed(events) if event.ids.get("job"))
    return list(named)[:LATEST_JOBS]


class OneJob(Source):
    """A job's page for whoever may not see its output. Its buttons hold a form token, so they are not here."""

    def __init__(self, by: Actor, job_id: str) -> None:
        super().__init__(by)
        self.job_id = job_id
        self.topics = (f"job.{job_id}",)  # type: ignore[misc]

    def snapshot(self) -> Iterator[Frame]:
        job = jobs.job_detail(by=self.by, job_id=self.job_id)
        context = {"told": summary.of(job, timezone.now()), "job": job}
        for id, template in (("job-header", "_headline"), ("job-steps", "_stepper"), ("job-facts", "_facts")):
            yield fragment(id, f"jobs/{template}.html", context)


class LiveFeed(Since):
    """The live page: lines as they happen, and its figures."""

    topics = ("nodes", "jobs", "activity")
    paced_at = 0.0

    def changes(self, events: list[Event]) -> Iterator[Frame]:
        before, now = self.step()
        cards = changed_cards(events, before) if any(event.topic == "nodes" for event in events) else []
        lines = [
            line for card in cards if (line := feed.heartbeat_line(card)) and line.at > before - timedelta(seconds=2)
        ]
        lines += [feed.flip_line(node_id, item) for node_id, item in nodes.latest_flips(before)]
        lines += [feed.job_line(job, now) for job in jobs.jobs_by_id(by=self.by, job_ids=job_ids(events))]
        for line in sorted(lines, key=lambda line: line.at):
            yield "line", {"html": render_to_string("live/_line.html", {"line": line, "is_new": True}).strip()}
        if time.monotonic() - self.paced_at >= PACE_SECONDS:
            self.paced_at = time.monotonic()
            context = {"pace": feed.pace(self.by)}
            yield fragment("live-headline", "live/_headline.html", context)
            yield fragment("live-pace", "live/_pace.html", context)


class First(Source):
    """The empty fleet waits for its first node."""

    topics = ("nodes",)

    def snapshot(self) -> Iterator[Frame]:
        seen = [
            card for card in nodes.cards(nodes.list_nodes(nodes.NodeFilter())[:20]) if card.last_seen_at is not None
        ]
        if seen:
            yield fragment("first", "nodes/_first.html", {"card": seen[0]})


class Tokens(Source):
    """The list of tokens. Its rows hold forms, so the page fetches them itself: what happens here is rare."""

    topics = ("tokens", "uses")

    def __init__(self, by: Actor) -> None:
        require(by, Capability.MANAGE_TOKENS)
        super().__init__(by)

    def changes(self, events: list[Event]) -> Iterator[Frame]:
        yield "resync", {}


class Enrolling(Source):
    """A new token waits for the first heartbeat that uses it."""

    topics = ("nodes", "tokens")

    def __init__(self, by: Actor, token_id: str) -> None:
        require(by, Capability.MANAGE_TOKENS)
        super().__init__(by)
        self.token_id = token_id

    def snapshot(self) -> Iterator[Frame]:
        token = tokens.list_tokens(by=self.by).filter(pk=self.token_id).first()
        if token is None or token.node_pk is None:
            return
        for card in nodes.node_cards([token.node_pk]):
            if card.first_seen_at is not None:
                yield fragment(f"enrol-{token.pk}", "tokens/_waiting.html", {"token": token, "card": card})


_UUID = r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_SOURCES: list[tuple[str, Callable[..., Source]]] = [
    (r"nav", Nav),
    (r"fleet", Fleet),
    (r"cards", lambda by: Nodes(by, "card", "nodes/_card.html")),
    (r"rows", lambda by: Nodes(by, "row", "nodes/_row.html")),
    (r"cells-(?P<colour>cpu|mem|disk)", lambda by, colour: Nodes(by, "cell", "nodes/_cell.html", colour=colour)),
    (rf"node-{_UUID}-(?P<chosen>1h|24h|7d|30d)", lambda by, id, chosen: OneNode(by, id, Range(chosen))),
    (r"jobs", JobRows),
    (rf"batch-{_UUID}", lambda by, id: OneBatch(by, id)),
    (rf"job-{_UUID}", lambda by, id: OneJob(by, id)),
    (r"feed", LiveFeed),
    (r"first", First),
    (r"tokens", Tokens),
    (rf"enrol-{_UUID}", lambda by, id: Enrolling(by, id)),
]


def source(topic: str, *, by: Actor) -> Source:
    """Raises `InvalidInput` for a topic that does not exist, `Forbidden` for one that is not for this person."""
    for pattern, make in _SOURCES:
        if match := re.fullmatch(pattern, topic):
            return make(by, **match.groupdict())
    raise InvalidInput(fields={"topics": [f"There is no topic “{topic[:60]}”."]})
