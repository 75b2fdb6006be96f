"""`manage.py mac_key create`: the key that rows are sealed with."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from hyprbox.lib import mackey


class Command(BaseCommand):
    help = "Make the key of the row seals. It never leaves its file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create")
        verbs.add_parser("create", help="write a new key to HYPRBOX_MAC_KEY_FILE, unless one is there")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            mackey.create_key(settings.HYPRBOX_MAC_KEY_FILE)
            mackey.key()
        except (OSError, mackey.MacKeyUnusable) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"file  {settings.HYPRBOX_MAC_KEY_FILE}")
