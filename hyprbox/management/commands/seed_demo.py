"""`manage.py seed_demo`: a fleet that does not exist, with weeks of history."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from hyprbox.demo import services
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from hyprbox.management.firsts import sentence
from hyprbox.management.options import setting


class Command(BaseCommand):
    help = "Fill an empty installation with a made-up fleet: servers, weeks of history, jobs, people, audit entries."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=1, help="another number makes another past")
        parser.add_argument("--force", action="store_true", help="also beside nodes that are here already")

    def handle(self, *args: Any, **options: Any) -> None:
        password = setting("HYPRBOX_DEMO_PASSWORD")
        try:
            made = services.seed(
                by=Actor.system("manage.py seed_demo"), seed=options["seed"], force=options["force"], password=password
            )
        except HyprBoxError as error:
            raise CommandError(sentence(error)) from error
        self.stdout.write(f"{made.nodes} nodes, {made.jobs} jobs and {made.entries} audit entries are there.")
        people = ", ".join(made.people)
        how = "with the password of HYPRBOX_DEMO_PASSWORD" if password else "but nobody knows their passwords"
        self.stdout.write(f"People: {people}, {how}.")
        self.stdout.write("No agent reports for these nodes: after ten minutes they are offline.")
