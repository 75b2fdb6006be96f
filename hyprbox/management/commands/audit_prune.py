"""`manage.py audit_prune`: old entries of the audit log leave the database for a file, provably."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_date

from audit import pruning
from audit.pruning import NothingToPrune, NotTheOwner
from audit.segments import BadSegment
from audit.verifying import CannotTell
from hyprbox.lib.actors import Actor
from hyprbox.lib.signing import SigningKeyUnusable
from hyprbox.management.owner import as_owner


class Command(BaseCommand):
    help = "Move old entries of the audit log into a file. A signed statement in the log says which, so that it still verifies."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--before", required=True, metavar="DATE", help="entries from before this day, such as 2026-01-31"
        )
        parser.add_argument(
            "--to", required=True, metavar="FILE", help="a new file, which `audit_verify --segment` reads"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(options["to"]).absolute()
        by, before = Actor.system("manage.py audit_prune"), _day(options["before"])
        try:
            with as_owner():
                segment = pruning.prune(by=by, before=before, path=path)
        except (NothingToPrune, NotTheOwner, CannotTell, BadSegment, SigningKeyUnusable, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"entries  {segment.first} to {segment.last}\nfile     {path}\nsha256   {segment.sha256}")


def _day(text: str) -> datetime:
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None:
        raise CommandError(f"--before {text} is not a day: it would be 2026-01-31, for instance.")
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
