"""`manage.py migrate`: Django's, as the role that owns the tables, one at a time, followed by the app's privileges."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate
from django.db import connection

from hyprbox import startup
from hyprbox.lib.postgres import advisory_lock
from hyprbox.management.owner import as_owner, grant, refuse

# Requests have seconds; a migration may take its time, and so may its turn.
_LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        with as_owner():
            self._set("SET {} = 0")
            with advisory_lock(connection, "hyprbox.migrate"):
                refuse()
                super().handle(*args, **options)
                if not options["plan"] and not options["check_unapplied"]:
                    grant()
            self._set("RESET {}")
        if options["verbosity"] >= 1 and (why := startup.weakness()):
            self.stderr.write(self.style.WARNING(why))

    @staticmethod
    def _set(statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("; ".join(statement.format(name) for name in _LIMITS))
