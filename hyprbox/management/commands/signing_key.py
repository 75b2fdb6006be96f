"""`manage.py signing_key create|show`: the key that jobs are signed with."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from audit.actions import Action
from hyprbox.lib import signing
from hyprbox.lib.actors import Actor
from hyprbox.management.keys import NOT_RECORDED, record_made


class Command(BaseCommand):
    help = "Make the signing key, or show its public half. The private half never leaves its file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|show")
        verbs.add_parser("create", help="write a new key to HYPRBOX_SIGNING_KEY_FILE, unless one is there")
        verbs.add_parser("show", help="the public key, its id, and the hash that agents may be told")

    def handle(self, *args: Any, **options: Any) -> None:
        path, is_new = settings.HYPRBOX_SIGNING_KEY_FILE, False
        try:
            if options["verb"] == "create":
                is_new = signing.create_key(path)
            key = signing.signer()
        except (OSError, signing.SigningKeyUnusable) as error:
            raise CommandError(str(error)) from error
        if is_new and not record_made(Action.SIGNING_KEY_CREATED, Actor.system("manage.py signing_key")):
            self.stderr.write(NOT_RECORDED)
        self.stdout.write(f"file                 {path}")
        self.stdout.write(f"key_id               {key.key_id}")
        self.stdout.write(f"public_key           {key.public_key}")
        self.stdout.write(f"HYPRBOX_KEYS_SHA256  {signing.key_set_sha256()}")
