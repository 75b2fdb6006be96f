"""`manage.py up`: all of HyprBox on one machine, for a newcomer and for development."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import django
import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.db import DatabaseError

from hyprbox.lib.postgres import EmbeddedPostgres, PostgresUnavailable
from hyprbox.management import folder, options
from hyprbox.management.folder import ChildRecord
from hyprbox.management.options import CannotStart, UpOptions
from hyprbox.management.packing import Packing
from hyprbox.management.supervisor import Child, Supervisor

_OWNER_URL = "HYPRBOX_MIGRATION_DATABASE_URL"
_READY_SECONDS = 60
_LOOK_SECONDS = 0.5


class Command(BaseCommand):
    help = "Run all of HyprBox on this machine: PostgreSQL, web, worker and an agent. Ctrl-C stops it."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        options.add_arguments(parser)

    def handle(self, *args: Any, **flags: Any) -> None:
        sys.exit(_main(flags))


def main(arguments: Sequence[str]) -> int:
    """The door of manage.py, which comes here before the settings load: we make what they need."""
    return _main(options.flags(arguments))


def _main(flags: dict[str, Any]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        Up(options.chosen(flags)).run()
    except Stop:  # before there was anything to stop
        return 0
    except (CannotStart, PostgresUnavailable, ImproperlyConfigured) as error:
        print(f"HyprBox cannot start. {error}", file=sys.stderr)
        return 1
    return 0


class Stop(BaseException):
    """Someone asked us to stop."""

    is_asked = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    Stop.is_asked = True  # for `_look`, since what is raised while a finalizer runs is printed and goes no further
    raise Stop


def _say(text: str) -> None:
    print(text, flush=True)


class Up:
    """One run of `up`, from the lock on its folder to the last process it ends."""

    def __init__(self, chosen: UpOptions) -> None:
        self.options = chosen
        self.embedded: EmbeddedPostgres | None = None
        self.database_trouble = ""  # why it is not there, as it was said last
        self.record = ChildRecord(chosen.run_dir)
        self.supervisor = Supervisor(self.record, _say)
        self.packing = Packing(chosen.log_dir / "build-agent.log", _say)

    def run(self) -> None:
        """Returns when asked to stop; raises CannotStart. Either way nothing of ours runs afterwards."""
        folder.prepare(self.options)
        lock = folder.claim(self.options)
        try:
            self._start()
            while True:
                self._look()
                time.sleep(_LOOK_SECONDS)
        except Stop:
            _say("\nStopping …")
        finally:
            self._stop()
            os.close(lock)
        _say("Stopped.")

    # --- starting, in order ---

    def _start(self) -> None:
        if left := self.record.end_leftovers():
            _say(f"An earlier run left {', '.join(left)} behind: ended.")
        refuse_taken_port(self.options.port)
        self._set_environment()
        self._start_database()
        admin, agent = self._firsts()
        self._add("web", _web(self.options.port))
        self._add("worker", [sys.executable, "manage.py", "worker"])
        self._wait_until_ready()
        if agent:
            self._add("agent", [str(Path(sys.executable).with_name("hyprnode"))], agent, stop_seconds=20)
        self._tell(admin, agent)
        self.packing.begin()

    def _set_environment(self) -> None:
        os.environ["HYPRBOX_PORT"] = str(self.options.port)
        os.environ["HYPRBOX_VAR_DIR"] = str(self.options.var_dir)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hyprbox.settings")

    def _start_database(self) -> None:
        if options.setting("DATABASE_URL"):
            for name in ("DATABASE_URL", _OWNER_URL):
                refuse_unreachable(name)
            return
        _say("Starting PostgreSQL …")
        self.embedded = EmbeddedPostgres(self.options.var_dir)
        os.environ["DATABASE_URL"] = self.embedded.start()

    def _firsts(self) -> tuple[Any, dict[str, str] | None]:
        django.setup()
        from audit.actions import Action
        from hyprbox import startup
        from hyprbox.lib.actors import Actor  # these load models, so not before django.setup()
        from hyprbox.management import firsts
        from hyprbox.management.keys import record_made

        by = Actor.system("up")
        try:
            made = {
                Action.SIGNING_KEY_CREATED: firsts.signing_key(),
                Action.MAC_KEY_CREATED: firsts.mac_key(),
                Action.SECRETS_KEY_CREATED: firsts.secrets_key(),
            }
            firsts.migrate()  # seals rows, so the keys come first
            if why := startup.weakness():
                _say(why)
            for action in (action for action, is_new in made.items() if is_new):
                record_made(action, by)
            admin = firsts.first_admin(by)
            agent = None
            if self.options.with_agent:
                agent = firsts.agent_environment(self.options.agent_dir, self.options.url, by)
        except (DatabaseError, psycopg.Error) as error:
            raise CannotStart(f"The database refused: {_first_line(error)}") from error
        firsts.close_connections()
        for name in (_OWNER_URL, f"{_OWNER_URL}_FILE"):
            os.environ.pop(name, None)  # the processes that serve have no use for it, nor whoever breaks into one
        return admin, agent

    def _add(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None, **extra: Any) -> None:
        log = self.options.log_dir / f"{name}.log"
        self.supervisor.add(Child(name, command, environment or {}, log, **extra))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while failing := not_ready(self.options.url):
            self._look()
            worst = self.supervisor.most_deaths()
            if worst.deaths >= 3 or time.monotonic() > deadline:
                _say(worst.last_words())
                raise CannotStart(f"It did not become ready ({failing}); its logs are in {self.options.log_dir}.")
            time.sleep(0.1)

    def _tell(self, admin: Any, agent: dict[str, str] | None) -> None:
        _say(f"\nHyprBox is ready:  {self.options.url}")
        if admin and admin.password:
            _say(f"Log in with:       {admin.email}  {admin.password}   (shown this once)")
        elif admin:
            _say(f"Log in with:       {admin.email} and the password of HYPRBOX_ADMIN_PASSWORD")
        if self.options.with_agent and not agent:
            token = self.options.agent_dir / "token"
            _say(f"Agent:             not started, its token was revoked; remove {token} for a new one")
        _say(f"Data and logs:     {self.options.var_dir}")
        _say("Stop with Ctrl-C.\n")

    # --- running and stopping ---

    def _look(self) -> None:
        if Stop.is_asked:
            raise Stop
        if self.embedded and self.embedded.has_died():
            self._revive(self.embedded)
        self.supervisor.look()
        self.packing.look()

    def _revive(self, embedded: EmbeddedPostgres) -> None:
        """Start it again, or say once why it cannot be; the next look tries again."""
        if not self.database_trouble:
            _say("PostgreSQL died; starting it again.")
        try:
            embedded.start()
        except PostgresUnavailable as error:
            why = str(error).rstrip(".")
            if why != self.database_trouble:
                _say(f"{why}. Trying again until it can be.")
            self.database_trouble = why
            return
        if self.database_trouble:
            _say("PostgreSQL is back.")
        self.database_trouble = ""

    def _stop(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # we are stopping already, and it ends by itself
        self.packing.stop()
        self.supervisor.stop()
        if self.embedded:
            self.embedded.stop()


def refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise CannotStart(f"Port {port} needs privileges; choose one above 1023 with --port.") from None
        except OSError:
            raise CannotStart(f"Port {port} is taken; choose another with --port.") from None


def refuse_unreachable(name: str) -> None:
    """The address in this setting, if it is set."""
    try:
        if url := options.database(name):
            psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error as error:
        raise CannotStart(f"The database of {name} cannot be reached: {_first_line(error)}") from error


def not_ready(url: str) -> str:
    """ "" when /readyz answers 200, else which parts fail and how, in a few words."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        with suppress(ValueError):
            failing = json.load(error).get("failing", {})
            return ", ".join(f"{name.replace('_', ' ')} {word}" for name, word in failing.items())
        return f"/readyz answers {error.code}"
    except OSError:
        return "the web process does not answer"


def _web(port: int) -> list[str]:
    flags = ["--host", "127.0.0.1", "--port", str(port), "--http", "hyprbox.lib.protocol:Protocol", "--ws", "none"]
    flags += ["--no-access-log", "--no-server-header", "--no-proxy-headers"]
    # Open streams would keep it for ever.
    return [sys.executable, "-m", "uvicorn", "hyprbox.asgi:application", *flags, "--timeout-graceful-shutdown", "3"]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("connection failed:").strip() if lines else type(error).__name__
