"""`manage.py signing_key create|show|rotate`: the key that jobs are signed with."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from audit.actions import Action
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor
from hyprbox.management.keys import NOT_RECORDED, record_made

_BY = Actor.system("manage.py signing_key")


class Command(BaseCommand):
    help = "Make the signing key, show its public half, or replace it. The private half never leaves its file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|show|rotate")
        verbs.add_parser("create", help="write a new key to HYPRBOX_SIGNING_KEY_FILE, unless one is there")
        verbs.add_parser("show", help="the public keys, their ids, and the hash that agents may be told")
        rotate = verbs.add_parser("rotate", help="put a new key in its place, of which agents learn from the old one")
        rotate.add_argument(
            "--now", action="store_true", help="agents run no job of the old key any more, instead of for seven days"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path, verb, made = settings.HYPRBOX_SIGNING_KEY_FILE, options["verb"], None
        detail: dict[str, Any] = {}
        try:
            if verb == "create" and signing.create_key(path):
                made = Action.SIGNING_KEY_CREATED
            if verb == "rotate":
                made, detail = Action.SIGNING_KEY_ROTATED, {"replaced": signing.signer().key_id, "now": options["now"]}
                signing.rotate(path, at_once=options["now"])
            self._show()
        except signing.StillRotating as error:
            raise CommandError(f"{error} It ends at {signing.next_change():%Y-%m-%d %H:%M} UTC.") from error
        except (OSError, signing.SigningKeyUnusable) as error:
            raise CommandError(str(error)) from error
        if made is not None and not record_made(made, _BY, **detail):
            self.stderr.write(NOT_RECORDED)

    def _show(self) -> None:
        signer, keys, change = signing.signer(), signing.key_set(), signing.next_change()
        self.stdout.write(f"file                 {settings.HYPRBOX_SIGNING_KEY_FILE}")
        self.stdout.write(f"key_id               {signer.key_id}")
        self.stdout.write(f"public_key           {signer.public_key}")
        self.stdout.write(f"HYPRBOX_KEYS_SHA256  {keys.sha256}")
        for key in keys.keys:
            if key["key_id"] != signer.key_id:
                until = "retired" if key["retired"] else f"good until {change:%Y-%m-%d %H:%M} UTC"
                self.stdout.write(f"replaced             {key['key_id']}  {until}")
