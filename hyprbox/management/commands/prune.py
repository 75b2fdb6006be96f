"""`manage.py prune`: delete now what the worker would delete at its next turn."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand

from hyprbox.management.tables import aligned, as_json
from jobs import retention, services
from nodes import history


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that is not kept for ever. `due` counts what is past its time, `act` deletes it and counts, too."""

    name: str
    kept: str
    due: Callable[[], int]
    act: Callable[[], int]


RULES = (
    Rule(
        "partitions of history",
        " / ".join(f"{series.kept.days}" for series in history.ALL_SERIES) + " days",
        lambda: len(history.old_partitions()),
        lambda: len(history.drop_old()),
    ),
    Rule(
        "changes of status",
        f"{history.FLIPS_KEPT.days} days",
        lambda: history.old_flips().count(),
        history.forget_old_flips,
    ),
    Rule(
        "pieces of jobs' output",
        f"{retention.OUTPUT_DAYS} days",
        retention.count_old_output,
        retention.forget_old_output,
    ),
    Rule("keys of repeated requests", "24 hours", lambda: services.old_keys().count(), services.forget_old_keys),
)


class Command(BaseCommand):
    help = "Delete what is past its time, as the worker does by itself. Jobs and audit entries are never deleted."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count what would be deleted")
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        found = [(rule, rule.due()) for rule in RULES]
        if not options["dry_run"]:
            for rule, number in found:
                while number > 0 and rule.act() > 0:  # some delete in portions
                    number = rule.due()
        left = [(rule, due, due if options["dry_run"] else due - rule.due()) for rule, due in found]
        if options["json"]:
            key = "would_delete" if options["dry_run"] else "deleted"
            self.stdout.write(as_json([{"what": rule.name, "kept": rule.kept, key: n} for rule, _, n in left]))
            return
        heading = ("WHAT", "KEPT", "WOULD GO" if options["dry_run"] else "DELETED")
        self.stdout.write(aligned([heading, *((rule.name, rule.kept, str(n)) for rule, _, n in left)]))
        if not options["dry_run"] and (busy := [rule.name for rule, due, gone in left if gone < due]):
            self.stderr.write(f"Not all could be deleted, because it was in use: {', '.join(busy)}. Try again later.")
