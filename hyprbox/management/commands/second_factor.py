"""`manage.py second_factor reset`: for whoever lost theirs, when there is no admin who could take it away."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import factors
from accounts.selectors import find_by_email
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from hyprbox.management.firsts import sentence


class Command(BaseCommand):
    help = "Take someone's second factor away. Their password alone opens the account then."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="reset")
        reset = verbs.add_parser("reset", help="take it away, and sign them out everywhere")
        reset.add_argument("email")

    def handle(self, *args: Any, **options: Any) -> None:
        user = find_by_email(options["email"])
        if user is None:
            raise CommandError(f"There is no user “{options['email']}”.")
        try:
            factors.reset(by=Actor.system("second_factor"), user_id=user.pk)
        except HyprBoxError as error:
            raise CommandError(sentence(error)) from error
        self.stdout.write(f"{user.email} has no second factor any more.")
