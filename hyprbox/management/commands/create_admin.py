"""`manage.py create_admin`: a first or another admin, made by whoever has a shell on the host."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import people
from hyprbox.lib.actors import Actor, Role
from hyprbox.lib.errors import HyprBoxError
from hyprbox.management.firsts import sentence
from hyprbox.management.options import CannotStart, setting


class Command(BaseCommand):
    help = "Create an admin. The password comes from HYPRBOX_ADMIN_PASSWORD, from a pipe, or is asked for."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("email", nargs="?", default=os.environ.get("HYPRBOX_ADMIN_EMAIL", ""))
        parser.add_argument("--name", default="", help="shown in the dashboard; the part before the @ without it")

    def handle(self, *args: Any, **options: Any) -> None:
        email = options["email"]
        if not email:
            raise CommandError("Say who: manage.py create_admin ada@example.com")
        try:
            people.create_user(
                by=Actor.system("create_admin"),
                email=email,
                password=_password(),
                name=options["name"],
                role=Role.ADMIN,
            )
        except HyprBoxError as error:
            raise CommandError(sentence(error)) from error
        self.stdout.write(f"{email} is an admin now.")


def _password() -> str:
    try:
        given = setting("HYPRBOX_ADMIN_PASSWORD")
    except CannotStart as error:
        raise CommandError(str(error)) from error
    if given:
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("Password (12 characters or more): ")
    if first != getpass.getpass("The same again: "):
        raise CommandError("The two passwords differ.")
    return first
