"""`manage.py up`, which is all that `script/server` runs: real processes, killed for real."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from hyprbox.lib.postgres import EmbeddedPostgres
from hyprbox.management import options
from hyprbox.management.commands import up as up_command
from tests.folders import open_folder
from tests.house import EMAIL, ROOT, SEEN, House, clean_environment, house, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder("up") as made:
        yield made / "var"


@pytest.fixture
def up(folder: Path) -> Iterator[House]:
    with house(folder) as made:
        yield made


def complaint(broken: House) -> str:
    """What a start that cannot be says: one line, no traceback, a non-zero exit."""
    code = broken.launch().wait(timeout=60)
    wait_for(lambda: broken.said("HyprBox cannot start"), seconds=5, why=broken.text)
    assert code == 1
    assert "Traceback" not in broken.text
    return broken.text


def manage(command: str, folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    """A management command with this DATABASE_URL, that cannot do its work."""
    environment = clean_environment(
        DATABASE_URL=address,
        HYPRBOX_VAR_DIR=str(folder),
        HYPRBOX_SECRET_KEY="correct horse battery staple, said the admin",
    )
    answer = subprocess.run(
        [sys.executable, "manage.py", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    return answer


@pytest.fixture(scope="module")
def running() -> Iterator[House]:
    """One that runs, shared by the tests after which it still does."""
    with open_folder("up") as folder, house(folder / "var") as made:
        yield made.start()


def test_it_runs_everything_and_says_where(running: House) -> None:
    assert running.is_ready()
    assert running.said(running.url)
    assert running.said("Stop with Ctrl-C")
    for part in ("uvicorn", "manage.py worker", "hyprnode", "postgres -D"):
        assert running.find(part)


@pytest.mark.parametrize("path", ["/login/", "/", "/api/nodes", "/api/stream/nodes", "/healthz", "/no/such"])
def test_a_websocket_is_answered_as_any_other_request(running: House, path: str) -> None:
    wanted = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    wanted["sec-websocket-key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    plain, asked = (httpx.get(f"{running.url}{path}", headers=headers) for headers in ({}, wanted))
    assert asked.status_code == plain.status_code
    assert asked.headers["connection"] == "close"
    own = {"date", "expires", "x-request-id", "connection", "set-cookie", "content-length"}
    assert {n: v for n, v in asked.headers.items() if n not in own} == {
        n: v for n, v in plain.headers.items() if n not in own
    }
    assert asked.headers["content-security-policy"].startswith("default-src 'none'")
    assert asked.headers["x-content-type-options"] == "nosniff"


def test_this_machine_is_online_soon(running: House) -> None:
    with running.api() as api:
        wait_for(lambda: api.get("/api/nodes").json()["results"][0]["status"] in SEEN)


def test_all_processes_use_the_role_that_owns_nothing(running: House) -> None:
    who = "SELECT DISTINCT usename::text FROM pg_stat_activity WHERE application_name LIKE 'hyprbox%'"
    with psycopg.connect(EmbeddedPostgres(running.folder).url.replace("//hyprbox@", "//postgres@")) as connection:
        assert connection.execute(who).fetchall() == [("hyprbox",)]


def test_secrets_are_closed_to_others(running: House) -> None:
    names = ("secret.key", "signing.key", "mac.key", "agent/token")
    modes = {name: (running.folder / name).stat().st_mode & 0o777 for name in names}
    assert modes == {"secret.key": 0o600, "signing.key": 0o400, "mac.key": 0o400, "agent/token": 0o600}


def test_a_command_beside_it_knows_where_it_listens(running: House) -> None:
    answer = subprocess.run(
        [sys.executable, "manage.py", "token", "create", "web-1"],
        cwd=ROOT,
        env=clean_environment(HYPRBOX_VAR_DIR=str(running.folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert f"{running.url}/install.sh" in answer.stdout + answer.stderr


def test_a_second_one_on_the_same_folder_is_refused(running: House) -> None:
    assert f"HyprBox already runs on {running.folder}" in complaint(House(running.folder))
    assert running.is_ready()


@pytest.mark.parametrize("part", ["web", "worker", "agent"])
def test_a_child_that_dies_comes_back(running: House, part: str) -> None:
    pattern = {"web": "uvicorn", "worker": "manage.py worker", "agent": "hyprnode"}[part]
    running.find(pattern).kill()
    wait_for(lambda: running.said(f"The {part} was ended by signal 9"), why=running.text)
    wait_for(lambda: running.has(pattern))
    wait_for(running.is_ready)


def test_postgresql_that_dies_comes_back(running: House) -> None:
    running.find("postgres -D").kill()
    wait_for(lambda: running.said("PostgreSQL died"), why=running.text)
    wait_for(running.is_ready)


@pytest.mark.skipif(os.getuid() != 0, reason="only root lends its PostgreSQL an account")
def test_a_folder_that_was_closed_to_postgresql_is_said_once_and_is_no_end(running: House) -> None:
    above = running.folder.parent
    said = "which runs PostgreSQL, cannot enter"
    above.chmod(0o700)
    running.find("postgres -D").kill()
    wait_for(lambda: running.said(said), why=running.text)
    time.sleep(2)  # several looks
    assert running.text.count(said) == 1
    assert not running.is_ready()
    above.chmod(0o755)
    wait_for(lambda: running.said("PostgreSQL is back."))
    wait_for(running.is_ready, seconds=30)


def test_ctrl_c_leaves_nothing_and_the_next_start_finds_everything(up: House) -> None:
    up.start()
    assert up.end(signal.SIGINT) == 0
    assert up.processes() == []
    up.start()
    assert not up.said("Log in with")
    with up.api() as api:
        assert api.get("/api/auth/me").json()["email"] == EMAIL
    assert up.end(signal.SIGTERM) == 0
    assert up.processes() == []


def test_a_generated_password_is_shown_once_and_no_agent_runs_when_told_so(folder: Path) -> None:
    with house(folder, HYPRBOX_NO_AGENT="1", HYPRBOX_ADMIN_PASSWORD="") as up:
        up.start()
        line = next(line for line in up.output if "Log in with" in line)
        assert "shown this once" in line
        with up.api(password=line.split()[4]) as api:
            assert api.get("/api/auth/me").json()["role"] == "admin"
        assert not up.has("hyprnode")


def test_it_starts_again_after_everything_was_killed(up: House) -> None:
    up.start()
    up.kill_everything()
    up.start()
    assert up.is_ready()
    assert up.end() == 0
    assert up.processes() == []


def test_it_ends_what_a_killed_supervisor_left(up: House) -> None:
    process = up.start().process
    assert process is not None
    left = {up.find(part).pid for part in ("uvicorn", "manage.py worker", "hyprnode")}
    process.kill()
    process.wait()
    up.start()
    assert up.said("An earlier run left agent, web, worker behind")
    assert left.isdisjoint(process.pid for process in up.processes())
    assert up.end() == 0
    assert up.processes() == []


def test_a_taken_port_is_one_sentence(up: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.port))
        taken.listen()
        assert f"Port {up.port} is taken; choose another with --port." in complaint(up)
    assert up.processes() == []


def test_a_port_that_is_none_is_one_sentence(up: House) -> None:
    up.port = 70000
    assert "“70000” is not a port" in complaint(up)


def test_a_folder_that_cannot_be_is_one_sentence(up: House, folder: Path) -> None:
    folder.write_text("a file")
    assert "Cannot write to" in complaint(up)


def test_an_unreachable_database_is_one_sentence(folder: Path) -> None:
    secret = "postgresql://ada:opensesame@127.0.0.1:9/hyprbox"
    with house(folder, DATABASE_URL=secret) as up:
        said = complaint(up)
    assert "The database of DATABASE_URL cannot be reached" in said
    assert "opensesame" not in said


@pytest.mark.parametrize("command", ["up", "fleet_status"])
@pytest.mark.parametrize("address", ["mysql://ada:opensesame@127.0.0.1/hyprbox", "ada:opensesame"])
def test_an_address_of_no_postgresql_is_one_sentence_without_it(folder: Path, command: str, address: str) -> None:
    answer = manage(command, folder, address)
    assert answer.stderr.endswith("DATABASE_URL must be a postgresql:// address: HyprBox runs on PostgreSQL only.\n")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (
            "postgresql://ada:opensesame@127.0.0.1:port/hyprbox",
            "DATABASE_URL is no address that can be read: write what is special in a password as in %40 for @.",
        ),
        (
            "postgresql://ada:opensesame@127.0.0.1:9/hyprbox",
            "The database cannot be used: couldn't get a connection after 2.00 sec.",
        ),
    ],
)
def test_a_command_without_its_database_says_one_sentence(folder: Path, address: str, sentence: str) -> None:
    assert manage("fleet_status", folder, address).stderr == f"manage.py: {sentence}\n"


def test_a_weak_first_password_is_one_sentence(folder: Path) -> None:
    with house(folder, HYPRBOX_ADMIN_PASSWORD="short") as up:
        assert "The first admin ada@example.com cannot be made" in complaint(up)
        assert up.processes() == []


def test_a_python_that_is_too_old_is_one_sentence(folder: Path) -> None:
    """bootstrap looks for a new enough Python on the PATH; this PATH has only an old one."""
    programs = folder.parent / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "dirname", "id", "rm"):
        (programs / name).symlink_to(shutil.which(name) or "")
    for name in ("python3", "python3.11"):
        old = programs / name
        old.write_text('#!/bin/bash\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n')
        old.chmod(0o755)
    shutil.copytree(ROOT / "script", folder / "script")
    answer = subprocess.run(
        [shutil.which("bash") or "bash", str(folder / "script/bootstrap")],
        env=clean_environment(PATH=str(programs)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode != 0
    assert answer.stderr.strip() == "script/bootstrap: HyprBox needs Python 3.11 or newer; found Python 3.9.2."


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_checkout_of_another_account_is_one_sentence(folder: Path) -> None:
    shutil.copytree(ROOT / "script", folder / "script")
    folder.chmod(0o755)
    answer = subprocess.run(
        [folder / "script/server"],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr == (
        f"script/bootstrap: cannot write to {folder}; run it as the account that this checkout belongs to.\n"
    )


def test_bootstrap_is_quick_when_there_is_nothing_to_do() -> None:
    if not (ROOT / ".venv/.made-for-dev").exists():
        pytest.fail("the tests run in an environment that script/bootstrap did not make")
    answer = subprocess.run([ROOT / "script/bootstrap"], capture_output=True, text=True, check=True, timeout=20)
    assert answer.stdout == ""


def test_house_finds_no_process_of_others(folder: Path) -> None:
    assert os.getpid() not in [process.pid for process in House(folder).processes()]


def test_a_stop_that_is_swallowed_is_heard_at_the_next_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A signal may come while a finalizer runs, where Python prints whatever is raised and goes on."""
    monkeypatch.setattr(up_command.Stop, "is_asked", False)
    run = up_command.Up(options.chosen({"port": "9", "var_dir": str(tmp_path), "no_agent": True}))
    run._look()
    with suppress(up_command.Stop):
        up_command._interrupt(signal.SIGINT, None)
    with pytest.raises(up_command.Stop):
        run._look()
