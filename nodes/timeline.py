"""What happened to nodes. Doors find this in `nodes.selectors`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nodes.models import Node, StatusFlip
from nodes.status import Status
from tokens.models import NodeToken


@dataclass(frozen=True, slots=True)
class ActivityItem:
    """One thing that happened to a node. `kind` is status, token, job, backup; `status` colours it if it has one."""

    at: datetime
    kind: str
    title: str
    detail: str = ""
    status: str = ""
    ref: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


# Higher apps add their part of a node's activity here: (node, before, limit) -> items, newest first.
ActivitySource = Callable[[Node, datetime | None, int], Iterable[ActivityItem]]
activity_sources: list[ActivitySource] = []


def activity(node: Node, *, before: datetime | None = None, limit: int = 50) -> list[ActivityItem]:
    """What happened to a node, newest first: status flips, token events and what higher apps add."""
    items = [*_flip_items(node, before, limit), *_token_items(node, before)]
    for source in activity_sources:
        items.extend(source(node, before, limit))
    if before is not None:  # a source finds by when something began, and dates it by its latest change
        items = [item for item in items if item.at < before]
    items.sort(key=lambda item: item.at, reverse=True)
    return items[:limit]


def _flip_items(node: Node, before: datetime | None, limit: int) -> list[ActivityItem]:
    flips = StatusFlip.objects.filter(node=node).order_by("-at")
    if before is not None:
        flips = flips.filter(at__lt=before)
    return [flip_item(flip) for flip in flips[:limit]]


def flip_item(flip: StatusFlip) -> ActivityItem:
    after, earlier = Status(flip.after), Status(flip.before)
    detail = " ".join(str(reason["message"]) for reason in flip.reasons) or f"It was {earlier.label.lower()} before."
    return ActivityItem(flip.at, "status", f"{after.label}", detail, after, str(flip.pk), {"before": str(earlier)})


def _token_items(node: Node, before: datetime | None) -> list[ActivityItem]:
    items = []
    for token in NodeToken.objects.filter(node_pk=node.pk).defer("digest"):
        ref = str(token.pk)
        items.append(ActivityItem(token.created_at, "token", "Token created", token.name, ref=ref))
        if token.revoked_at is not None:
            items.append(ActivityItem(token.revoked_at, "token", "Token revoked", token.name, ref=ref))
    return [item for item in items if before is None or item.at < before]


def latest_flips(since: datetime, limit: int = 200) -> list[tuple[str, ActivityItem]]:
    """(node_id, flip) of the whole fleet after `since`, oldest first."""
    flips = StatusFlip.objects.filter(at__gt=since).select_related("node").order_by("at")[:limit]
    return [(flip.node.node_id, flip_item(flip)) for flip in flips]
