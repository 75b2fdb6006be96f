"""The one line that the token page shows, run on a fresh Debian 12 against a control plane that runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyprbox.management import agent_file
from presets.tests import root
from tests.enrolment_room import FreshDebian, Story
from tests.folders import open_folder
from tests.house import SEEN, House, house, wait_for
from tests.proxied import connect_proxy, tls_front
from tests.test_journey_processes import finished, queue_script

pytestmark = pytest.mark.slow
NO_ENTRY = "407 Proxy Authentication Required"
INSTALLED = ("/opt/hyprnode", "/etc/hyprbox", "/etc/systemd/system/hyprnode.service", "/usr/local/bin/hypr")


@pytest.fixture(scope="module")
def plane() -> Iterator[House]:
    agent_file.build()
    with open_folder("enrol") as folder, house(folder / "var", "--no-agent") as made:
        yield made.start()


@pytest.fixture(scope="module")
def api(plane: House) -> Iterator[httpx.Client]:
    with plane.api() as client:
        yield client


@pytest.fixture
def debian(tmp_path: Path) -> FreshDebian:
    try:
        return FreshDebian(root.make_template(), tmp_path)
    except root.NoRoom as error:
        pytest.skip(str(error))


def make_token(api: httpx.Client, name: str, **more: str) -> dict[str, Any]:
    answer = api.post("/api/tokens", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def command_of(token: dict[str, Any]) -> str:
    command: str = token["install_command"]
    assert "\n" not in command
    return command


def statuses(api: httpx.Client) -> dict[str, str]:
    return {node["node_id"]: node["status"] for node in api.get("/api/nodes").json()["results"]}


def refusal(story: Story, label: str = "install") -> str:
    """The one sentence, after it was made sure that the exit code says so too and that nothing was changed."""
    assert story.exits[label] != 0
    assert story.said["files"] == "", story.said
    lines = story.said[label].strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_one_line_enrols_a_server_twice_without_harm_and_another_removes_it(
    plane: House, api: httpx.Client, debian: FreshDebian
) -> None:
    token = make_token(api, "fresh", node_id="fresh-1")
    steps = f"""
    keep
    cat >/room/line <<'LINE'
{command_of(token)}
LINE
    try first bash /room/line
    echo HYPRBOX_REGION=Lab >>/etc/hyprbox/hyprnode.env
    stat -c '%a %n' /etc/hyprbox/hyprnode.env
    grep -rlaE 'hbnt_[a-z0-9]{{8}}' /etc /opt /usr/local /var/lib /var/log /run /tmp || true
    tr '\\0' ' ' </proc/$(cat /run/units/hyprnode.service.active)/cmdline; echo
    before=$(cat /run/units/hyprnode.service.active)
    touch /room/ready
    until [ -e /room/queued ]; do sleep 0.1; done
    until [ -e /room/started ]; do sleep 0.1; done
    try second bash /room/line
    [ "$before" != "$(cat /run/units/hyprnode.service.active)" ]
    try refused hyprnode uninstall
    touch /room/go
    until [ -e /room/ended ]; do sleep 0.1; done
    try version hyprbox --version
    try doctor hyprnode doctor
    ls -d /opt/hyprnode/unpacked/*/ | wc -l >/room/said.unpacked
    curl {plane.url}/install.sh >/room/install.sh
    try removed bash /room/install.sh --uninstall
    sleep 0.5
    pgrep -f hyprnode && exit 1
    try again bash /room/install.sh --uninstall
    changed files
    """
    room = debian.folder / "room-1"

    def job() -> None:
        wait_for((room / "ready").exists, seconds=90)
        story = "touch /room/started; until [ -e /room/go ]; do sleep 0.1; done; echo done"
        job_id = queue_script(plane, "fresh-1", apply=story)
        (room / "queued").touch()
        assert finished(api, job_id, seconds=90)["status"] == "SUCCEEDED"
        (room / "ended").touch()

    story = _play_beside(debian, steps, job)
    assert story.exits == {
        "first": 0,
        "second": 0,
        "refused": 1,
        "version": 0,
        "doctor": 0,
        "removed": 0,
        "again": 1,
    }, story.said
    assert "its first heartbeat was accepted" in story.said["first"]
    assert "1 job runs here" in story.said["refused"]
    assert "not installed here" in story.said["again"]
    assert story.said["unpacked"] == "1\n"
    assert story.output.splitlines()[0] == "600 /etc/hyprbox/hyprnode.env"
    assert token["token"] not in story.output
    assert [line for line in story.output.splitlines() if line.startswith("/")][:1] == ["/etc/hyprbox/hyprnode.env"]
    left = [line.split()[1] for line in story.said["files"].splitlines() if line.startswith(">")]
    ours = [path for path in left if not _journal(path)]
    assert [path for path in ours if any(part in path for part in INSTALLED)] == [], story.said["files"]
    assert [path for path in ours if "hypr" in path] == ["/var/lib/hyprbox"], story.said["files"]
    assert any(path.endswith("/closed") for path in left), "the journal of the job stays"
    assert statuses(api)["fresh-1"] in SEEN


def _journal(path: str) -> bool:
    return path.startswith("/var/lib/hyprbox/jobs") and not path.endswith(".ring")


def _play_beside(debian: FreshDebian, steps: str, act: Any) -> Story:
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(act)
        story = debian.play(steps)
        beside.result(timeout=60)
    return story


def test_what_is_wrong_is_one_sentence_and_changes_nothing(
    plane: House, api: httpx.Client, debian: FreshDebian
) -> None:
    used, revoked, good = (make_token(api, name) for name in ("used", "revoked", "good"))
    api.delete(f"/api/tokens/{revoked['id']}")
    figures = {"cpu_percent": 1.0, "memory_percent": 2.0, "disk_percent": 3.0}
    beat = {"node_id": "elsewhere", "agent_version": "0.1.0", "interval_seconds": 60, "metrics": figures}
    as_agent = {"Authorization": f"Bearer {used['token']}"}
    assert httpx.post(f"{plane.url}/api/nodes/heartbeat", json=beat, headers=as_agent).status_code == 202
    time.sleep(5)  # within which every process knows of a revocation

    line = command_of(good)
    script_hash, keys_hash, agent_hash = (
        line.split('" = ')[1][:64],
        *(line.split(f"HYPRBOX_{name}_SHA256=")[1][:64] for name in ("KEYS", "AGENT")),
    )
    lines = {
        "script": line.replace(script_hash, "0" * 64),
        "keys": line.replace(keys_hash, "0" * 64),
        "agent": line.replace(agent_hash, "0" * 64),
        "dead": line.replace(f":{plane.port}", ":9"),
        "gone": line.replace(" HYPRBOX_AGENT_SHA256", " HYPRBOX_API_URL=http://127.0.0.1:9 HYPRBOX_AGENT_SHA256"),
        "plain": line.replace(" HYPRBOX_AGENT_SHA256", " HYPRBOX_API_URL=http://plane.example HYPRBOX_AGENT_SHA256"),
        "used": command_of(used),
        "revoked": command_of(revoked),
        "none": line.replace(good["token"], "''"),
        "shape": line.replace(good["token"], "hbnt_short"),
    }
    steps = "keep\n"
    for label, wrong in lines.items():
        steps += f"cat >/room/line.{label} <<'LINE'\n{wrong}\nLINE\ntry {label} bash /room/line.{label}\n"
    steps += f"""
    curl {plane.url}/install.sh >/room/install.sh
    chmod -R a+rX /room
    export HYPRBOX_NODE_TOKEN={good["token"]}
    try option bash /room/install.sh --unistall
    mkdir /tmp/bin; for name in bash id mktemp rm uname; do ln -s "$(command -v $name)" /tmp/bin/; done
    try nopython env PATH=/tmp/bin bash /room/install.sh
    rm /tmp/bin/uname; printf '#!/bin/bash\\n[ $1 = -s ] && echo Linux || echo armv7l\\n' >/tmp/bin/uname; chmod +x /tmp/bin/uname
    try machine env PATH=/tmp/bin bash /room/install.sh
    rm -r /tmp/bin
    try root setpriv --reuid=65534 --clear-groups bash -c 'bash < /room/install.sh'
    changed files
    """
    story = debian.play(steps)
    said = {label: refusal(story, label) for label in story.exits}
    assert "install.sh has changed since this command was made" in said["script"]
    assert "is not the control plane that was promised" in said["keys"]
    assert "the agent's file has the SHA-256" in said["agent"]
    assert "curl" in said["dead"]
    assert "http://127.0.0.1:9/agent/hyprnode.pyz cannot be fetched" in said["gone"]
    assert "http://plane.example/agent/hyprnode.pyz cannot be fetched" in said["plain"]
    assert "The control plane does not take this token for room:" in said["used"]
    assert "it is unknown, revoked or expired" in said["revoked"]
    assert "HYPRBOX_NODE_TOKEN is not set" in said["none"]
    assert "HYPRBOX_NODE_TOKEN is not a node token" in said["shape"]
    assert "unknown option --unistall" in said["option"]
    assert "Python 3.9 to 3.14 is needed" in said["nopython"]
    assert "the agent runs on x86_64 and aarch64; this is armv7l" in said["machine"]
    assert "run it as root" in said["root"]
    assert "room" not in statuses(api)


def test_behind_a_proxy_all_of_it_goes_through_that(
    plane: House, api: httpx.Client, debian: FreshDebian, tmp_path: Path
) -> None:
    token = make_token(api, "proxied", node_id="proxied")
    with tls_front(tmp_path, plane.port) as port, connect_proxy() as proxy, connect_proxy(NO_ENTRY) as strict:
        url = f"https://localhost:{port}"
        line = command_of(token).replace(
            " HYPRBOX_AGENT_SHA256", f" HYPRBOX_API_URL={url} HYPRBOX_REGION=Lab HYPRBOX_AGENT_SHA256"
        )
        steps = f"""
        mkdir -p /usr/lib/ssl; cat >/usr/lib/ssl/cert.pem <<'PEM'
{(tmp_path / "plane.pem").read_text()}
PEM
        cat >/room/line <<'LINE'
{line}
LINE
        keep
        https_proxy=http://ann:s3cret@127.0.0.1:9 try dead bash /room/line
        https_proxy=127.0.0.1:{strict.port} try refused bash /room/line
        changed files
        https_proxy=http://127.0.0.1:{proxy.port} try first bash /room/line
        grep -x HYPRBOX_PROXY=http://127.0.0.1:{proxy.port} /etc/hyprbox/hyprnode.env
        try doctor hyprnode doctor
        curl {plane.url}/install.sh >/room/install.sh
        https_proxy=http://127.0.0.1:9 HYPRBOX_PROXY=http://ann:s3cret@127.0.0.1:9 try beat hyprnode --once
        HYPRBOX_API_URL={url} try upgrade bash /room/install.sh
        """
        story = debian.play(steps)
    assert story.said["files"] == ""
    assert story.exits == {"dead": 1, "refused": 1, "first": 0, "doctor": 0, "beat": 69, "upgrade": 0}, story.said
    file = f"install.sh: {url}/agent/hyprnode.pyz cannot be fetched through the proxy"
    assert story.said["dead"] == f"{file} 127.0.0.1:9: Connection refused.\n"
    assert story.said["refused"] == f"{file} 127.0.0.1:{strict.port}: Tunnel connection failed: {NO_ENTRY}.\n"
    assert "its first heartbeat was accepted" in story.said["first"]
    assert story.said["beat"].count("\n") == 1 and "s3cret" not in story.said["beat"]
    # The file, what the installer asks beforehand, the agent's own calls, and the file once more.
    assert set(proxy.asked) == {f"CONNECT localhost:{port} HTTP/1.{minor}" for minor in _minors(proxy.asked)}
    assert len(proxy.asked) >= 5 and token["token"].encode() not in proxy.heard
    assert statuses(api)["proxied"] in SEEN


def _minors(lines: list[str]) -> set[str]:
    return {line[-1] for line in lines}


def test_without_systemd_it_says_how_to_run_it_and_sudo_sees_no_token(
    plane: House, api: httpx.Client, debian: FreshDebian
) -> None:
    token = make_token(api, "by sudo", node_id="by-sudo")
    piped = make_token(api, "piped", node_id="piped")
    steps = f"""
    useradd --create-home ann
    printf 'Defaults logfile=/room/sudo.log\\nann ALL=(ALL) NOPASSWD: ALL\\n' >/etc/sudoers.d/ann
    printf '127.0.0.1 room\\n' >>/etc/hosts
    cat >/room/line <<'LINE'
{command_of(token)}
LINE
    chmod 755 /room /room/line
    try sudo setpriv --reuid=ann --regid=ann --clear-groups bash /room/line
    cat /room/sudo.log
    try ordinary setpriv --reuid=ann --regid=ann --clear-groups hyprbox --version
    try once hyprnode --once
    hyprnode >/room/agent.log 2>&1 &
    until grep -q first_heartbeat /room/agent.log; do sleep 0.1; done
    kill $!
    wait $! || true
    try removed hyprnode uninstall
    curl {plane.url}/install.sh >/room/install.sh
    HYPRBOX_NODE_TOKEN={piped["token"]} HYPRBOX_NODE_ID=piped try piped bash -c 'cat /room/install.sh | bash'
    cat /etc/hyprbox/hyprnode.env >/room/said.settings
    """
    story = debian.play(steps, systemd=False)
    assert story.exits == {"sudo": 0, "ordinary": 0, "once": 0, "removed": 0, "piped": 0}, story.said
    assert "keep /usr/local/bin/hyprnode running" in story.said["sudo"]
    assert "COMMAND=" in story.output and "hbnt_" not in story.output
    assert "HYPRBOX_KEYS_SHA256=" in story.said["settings"]
    found = statuses(api)
    assert found["by-sudo"] in SEEN and found["piped"] in SEEN
