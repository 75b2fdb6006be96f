"""`manage.py seed_demo`: a fleet that does not exist, with weeks of history, and on demand with a present."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from hyprbox.demo import alive, services
from hyprbox.demo.fleet import HOSTS
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from hyprbox.management.firsts import sentence
from hyprbox.management.options import setting


class Command(BaseCommand):
    help = "Fill an empty installation with a made-up fleet: servers, weeks of history, jobs, people, audit entries."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=1, help="another number makes another past")
        parser.add_argument("--nodes", type=int, default=len(HOSTS), help="how many servers, up to 5000")
        parser.add_argument("--force", action="store_true", help="also beside nodes that are here already")
        parser.add_argument(
            "--live", action="store_true", help="the servers then report and run their jobs, until Ctrl-C; again later"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not (options["live"] and services.is_seeded()):
            self._seed(options)
        if options["live"]:
            self.stdout.write("The made-up servers report and run their jobs; no script runs anywhere. Ctrl-C ends it.")
            self.stdout.flush()
            _go_on(options["seed"])
        else:
            self.stdout.write("No agent reports for these nodes: ten minutes later they are offline, without --live.")

    def _seed(self, options: dict[str, Any]) -> None:
        password = setting("HYPRBOX_DEMO_PASSWORD")
        try:
            made = services.seed(
                by=Actor.system("manage.py seed_demo"),
                seed=options["seed"],
                count=options["nodes"],
                force=options["force"],
                password=password,
            )
        except HyprBoxError as error:
            raise CommandError(sentence(error)) from error
        self.stdout.write(f"{made.nodes} nodes, {made.jobs} jobs and {made.entries} audit entries are there.")
        people = ", ".join(made.people)
        how = "with the password of HYPRBOX_DEMO_PASSWORD" if password else "but nobody knows their passwords"
        self.stdout.write(f"People: {people}, {how}.")


def _go_on(seed: int) -> None:
    """Until somebody asks us to stop, which is no error."""

    async def main() -> None:
        task = asyncio.ensure_future(alive.go_on(seed))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
