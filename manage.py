#!/usr/bin/env python
"""HyprBox's management commands. Without DATABASE_URL they use, and if need be start, the embedded PostgreSQL."""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - for those who start it with an older one by hand
    sys.exit("HyprBox needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info[:2]))

from contextlib import AbstractContextManager, nullcontext

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from hyprbox.lib.postgres import EmbeddedPostgres, PostgresUnavailable
from hyprbox.management import folder
from hyprbox.management.commands import up
from hyprbox.management.options import CannotStart, chosen, setting

# Starting a database for these would only cost time.
_NEEDS_NO_DATABASE = {
    "",
    "help",
    "version",
    "--help",
    "--version",
    "-h",
    "check",
    "collectstatic",
    "mac_key",
    "signing_key",
    "spectacular",
}


def _database(command: str) -> AbstractContextManager[object]:
    if command in _NEEDS_NO_DATABASE or setting("DATABASE_URL"):
        return nullcontext()
    return EmbeddedPostgres(settings.HYPRBOX_VAR_DIR).borrowed()


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hyprbox.settings")
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "up":  # it makes what the settings need, so it runs before they load
        sys.exit(up.main(sys.argv[2:]))
    try:
        if not setting("HYPRBOX_PORT") and (port := folder.last_port(chosen({}).var_dir)):
            os.environ["HYPRBOX_PORT"] = port  # what a command tells, such as where a server is enrolled, is then true
        with _database(command):
            execute_from_command_line(sys.argv)
    except (CannotStart, ImproperlyConfigured, PostgresUnavailable) as error:
        sys.exit(f"manage.py: {error}")
    except OperationalError as error:
        sys.exit(f"manage.py: The database cannot be used: {' '.join(str(error).split())}.")


if __name__ == "__main__":
    main()
