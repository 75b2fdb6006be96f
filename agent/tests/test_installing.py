"""What the installer writes and removes. On a fresh Debian, against a control plane: tests/test_enrolment_room.py."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from agent import installing
from agent.client import CallFailed, Client
from agent.config import BadSetting, Config
from agent.installing import CannotInstall, Places, given, merged
from agent.journal import Journal
from agent.removing import uninstall
from agent.state import StateDir
from agent.tests.plane import TOKEN

JOB = "7f3b0c52-6a3e-4c54-9a43-0d0f5f2f5a11"


def test_settings_of_the_command_win_and_what_a_person_wrote_stays() -> None:
    text = "# of the lab\nHYPRBOX_REGION=Lab\nHYPRBOX_NODE_TOKEN=old\n"
    assert merged(text, {"HYPRBOX_NODE_TOKEN": "new", "HYPRBOX_NODE_ID": "web-1"}) == [
        "# of the lab",
        "HYPRBOX_REGION=Lab",
        "HYPRBOX_NODE_TOKEN=new",
        "HYPRBOX_NODE_ID=web-1",
    ]


def test_only_the_agents_own_settings_are_taken() -> None:
    assert given({"HYPRBOX_NODE_ID": "web-1", "HYPRBOX_AGENT_SHA256": "0" * 64, "HYPRBOX_REGION": "", "HOME": "/"}) == {
        "HYPRBOX_NODE_ID": "web-1"
    }


@pytest.mark.parametrize("value", ['a"b', "a'b", "a\\b", "a\nHYPRBOX_PROXY=b"])
def test_what_the_file_cannot_hold_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(BadSetting) as refused:
        given({"HYPRBOX_REGION": value})
    assert str(refused.value).startswith("HYPRBOX_REGION has a quote")
    assert value not in str(refused.value)


PLANE = {"HYPRBOX_API_URL": "https://plane.example"}


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({**PLANE, "https_proxy": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ({**PLANE, "HTTPS_PROXY": "proxy.example:3128"}, "http://proxy.example:3128"),
        ({**PLANE, "https_proxy": "http://a:1", "HYPRBOX_PROXY": "http://b:2"}, "http://b:2"),
        ({**PLANE, "http_proxy": "http://proxy.example:3128"}, None),
        ({"HYPRBOX_API_URL": "http://127.0.0.1:8000", "https_proxy": "http://proxy.example:3128"}, None),
    ],
)
def test_the_proxy_that_everybody_here_uses_becomes_the_agents(environ: dict[str, str], proxy: str | None) -> None:
    assert given(environ).get("HYPRBOX_PROXY") == proxy


def test_no_proxy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", ".example")
    assert "HYPRBOX_PROXY" not in given({**PLANE, "https_proxy": "http://proxy.example:3128"})


def test_through_a_proxy_the_token_is_not_seen_by_it(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def answer() -> None:
            connection, _ = proxy.accept()
            with connection:
                heard.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        config = Config(
            api_url="https://plane.example",
            node_id="web-1",
            token=TOKEN,
            interval=60,
            region="",
            state_dir=tmp_path,
            log_level="INFO",
            keys_sha256="",
            stop_jobs=False,
            proxy=f"http://127.0.0.1:{proxy.getsockname()[1]}",
        )
        with pytest.raises(CallFailed):
            Client(config).get("/api/agent/keys")
        thread.join(10)
    assert heard[0].startswith(b"CONNECT plane.example:443 HTTP/1.")
    assert TOKEN.encode() not in heard[0]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A server that has an agent, below a folder."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = Places(tmp_path)
    for path in (made.archive, made.env_file, made.home / "bin/hyprnode", made.root / "var/lib/hyprbox/keys.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    made.link("hyprnode").parent.mkdir(parents=True)
    made.link("hyprnode").symlink_to(made.home / "bin/hyprnode")
    made.link("hyprbox").write_text("of somebody else")
    return made


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_nothing_but_what_is_not_ours_is_left(places: Places) -> None:
    (places.env_file.parent / "hyprbox.env").write_text("of the control plane")
    for name in ("beat", ".request.new", ".hidden"):
        (places.root / "var/lib/hyprbox" / name).touch()
    assert uninstall(places) == f"HyprBox's agent is removed. What else is in {places.env_file.parent} stays, too."
    assert files(places.root) == ["etc/hyprbox/hyprbox.env", "usr/local/bin/hyprbox"]
    with pytest.raises(CannotInstall, match="not installed here"):
        uninstall(places)


def test_the_journal_stays(places: Places) -> None:
    state = places.root / "var/lib/hyprbox"
    folder = Journal(state).folder(JOB)
    folder.path.mkdir()
    folder.write("closed", {"at": 1.0, "why": "delivered"})
    (folder.path / "stdout.ring").touch()
    assert uninstall(places) == f"HyprBox's agent is removed. What it executed stays recorded in {state / 'jobs'}."
    assert files(places.root) == ["usr/local/bin/hyprbox", f"var/lib/hyprbox/jobs/{JOB}/closed"]
    assert not places.env_file.parent.exists()


def test_an_agent_that_somebody_else_keeps_running_is_not_taken_away_under_it(places: Places) -> None:
    before = files(places.root)
    running = StateDir(places.root / "var/lib/hyprbox")
    with pytest.raises(CannotInstall, match="The agent runs here: stop it first"):
        uninstall(places)
    assert files(places.root) == sorted([*before, "var/lib/hyprbox/lock"])
    os.close(running._lock)
    uninstall(places)


def test_while_a_job_runs_nothing_is_removed_without_force(places: Places) -> None:
    from agent import processes

    folder = Journal(places.root / "var/lib/hyprbox").folder(JOB)
    folder.path.mkdir()
    folder.write("exec", {"pid": os.getpid(), "start_time": processes.start_time(os.getpid())})
    before = files(places.root)
    with pytest.raises(CannotInstall, match="1 job runs here"):
        uninstall(places)
    assert files(places.root) == before
    uninstall(places, force=True)
    assert "opt/hyprnode/hyprnode.pyz" not in files(places.root)


def test_only_root_may(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = files(places.root)
    for act in (lambda: uninstall(places), lambda: installing.install(places.archive, {}, places)):
        with pytest.raises(CannotInstall, match="run it as root"):
            act()
    assert files(places.root) == before


def test_an_agent_that_is_not_one_file_does_not_install_itself(places: Places) -> None:
    with pytest.raises(CannotInstall, match="use the control plane's install.sh"):
        installing.install(Path(__file__), {}, places)
