"""Every pytest run gets a PostgreSQL of its own: a fresh cluster in a temporary folder, gone at the end.

The environment is set here, before anything loads the settings; that is why `DJANGO_SETTINGS_MODULE` is not in
pyproject.toml, where pytest-django would act on it first. The cluster starts when the first test needs it.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from hyprbox.lib.postgres import EmbeddedPostgres
from hyprbox.lib.processes import ProcessMark

_PREFIX = "hyprbox-test-"
# Durability is tested elsewhere, on clusters that have it.
_FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "log_min_messages": "fatal"}


def _sweep_abandoned_runs() -> None:
    """A run that was killed could not clean up; the next one does."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            pid, started = (folder / "owner").read_text().split()
        except (OSError, ValueError):
            continue  # another user's, or being made right now
        if not ProcessMark(int(pid), started).is_alive():
            _remove(folder)


def _remove(folder: Path) -> None:
    EmbeddedPostgres(folder).destroy()
    shutil.rmtree(folder, ignore_errors=True)


def _new_run_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    folder.chmod(0o755)  # the account that runs PostgreSQL for root must pass
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    (folder / "owner").write_text(f"{mark.pid} {mark.started}")
    return folder


def _set_environment(var_dir: Path) -> None:
    for name in [name for name in os.environ if name.startswith("HYPRBOX_")]:
        del os.environ[name]  # a developer's own settings must not decide what the tests see
    os.environ["HYPRBOX_VAR_DIR"] = str(var_dir)
    os.environ["HYPRBOX_SECRET_KEY"] = secrets.token_urlsafe(50)
    os.environ["DATABASE_URL"] = EmbeddedPostgres(var_dir).owner_url  # it makes the test database
    os.environ["DJANGO_SETTINGS_MODULE"] = "hyprbox.settings"


_sweep_abandoned_runs()
_VAR_DIR = _new_run_folder()
_cluster = EmbeddedPostgres(_VAR_DIR, settings=_FAST)
_owner_pid = os.getpid()


@atexit.register
def _remove_own_run() -> None:
    if os.getpid() == _owner_pid:  # not in a forked child
        _remove(_VAR_DIR)


_set_environment(_VAR_DIR)

# Only now may Django wake up. Below: settings that only tests want, then the cast.
import django

django.setup()

import hypothesis
from django.conf import settings
from django.contrib.auth.hashers import BCryptSHA256PasswordHasher

from hyprbox.lib import mackey, secretbox, signing
from jobs import connections
from nodes import writer

BCryptSHA256PasswordHasher.rounds = 4  # the real cost would take half of a test run
signing.create_key(settings.HYPRBOX_SIGNING_KEY_FILE)
mackey.create_key(settings.HYPRBOX_MAC_KEY_FILE)
secretbox.create_key(settings.HYPRBOX_SECRETS_KEY_FILE)
settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
# A machine that stalls for a second is no database that is away; tests of that say how long they wait.
assert (writer.CONNECT_SECONDS, writer.STATEMENT_SECONDS, connections.ANSWER_SECONDS) == (1.0, 1.5, 1.5)
writer.CONNECT_SECONDS = writer.STATEMENT_SECONDS = connections.ANSWER_SECONDS = 10.0
if not os.environ.get("CI"):  # there Hypothesis has a profile of its own, as patient and the same each time
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
# Otherwise each test client, which has middleware of its own, looks through all files first.
settings.WHITENOISE_AUTOREFRESH = True


from django.db import connection

from tests import emptying

emptying.use()


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The cluster of this run. Ask for it in tests that talk to PostgreSQL without the `db` fixture."""
    _cluster.start()
    _cluster.execute("ALTER ROLE hyprbox_owner CREATEDB; GRANT hyprbox TO hyprbox_owner WITH INHERIT FALSE")
    _cluster.execute("GRANT SET ON PARAMETER session_replication_role TO hyprbox_owner")  # see tests/emptying.py
    yield _cluster
    _cluster.stop()


@pytest.fixture
def as_the_app(db: None) -> Iterator[None]:
    """With the rights that the processes have, where other tests have the owner's."""
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE hyprbox")
        yield
        cursor.execute("RESET ROLE")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(postgres: EmbeddedPostgres) -> None:
    """pytest-django's hook before it makes the test database: by then the cluster must run."""


# --- the cast ---

from django.utils import timezone

from accounts.models import User
from hyprbox.lib.actors import Role
from nodes.models import Node
from tests import factories
from tests.client import ApiClient
from tokens.guesses import bad_tokens


@pytest.fixture
def ada(db: None) -> User:
    """An admin."""
    return factories.make_user("ada", Role.ADMIN)


@pytest.fixture
def otto(db: None) -> User:
    """An operator."""
    return factories.make_user("otto", Role.OPERATOR)


@pytest.fixture
def vera(db: None) -> User:
    """A viewer."""
    return factories.make_user("vera", Role.VIEWER)


@pytest.fixture
def mallory(db: None) -> User:
    """An operator who was deactivated."""
    return factories.make_user("mallory", Role.OPERATOR, is_active=False)


@pytest.fixture
def web_1(db: None) -> Node:
    """A node that is online."""
    now = timezone.now()
    figures = {"cpu_percent": 12.5, "memory_percent": 40.0, "disk_percent": 55.0}
    return factories.make_node("web-1", first_seen_at=now, last_seen_at=now, tags=["web"], **figures)


@pytest.fixture
def db_1(db: None) -> Node:
    """A node that was silent for a day."""
    day_ago = timezone.now() - timedelta(days=1)
    return factories.make_node("db-1", first_seen_at=day_ago, last_seen_at=day_ago, tags=["db"])


@pytest.fixture
def new_1(db: None) -> Node:
    """A node that was never seen."""
    return factories.make_node("new-1")


@pytest.fixture
def api() -> ApiClient:
    """The API as anybody: `api.by(user)` and `api.agent(token)` act as somebody."""
    return ApiClient()


@pytest.fixture(autouse=True)
def nobody_has_guessed() -> None:
    """What this process counted of an address in another test is forgotten."""
    bad_tokens._counters.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Workers come through this file themselves: with this set, pytest-django would load our settings before they do."""
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI every tool is there: a test that is skipped because one "is not installed" fails."""
    report = yield
    if os.environ.get("CI") and report.skipped and "is not installed" in str(report.longrepr):
        report.outcome = "failed"
    return report
