"""`manage.py worker`: deadlines, retention, status flips and whatever else time starts."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand

from hyprbox import worker
from hyprbox.lib import logs


class Command(BaseCommand):
    help = "Run what time starts: deadlines, retention, changes of status. Any number of them may run; SIGTERM ends it."

    def handle(self, *args: Any, **options: Any) -> None:
        logs.take_over_tracebacks()
        asyncio.run(worker.work())
