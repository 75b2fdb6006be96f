"""The embedded PostgreSQL: started in odd places, killed, left behind, shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from hyprbox.lib import pgplace
from hyprbox.lib.pgplace import PostgresUnavailable, place_for
from hyprbox.lib.postgres import EmbeddedPostgres, advisory_lock
from hyprbox.lib.processes import ProcessMark
from tests.folders import open_folder

pytestmark = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to lend PostgreSQL an account")
FAST = {"fsync": "off"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder("place") as made:
        yield made


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder / "var", settings=FAST)
    yield server
    server.destroy()


def postmaster(server: EmbeddedPostgres) -> int:
    return int((server.place.data / "postmaster.pid").read_text().split()[0])


def ask(url: str, question: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_first_start_gives_a_database_of_two_ordinary_roles(server: EmbeddedPostgres) -> None:
    for url, name in ((server.start(), "hyprbox"), (server.owner_url, "hyprbox_owner")):
        assert ask(url, "SELECT current_database() || ' ' || current_user") == f"hyprbox {name}"
        powers = "SELECT rolsuper OR rolcreaterole OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        assert ask(url, powers) is False
    assert ask(server.url, "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'hyprbox'") == "hyprbox_owner"
    assert ask(server.url, "SELECT pg_has_role('hyprbox', 'hyprbox_owner', 'MEMBER')") is False


def test_it_is_durable_unless_told_otherwise(folder: Path) -> None:
    with EmbeddedPostgres(folder / "var") as server:
        settings = "SELECT current_setting('fsync') || current_setting('synchronous_commit')"
        assert ask(server.url, settings) == "onon"
    server.destroy()


def test_it_listens_on_no_network(server: EmbeddedPostgres) -> None:
    assert ask(server.start(), "SELECT current_setting('listen_addresses')") == ""
    assert server.place.socket_dir.stat().st_mode & 0o777 == 0o700


def test_asking_for_the_url_touches_nothing(folder: Path) -> None:
    assert EmbeddedPostgres(folder / "var").url.startswith("postgresql://hyprbox@/hyprbox?host=")
    assert list(folder.iterdir()) == []


def test_a_second_start_uses_the_running_one(server: EmbeddedPostgres) -> None:
    server.start()
    first = postmaster(server)
    EmbeddedPostgres(server.place.root.parent).start()
    assert postmaster(server) == first


def test_data_survives_stop_and_start(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    server.stop()
    assert not server.is_running()
    assert server.has_died()
    server.start()
    assert ask(server.owner_url, "SELECT seven FROM kept") == 7


def test_stop_does_not_wait_for_others_to_leave(server: EmbeddedPostgres) -> None:
    connection = psycopg.connect(server.start())
    connection.execute("SELECT 1")  # and its transaction stays open
    server.stop()
    assert not server.is_running()
    connection.close()


def test_it_starts_again_after_its_postmaster_was_killed(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
        os.kill(postmaster(server), signal.SIGKILL)
    server.start()
    assert ask(server.owner_url, "SELECT seven FROM kept") == 7


def test_a_pid_that_belongs_to_someone_else_by_now_is_no_obstacle(server: EmbeddedPostgres) -> None:
    server.start()
    os.kill(postmaster(server), signal.SIGKILL)
    pid_file = server.place.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    server.start()
    assert server.is_running()


def test_a_half_made_cluster_is_made_anew(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    server.place.data.rename(server.place.root / "data.new")
    server.start()
    assert server.is_running()


def test_a_borrower_stops_what_it_started(server: EmbeddedPostgres) -> None:
    with server.borrowed() as url:
        assert ask(url, "SELECT 1") == 1
    assert not server.is_running()


def test_a_borrower_leaves_running_what_another_process_uses(server: EmbeddedPostgres) -> None:
    var_dir = server.place.root.parent
    program = (
        "import pathlib, sys; from hyprbox.lib.postgres import EmbeddedPostgres;"
        f"s = EmbeddedPostgres(pathlib.Path({str(var_dir)!r}));"
        "c = s.borrowed(); c.__enter__(); print('in', flush=True); sys.stdin.read(); c.__exit__(None, None, None)"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with server.borrowed():
        pass
    assert server.is_running()
    other.communicate("")
    assert not server.is_running()


@pytest.mark.parametrize("name", ["x" * 100, "with space", "quote'and\"comma,", "ümlaut"])
def test_any_folder_name_will_do(folder: Path, name: str) -> None:
    server = EmbeddedPostgres(folder / name, settings=FAST)
    try:
        assert len(str(server.place.socket_dir / ".s.PGSQL.5432")) <= 107
        assert ask(server.start(), "SELECT 1") == 1
    finally:
        server.destroy()


def test_a_socket_folder_of_someone_else_is_refused(folder: Path) -> None:
    server = EmbeddedPostgres(folder / ("x" * 100))
    trap = server.place.socket_dir
    trap.symlink_to(folder)
    try:
        with pytest.raises(PostgresUnavailable, match="belongs to"):
            server.start()
    finally:
        trap.unlink()


@as_root
def test_below_a_closed_folder_root_finds_another_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgplace, "SHARED_ROOT", folder / "shared")
    home = folder / "home"
    home.mkdir(mode=0o700)
    server = EmbeddedPostgres(home / "var", settings=FAST)
    try:
        assert ask(server.start(), "SELECT 1") == 1
        assert server.place.root.is_relative_to(folder / "shared")
        home.chmod(0o755)  # a start under other circumstances must find the same data
        assert server.place.root.is_relative_to(folder / "shared")
    finally:
        server.destroy()


@as_root
def test_programs_that_its_account_cannot_reach_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgplace, "SHARED_ROOT", folder / "shared")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    wheel = pgplace._wheel()
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        (closed / part.name).symlink_to(part)
    monkeypatch.setattr(pgplace, "_wheel", lambda: closed / wheel.name)
    server = EmbeddedPostgres(folder / "var", settings=FAST)
    try:
        assert ask(server.start(), "SELECT 1") == 1
        assert "/shared/programs-" in str(pgplace.programs_for(server.place))
    finally:
        server.destroy()


@as_root
def test_root_starts_the_data_of_an_ordinary_user_as_that_user(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    folder = server.place.root
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, 12345)
    assert place_for(folder.parent).account.uid == 12345


def test_why_it_does_not_start_is_said_in_the_same_words_each_time(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (server.place.data / "global/pg_control").write_bytes(b"")
    said = set()
    for _ in range(2):
        with pytest.raises(PostgresUnavailable) as caught:
            server.start()
        said.add(str(caught.value))
    [sentence] = said
    assert sentence.startswith("PostgreSQL did not start (")
    assert "pg_control" in sentence and str(server.place.log) in sentence and " UTC [" not in sentence


def test_an_unwritable_folder_is_one_sentence(folder: Path) -> None:
    file = folder / "file"
    file.write_text("not a folder")
    with pytest.raises(PostgresUnavailable, match=r"^Cannot write to .*/file"):
        EmbeddedPostgres(file / "var").start()


def test_a_named_lock_is_held_by_one_session(server: EmbeddedPostgres) -> None:
    url = server.start()
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as two:
        with advisory_lock(one, "work") as first:
            with advisory_lock(two, "work", wait=False) as second:
                assert (first, second) == (True, False)
            with advisory_lock(two, "other work", wait=False) as third:
                assert third
        with advisory_lock(two, "work", wait=False) as fourth:
            assert fourth


def test_a_process_is_not_mistaken_for_a_later_one_with_its_pid() -> None:
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    assert mark.is_alive()
    assert not ProcessMark(mark.pid, "another-boot/1").is_alive()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mark = ProcessMark.of(child.pid)
    assert mark is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has buried it
    assert not mark.is_alive()
    child.wait()
