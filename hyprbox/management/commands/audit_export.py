"""`manage.py audit_export --format csv|jsonl`: the audit log on standard output."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from audit import services
from audit.exports import FORMATS
from hyprbox.lib.actors import Actor


class Command(BaseCommand):
    help = "Write the audit log to standard output, newest first. The export is an entry of the log itself."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--format", choices=sorted(FORMATS), default="jsonl")
        for name in ("actor", "action", "target"):
            parser.add_argument(f"--{name}", default="", help=f"only entries with this {name}")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = {name: options[name] for name in ("actor", "action", "target")}
        by = Actor.system("manage.py audit_export")
        for line in services.export_log(by=by, kind=options["format"], wanted=wanted):
            self.stdout.write(line, ending="")
