"""`manage.py mac_key create|rotate|add|reseal|forget`: the key that rows are sealed with."""

from __future__ import annotations

import argparse
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts import families
from audit import sealed
from audit.actions import Action
from hyprbox.lib import mackey
from hyprbox.lib.actors import Actor
from hyprbox.lib.rowmac import models_with_seals
from hyprbox.management.keys import NOT_RECORDED, record_made

_BY = Actor.system("manage.py mac_key")
VERBS = {
    "create": "write a new key to HYPRBOX_MAC_KEY_FILE, unless one is there",
    "rotate": "put a new key in its place and seal every row anew",
    "add": "the first half of it: a new key makes seals, the old one still checks them",
    "reseal": "the second half: seal every row anew, then let no older key check seals any more",
    "forget": "drop replaced keys for good; recovery codes that were made under them work no more",
}
# What began under the old key has ended by then: a request's transaction lasts 10 s at most (`idle_in_transaction...`).
WAIT_SECONDS = 10.0


class Command(BaseCommand):
    help = "Make or replace the key of the row seals. It never leaves its file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
        for verb, text in VERBS.items():
            verbs.add_parser(verb, help=text)

    def handle(self, *args: Any, **options: Any) -> None:
        path, verb = settings.HYPRBOX_MAC_KEY_FILE, options["verb"]
        try:
            if verb == "create":
                self._note(Action.MAC_KEY_CREATED if mackey.create_key(path) else None)
                mackey.key()
            if verb in ("rotate", "add"):
                mackey.add_key(path)
            if verb in ("rotate", "reseal"):
                self._reseal()
            if verb == "forget":
                self.stdout.write(f"forgotten  {mackey.forget_retired(path)}")
        except (OSError, mackey.MacKeyUnusable) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"file  {path}")

    def _reseal(self) -> None:
        """The old key checks seals until nothing needs it: an attempt that was cut short is finished with `reseal`."""
        time.sleep(WAIT_SECONDS)
        count, bad = families.reseal_all(), []
        for model in models_with_seals():
            done, left = sealed.reseal(model)
            count += done
            bad += left
        mackey.retire_others(settings.HYPRBOX_MAC_KEY_FILE)
        self._note(Action.MAC_KEY_ROTATED, rows=count, bad=len(bad))
        for subject, why in bad:
            self.stderr.write(f"{subject}  {why}: it stays as it is, and is refused as before")
        self.stdout.write(f"rows  {count}")

    def _note(self, action: Action | None, **detail: Any) -> None:
        if action is not None and not record_made(action, _BY, **detail):
            self.stderr.write(NOT_RECORDED)
