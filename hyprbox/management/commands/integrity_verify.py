"""`manage.py integrity_verify`: are the rows that lead to access or execution as HyprBox left them?"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from hyprbox import integrity
from hyprbox.lib.actors import Actor
from hyprbox.lib.mackey import MacKeyUnusable
from hyprbox.lib.signing import SigningKeyUnusable


class Command(BaseCommand):
    help = (
        "Check every seal and every job's signature. Ends with 0 when all fit, 1 when some do not, 2 without a key to check"
        " with. Jobs that ended and whose key is gone are counted by themselves: nothing runs from them any more."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = integrity.verify(by=Actor.system("manage.py integrity_verify"))
        except (MacKeyUnusable, SigningKeyUnusable) as error:
            raise CommandError(str(error), returncode=2) from error
        if options["json"]:
            bad = [{"row": subject, "why": why} for subject, why in found.bad]
            counts = {"checked": found.checked, "unknown": found.unknown, "seconds": round(found.seconds, 3)}
            self.stdout.write(json.dumps({**counts, "bad": bad}))
        else:
            for subject, why in found.bad:
                self.stdout.write(f"{subject}  {why}")
            self.stdout.write(f"{found.checked:,} rows checked, {len(found.bad)} not as HyprBox left them.")
            if found.unknown:
                self.stdout.write(
                    f"Of {found.unknown:,} jobs that ended it cannot be told: their key is not known any more."
                )
        sys.exit(1 if found.bad else 0)
