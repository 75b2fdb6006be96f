"""`manage.py secrets_key create|rotate`: the key of the secrets that the server must read again."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts import factors
from audit.actions import Action
from hyprbox.lib import secretbox
from hyprbox.lib.actors import Actor
from hyprbox.management.keys import NOT_RECORDED, record_made

_BY = Actor.system("manage.py secrets_key")


class Command(BaseCommand):
    help = "Make or replace the key that the seeds of second factors are encrypted with. It never leaves its file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|rotate")
        verbs.add_parser("create", help="write a new key to HYPRBOX_SECRETS_KEY_FILE, unless one is there")
        verbs.add_parser("rotate", help="encrypt everything with a new key, then forget the old one")

    def handle(self, *args: Any, **options: Any) -> None:
        path, done = settings.HYPRBOX_SECRETS_KEY_FILE, None
        try:
            if options["verb"] == "rotate":
                self._rotate()
                done = Action.SECRETS_KEY_ROTATED
            else:
                done = Action.SECRETS_KEY_CREATED if secretbox.create_key(path) else None
                secretbox.keys()
        except (OSError, secretbox.SecretsKeyUnusable) as error:
            raise CommandError(str(error)) from error
        if done is not None and not record_made(done, _BY):
            self.stderr.write(NOT_RECORDED)
        self.stdout.write(f"file  {path}")

    def _rotate(self) -> None:
        """The old key stays in the file until nothing needs it: an attempt that was cut short is repeated."""
        path = settings.HYPRBOX_SECRETS_KEY_FILE
        secretbox.add_key(path)
        count = factors.reencrypt(by=_BY)
        secretbox.keep_first(path)
        self.stdout.write(f"seeds {count}")
