"""`manage.py fleet_status`: the fleet in a terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand

from hyprbox.management.tables import aligned, as_json
from nodes import rules, selectors
from nodes.selectors import Counts, NodeCard, NodeFilter
from nodes.status import Status, silence_between, spell

_ATTENTION = (Status.CRITICAL, Status.OFFLINE, Status.WARNING)


class Command(BaseCommand):
    help = "Show every node with its status and why, the worst first."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--status", action="append", default=[], type=str.upper, choices=Status.values)
        parser.add_argument("--group", default="", help="only the nodes of this group")
        parser.add_argument("--tag", default="", help="only the nodes with this tag")
        parser.add_argument("--json", action="store_true", help="for programs")
        parser.add_argument(
            "--check", action="store_true", help="end with 1 when a listed node is critical, offline or a warning"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = NodeFilter(statuses=options["status"], group=options["group"], tag=options["tag"], ordering="status")
        with rules.without_settling():
            cards, counts = selectors.cards(selectors.list_nodes(wanted)), selectors.counts()
        if options["json"]:
            self.stdout.write(as_json([_facts(card) for card in cards]))
        elif cards:
            self.stdout.write(aligned([_HEADING, *(_row(card) for card in cards)]))
        else:
            self.stdout.write(
                "No node is like that."
                if any(options[k] for k in ("status", "group", "tag"))
                else "There is no node yet."
            )
        if not options["json"]:
            self.stdout.write(f"\n{_headline(counts)}")
        if options["check"] and any(card.status in _ATTENTION for card in cards):
            sys.exit(1)


_HEADING = ("NODE", "STATUS", "CPU", "MEMORY", "DISK", "SEEN", "GROUP", "WHY")


def _row(card: NodeCard) -> tuple[str, ...]:
    silence = silence_between(card.last_seen_at, selectors.database_now())
    figures = (card.cpu_percent, card.memory_percent, card.disk_percent)
    percent = tuple("–" if value is None or not card.is_fresh else f"{value:.0f} %" for value in figures)
    seen = "never" if silence is None else f"{spell(silence)} ago"
    why = " ".join(reason.message for reason in card.reasons)
    return (card.node_id, card.status.label, *percent, seen, card.group or "–", why)


def _facts(card: NodeCard) -> dict[str, Any]:
    names = ["node_id", "display_name", "group", "tags", "region", "os", "agent_version", "interval_seconds"]
    names += ["first_seen_at", "last_seen_at", "cpu_percent", "memory_percent", "disk_percent"]
    reasons = [reason.as_dict() for reason in card.reasons]
    return {**{name: getattr(card, name) for name in names}, "status": str(card.status), "reasons": reasons}


def _headline(counts: Counts) -> str:
    parts = [f"{number} {status.label.lower()}" for status, number in counts.by_status.items() if number]
    nodes = "1 node" if counts.total == 1 else f"{counts.total} nodes"
    return f"{nodes}: {', '.join(parts)}." if parts else "0 nodes."
