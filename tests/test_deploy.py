"""What `deploy/` promises, as far as it can be told without installing it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from hyprbox.lib.pgplace import programs_for
from hyprbox.lib.postgres import EmbeddedPostgres
from hyprbox.management.commands import up
from tests.folders import open_folder
from tests.house import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
WEB, WORKER, AGENT = (DEPLOY / "systemd" / f"{name}.service" for name in ("hyprbox-web", "hyprbox-worker", "hyprnode"))


def settings_of(unit: Path) -> dict[str, str]:
    """NAME=value of all sections; of a repeated name the last."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_unit_comes_back_for_ever(unit: Path) -> None:
    told = settings_of(unit)
    assert (told["Restart"], told["RestartSec"], told["StartLimitIntervalSec"]) == ("always", "2", "0")


def test_stopping_the_agent_does_not_end_its_jobs() -> None:
    told = settings_of(AGENT)
    assert told["KillMode"] == "process"
    assert (told["TimeoutStopSec"], told["OOMScoreAdjust"]) == ("20", "-500")


@pytest.mark.parametrize("unit", [WEB, WORKER], ids=lambda unit: unit.stem)
def test_server_units_give_nothing_away(unit: Path, tmp_path: Path) -> None:
    """systemd's own score, 0 to 10: above 6 it calls a unit exposed."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(unit)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    here = tmp_path / unit.name  # its programs and its account are not installed here: stand-ins
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
    here.write_text(re.sub(r"^(User|Group)=.*\n", "", text, flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", str(here)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert unit.name not in answer.stderr, answer.stderr


def test_units_run_what_exists() -> None:
    assert "hyprbox.asgi:application" in settings_of(WEB)["ExecStart"]
    assert settings_of(WORKER)["ExecStart"].endswith("manage.py worker")
    assert 'hyprnode = "agent.daemon:main"' in (ROOT / "pyproject.toml").read_text()


def test_every_web_process_is_started_alike() -> None:
    """The short way for heartbeats, no other protocol, no word of the server, and only HyprBox believes proxies."""
    image = re.findall(r'^CMD \["python", "-m", "uvicorn", (.*)\]$', (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    starts = [
        settings_of(WEB)["ExecStart"],
        image[0].replace('"', "").replace(",", ""),
        " ".join(up._web(8000)),
        (ROOT / "bench/servers.py").read_text().replace('"', "").replace(",", ""),
    ]
    for flags in ("--http hyprbox.lib.protocol:Protocol", "--ws none", "--no-server-header", "--no-proxy-headers"):
        assert [start for start in starts if flags not in start] == [], flags


def test_compose_starts_the_web_and_the_worker_after_the_migrations() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert "migrate" in services["prepare"]["command"][-1]
    for name in ("web", "worker"):
        assert services[name]["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}


def test_compose_opens_nothing_to_the_network() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000"]


def test_the_image_is_locked_and_not_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes -r requirements/server.txt" in text
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["hyprbox"]
    for line in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / line).exists()


def test_nginx_understands_its_example(tmp_path: Path) -> None:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    # Certificates of a real host are not to be had here.
    example = (DEPLOY / "proxy" / "nginx.conf").read_text()
    example = re.sub(r"^\s*ssl_certificate(_key)?\s.*$", "", example, flags=re.MULTILINE).replace(
        " ssl http2;", " http2;"
    )
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {example} }}")
    answer = subprocess.run(
        [program, "-t", "-p", tmp_path, "-c", config, "-e", "stderr"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("path", ["proxy/nginx.conf", "proxy/Caddyfile"])
def test_proxies_neither_hold_streams_back_nor_cut_them(path: str) -> None:
    text = (DEPLOY / path).read_text()
    assert "flush_interval -1" in text or "proxy_read_timeout 90s" in text


def test_compose_keeps_the_owners_password_from_what_serves() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    knows = [name for name, service in services.items() if "HYPRBOX_MIGRATION_DATABASE_URL" in service["environment"]]
    assert knows == ["prepare"]
    assert [name for name in ("web", "worker") if "${POSTGRES_PASSWORD" in str(services[name])] == []


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder("volume") as made:
        yield made


@pytest.mark.slow
def test_a_new_volume_of_compose_has_two_roles(folder: Path) -> None:
    """The script that PostgreSQL's image runs, on a server of ours that is like a new volume's."""
    server = EmbeddedPostgres(folder, settings={"fsync": "off"})
    try:
        server.start()
        server.execute("DROP DATABASE hyprbox")
        server.execute("DROP ROLE hyprbox; DROP ROLE hyprbox_owner")
        environment = {
            "PATH": f"{programs_for(server.place)}:/usr/bin:/bin",
            "PGHOST": str(server.place.socket_dir),
            "POSTGRES_PASSWORD": "o'one",
            "POSTGRES_APP_PASSWORD": "two",
        }
        command = ["sh", str(DEPLOY / "postgres/roles.sh")]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.split() == ["CREATE", "ROLE", "CREATE", "ROLE", "CREATE", "DATABASE"]
        with psycopg.connect(server.url) as connection:
            made = "SELECT datdba::regrole::text, pg_has_role('hyprbox', datdba, 'MEMBER') FROM pg_database"
            rows = connection.execute(f"{made} WHERE datname = 'hyprbox'".encode()).fetchall()
            assert rows == [("hyprbox_owner", False)]
    finally:
        server.destroy()


def test_the_example_environment_names_real_settings() -> None:
    names = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    known = (ROOT / "hyprbox/settings.py").read_text()
    assert [name for name in names if name not in known] == []
