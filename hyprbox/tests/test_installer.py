"""What a new server downloads, the command that verifies it, and how the agent's file is made."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import Client

from hyprbox import enrolment
from hyprbox.lib import signing
from hyprbox.management import agent_file
from tests.factories import SYSTEM
from tests.house import ROOT


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], str]:
    """Puts these bytes where the agent's file is; returns their hash."""
    monkeypatch.setattr(agent_file, "PATH", tmp_path / "hyprnode.pyz")

    def put(data: bytes) -> str:
        agent_file.PATH.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    return put


@pytest.mark.django_db
def test_the_command_has_the_hashes_of_what_is_served(built: Callable[[bytes], str], client: Client) -> None:
    sha256 = built(b"the agent")
    made = enrolment.enrol(by=SYSTEM, name="web-1", node_id="web-1")
    script = client.get("/install.sh")
    assert script["Content-Type"].startswith("text/plain") and script["Cache-Control"] == "no-store"
    assert f'" = {hashlib.sha256(script.content).hexdigest()} ]' in made.install_command
    assert "  " not in made.install_command, "a page shows two spaces as one, and people copy what they see"
    assert f"HYPRBOX_AGENT_SHA256={sha256} " in made.install_command
    assert f"HYPRBOX_KEYS_SHA256={signing.key_set_sha256()} " in made.install_command
    assert f"HYPRBOX_NODE_TOKEN={made.plaintext} " in made.install_command
    assert (made.hint, made.install_command.count("\n")) == ("", 0)
    for line in (f"served_agent_sha256={sha256}", f"served_keys_sha256={signing.key_set_sha256()}"):
        assert line in script.content.decode().splitlines()
    assert made.plaintext.encode() not in script.content


def test_the_file_is_served_as_it_is_and_once_for_each_hash(built: Callable[[bytes], str], client: Client) -> None:
    sha256 = built(b"\x00the agent\xff")
    answer = client.get("/agent/hyprnode.pyz")
    assert (answer.content, answer["ETag"]) == (b"\x00the agent\xff", f'"{sha256}"')
    assert client.get("/agent/hyprnode.pyz", headers={"If-None-Match": f'"{sha256}"'}).status_code == 304
    other = built(b"another one")
    assert client.get("/agent/hyprnode.pyz", headers={"If-None-Match": f'"{sha256}"'})["ETag"] == f'"{other}"'


@pytest.mark.django_db
def test_while_there_is_no_file_everybody_is_told(built: Callable[[bytes], str], client: Client) -> None:
    made = enrolment.enrol(by=SYSTEM, name="web-1")
    assert made.install_command.endswith(" hyprnode")
    assert "script/build-agent" in made.hint
    assert client.get("/agent/hyprnode.pyz").status_code == 404
    assert "served_agent_sha256=''" in client.get("/install.sh").content.decode().splitlines()


def test_the_agents_file_holds_what_runs_without_a_server() -> None:
    names = {name for name, _ in agent_file.sources()}
    assert {"agent/daemon.py", "agent/hyprnode.service", "presets/rendering.py", "presets/documents.py"} <= names
    assert {"presets/api.py", "presets/views.py", "agent/tests/conftest.py"} & names == set()
    assert any(name.startswith("presets/catalogue/") and name.endswith(".yaml") for name in names)


@pytest.mark.slow
def test_the_same_contents_make_the_same_file(tmp_path: Path) -> None:
    """Whoever packs, in whatever order and with whatever modes."""
    made = []
    for name, order in (("first", 1), ("second", -1)):
        tree = tmp_path / name / "tree"
        for path, source in agent_file.sources()[::order]:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(source.read_bytes())
            (tree / path).chmod(0o600 if order > 0 else 0o664)
        made.append(agent_file.pack(tree, tmp_path / name))
    assert made[0].read_bytes() == made[1].read_bytes()
    assert "site-packages/agent/daemon.py" in zipfile.ZipFile(made[0]).namelist()


def test_the_installer_looks_for_the_pythons_and_machines_that_the_file_is_for() -> None:
    text = (ROOT / "deploy/install.sh").read_text()
    found = re.search(r"not \((\d), (\d+)\) <= sys.version_info\[:2\] <= \((\d), (\d+)\)", text)
    assert found is not None
    assert (f"{found[1]}.{found[2]}", f"{found[3]}.{found[4]}") == (agent_file.PYTHONS[0], agent_file.PYTHONS[-1])
    assert f"case $(uname -m) in {' | '.join(agent_file.MACHINES)})" in text


def test_the_lock_of_the_file_has_what_the_agent_needs() -> None:
    agent = (ROOT / "requirements/agent.txt").read_text()
    pins = re.findall(r"^(\S+==\S+)", agent_file.LOCK.read_text(), re.MULTILINE)
    assert {pin.partition("==")[0] for pin in pins} >= {"requests", "psutil", "click", "pynacl", "rich", "pyyaml"}
    assert [pin for pin in pins if not re.search(rf"^{re.escape(pin)}[ \\]", agent, re.MULTILINE)] == []
