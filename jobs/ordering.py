"""From a preset's form to queued jobs: what was chosen so far, and what lists are asked for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import QueryDict
from django.urls import reverse
from django.utils import timezone

from hyprbox.lib import searching
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.errors import InvalidInput
from jobs import batches, selectors, services
from jobs.models import Job
from jobs.states import Mode, Status
from nodes import selectors as nodes
from nodes.selectors import NodeCard, NodeFilter
from presets import inputs
from presets import selectors as presets
from presets.documents import Preset
from presets.inputs import Preview

MAX_LISTED = 1000
SINCE = {"24h": timedelta(hours=24), "7d": timedelta(days=7)}


def wanted_jobs(query: QueryDict) -> dict[str, str]:
    """The filters of the job list, cleaned. `hint` says why `q` does not narrow the list yet."""
    wanted = {
        name: query.get(name, "").replace("\0", "").strip()[:254] for name in ("q", "node", "who", "when", "batch")
    }
    status = query.get("status", "").upper()
    wanted["status"] = status if status in Status.values else ""
    wanted["hint"] = searching.HINT if searching.is_too_short(wanted["q"]) else ""
    return wanted


def listed(wanted: dict[str, str], *, by: Actor) -> QuerySet[Job]:
    """The jobs that a list's address asks for, newest first."""
    since = SINCE.get(wanted["when"])
    jobs = selectors.list_jobs(
        by=by,
        status=[wanted["status"]] if wanted["status"] else [],
        node_id=wanted["node"],
        batch=_uuid(wanted["batch"]),
        created_by=wanted["who"],
        since=timezone.now() - since if since else None,
    )
    is_search = wanted["q"] and not wanted["hint"]
    return jobs & selectors.find_jobs(by=by, q=wanted["q"]) if is_search else jobs


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def listed_nodes(chosen: list[str]) -> list[NodeCard]:
    """What is listed: the chosen ones first, so that none is lost in a fleet that is longer than the list.

    Nodes that were never seen are listed last, as they cannot be chosen.
    """
    everything = nodes.list_nodes(NodeFilter(ordering="status"))
    first = nodes.cards(everything.named(chosen))
    names = {card.node_id for card in first}
    rest = [card for card in nodes.cards(everything[:MAX_LISTED]) if card.node_id not in names]
    return sorted(first + rest, key=lambda card: not card.was_seen)


@dataclass(frozen=True, slots=True)
class Draft:
    """An order on its way through the steps; each step's form carries all of it."""

    preset: Preset
    preview: Preview
    node_ids: list[str]
    mode: str
    confirm: str
    key: str
    cards: list[NodeCard]

    @classmethod
    def of(cls, data: QueryDict, *, name: str, by: Actor) -> Draft:
        """Raises `Forbidden` for viewers, `UnknownPreset`."""
        require(by, Capability.RUN_JOBS)
        preset = presets.find_preset(name)
        preview = inputs.preview(preset, inputs.read_values(preset, data.dict()))  # type: ignore[arg-type]
        mode = data.get("mode", "")
        return cls(
            preset=preset,
            preview=preview,
            node_ids=list(dict.fromkeys(node for node in data.getlist("node") if node)),
            mode=mode if mode in Mode.values and (mode != Mode.CHECK or preset.check) else Mode.APPLY,
            confirm=data.get("confirm", "").strip(),
            key=data.get("key", "") or str(uuid.uuid4()),
            cards=listed_nodes(data.getlist("node")),
        )

    @property
    def chosen(self) -> list[NodeCard]:
        return [card for card in self.cards if card.was_seen and card.node_id in self.node_ids]

    @property
    def absent(self) -> list[NodeCard]:
        """Chosen nodes that will run it only when they are back."""
        return [card for card in self.chosen if not card.is_fresh]

    @property
    def tags(self) -> list[tuple[str, int]]:
        """(tag, how many nodes have it), the most used first."""
        counted: dict[str, int] = {}
        for card in self.cards:
            if not card.was_seen:
                continue
            for tag in [*card.tags, *([card.group] if card.group else [])]:
                counted[tag] = counted.get(tag, 0) + 1
        return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:12]

    @property
    def problem(self) -> str:
        """What keeps it from being confirmed; empty when nothing does."""
        if not self.node_ids:
            return "Choose at least one node."
        unknown = sorted(set(self.node_ids) - {card.node_id for card in self.cards})
        if unknown:
            return f"There is no node “{unknown[0]}”."
        awaited = [card.node_id for card in self.cards if card.node_id in self.node_ids and not card.was_seen]
        if awaited:
            return f"“{awaited[0]}” has never reported, so nothing can run there yet: install its agent first."
        return ""

    @property
    def is_wide(self) -> bool:
        return len(self.node_ids) > batches.MOST_WITHOUT_STEP_UP

    @property
    def needs_review(self) -> bool:
        return self.preset.risk != "safe"

    @property
    def needs_typing(self) -> bool:
        return self.mode == Mode.APPLY and (self.preset.risk == "dangerous" or self.is_wide)

    @property
    def verb(self) -> str:
        return "Check" if self.mode == Mode.CHECK else "Run"

    def queue(self, *, by: Actor) -> str:
        """Queue it and return the address to go to. Raises `InvalidInput`."""
        if self.problem:
            raise InvalidInput(fields={"node_ids": [self.problem]})
        order = services.Order(self.preset.name, self.preview.values, mode=self.mode, confirm=self.confirm)
        if len(self.node_ids) == 1:
            job, _ = services.queue_job(by=by, order=order, node_id=self.node_ids[0], idempotency_key=self.key)
            return reverse("jobs:detail", args=[job.pk])
        batch, _, _ = batches.queue(by=by, order=order, node_ids=self.node_ids, idempotency_key=self.key)
        return reverse("jobs:batch", args=[batch.pk])

    def blame(self, error: InvalidInput) -> tuple[str, int]:
        """The template and the step that can mend what is wrong."""
        names: Any = error.fields.keys()
        if any(name.startswith("variables") for name in names):
            return "presets/preview.html", 1
        if any(name.startswith("node") for name in names):
            return "jobs/targets.html", 2
        return "jobs/confirm.html", 3
