"""`manage.py mac_key create`: the key that rows are sealed with."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from audit.actions import Action
from hyprbox.lib import mackey
from hyprbox.lib.actors import Actor
from hyprbox.management.keys import NOT_RECORDED, record_made


class Command(BaseCommand):
    help = "Make the key of the row seals. It never leaves its file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create")
        verbs.add_parser("create", help="write a new key to HYPRBOX_MAC_KEY_FILE, unless one is there")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            is_new = mackey.create_key(settings.HYPRBOX_MAC_KEY_FILE)
            mackey.key()
        except (OSError, mackey.MacKeyUnusable) as error:
            raise CommandError(str(error)) from error
        if is_new and not record_made(Action.MAC_KEY_CREATED, Actor.system("manage.py mac_key")):
            self.stderr.write(NOT_RECORDED)
        self.stdout.write(f"file  {settings.HYPRBOX_MAC_KEY_FILE}")
