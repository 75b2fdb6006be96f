"""The main job, end to end, with real processes: server, worker, PostgreSQL, agent, bash."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.folders import open_folder
from tests.house import EMAIL, PASSWORD, ROOT, SEEN, House, clean_environment, house, wait_for

pytestmark = pytest.mark.slow
HYPRNODE = Path(sys.executable).with_name("hyprnode")


@pytest.fixture(scope="module")
def running() -> Iterator[House]:
    with open_folder("journey") as folder, house(folder / "var") as made:
        yield made.start()


@pytest.fixture(autouse=True)
def show_logs(running: House, request: pytest.FixtureRequest) -> Iterator[None]:
    """What a failed test prints beside its assertion."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(running.last_words())


@pytest.fixture
def api(running: House) -> Iterator[httpx.Client]:
    with running.api() as client:
        yield client


@pytest.fixture
def node_id(api: httpx.Client) -> str:
    """This machine, once its agent has reported."""
    wait_for(lambda: _nodes(api).get(_this_node(api)) in SEEN)
    return _this_node(api)


def _nodes(api: httpx.Client) -> dict[str, str]:
    return {node["node_id"]: node["status"] for node in api.get("/api/nodes").json()["results"]}


def _this_node(api: httpx.Client) -> str:
    return next(name for name in _nodes(api) if not name.startswith("second"))


# The report without the updates that wait: to count them apt works for seconds.
QUICK_REPORT = {"preset": "system-report", "variables": {"SHOW_UPDATES": False}}


def queue_script(up: House, node_id: str, **parts: str) -> str:
    """Queue a preset made of these parts; returns the job's id."""
    preset = {
        "name": "test-script",
        "title": "Test",
        "description": "Test.",
        "category": "test",
        "risk": "safe",
        **parts,
    }
    answer = subprocess.run(
        [sys.executable, "-m", "tests.queue_script", node_id],
        input=json.dumps(preset),
        env=up.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def finished(api: httpx.Client, job_id: str, *, seconds: float = 60) -> dict[str, Any]:
    """The job, once it has ended. The web process may be away meanwhile."""
    job: dict[str, Any] = {}

    def has_ended() -> bool:
        with suppress(httpx.HTTPError, ValueError):
            job.update(api.get(f"/api/jobs/{job_id}").json())
        return job.get("status") in ("SUCCEEDED", "FAILED", "CANCELLED")

    wait_for(has_ended, seconds=seconds, why=f"{job_id} ends")
    return job


def output(api: httpx.Client, job_id: str, stream: str = "stdout") -> bytes:
    answer = api.get(f"/api/jobs/{job_id}/output", params={"stream": stream})
    assert answer.status_code == 200
    return answer.content


def test_a_preset_runs_on_this_machine_and_its_output_arrives(api: httpx.Client, node_id: str) -> None:
    order = {"preset": "system-report", "variables": {}, "node_id": node_id}
    answer = api.post("/api/jobs", json=order)
    assert answer.status_code == 201, answer.text
    job = finished(api, answer.json()["id"])
    assert (job["status"], job["exit_code"]) == ("SUCCEEDED", 0), output(api, job["id"], "stderr")
    kept = output(api, job["id"])
    assert len(kept) == job["stdout_bytes"] > 0
    assert job["started_at"] < job["finished_at"]


def test_what_ran_is_what_was_shown(api: httpx.Client, node_id: str) -> None:
    shown = {"variables": QUICK_REPORT["variables"]}
    preview = api.post("/api/presets/system-report/render", json=shown).json()
    job = finished(api, api.post("/api/jobs", json={**QUICK_REPORT, "node_id": node_id}).json()["id"])
    assert job["script_sha256"] == preview["sha256"] == hashlib.sha256(preview["script"].encode()).hexdigest()


def test_all_bytes_survive(running: House, api: httpx.Client, node_id: str) -> None:
    every_byte = r"""for i in $(seq 0 255); do printf "\\x$(printf %x "$i")"; done; printf 'no newline' >&2"""
    job = finished(api, queue_script(running, node_id, apply=every_byte))
    assert output(api, job["id"]) == bytes(range(256))
    assert output(api, job["id"], "stderr") == b"no newline"


def test_phases_decide(running: House, api: httpx.Client, node_id: str) -> None:
    parts = {"check": "exit 1", "apply": "echo applied", "verify": "exit 1", "rollback": "echo rolled back"}
    job = finished(api, queue_script(running, node_id, **parts))
    assert (job["status"], job["reason"], job["exit_code"]) == ("FAILED", "verify_failed", 1)
    assert [(phase["name"], phase["exit_code"]) for phase in job["phases"]] == [
        ("check", 1),
        ("apply", 0),
        ("verify", 1),
        ("rollback", 0),
    ]
    assert output(api, job["id"]) == b"applied\nrolled back\n"


def test_cancel_ends_what_the_script_started(running: House, api: httpx.Client, node_id: str, tmp_path: Path) -> None:
    witness = tmp_path / "pid"
    job_id = queue_script(running, node_id, apply=f"sleep 300 & echo $! > {witness}; echo started; wait")
    wait_for(lambda: witness.exists() and witness.read_text().strip())
    assert api.post(f"/api/jobs/{job_id}/cancel", json={}).status_code == 200
    job = finished(api, job_id, seconds=30)
    assert job["status"] == "CANCELLED"
    wait_for(lambda: not Path(f"/proc/{witness.read_text().strip()}/stat").exists(), seconds=15)


@dataclass
class Tail:
    """What a page that follows a job has on its screen, over as many connections as it takes."""

    api: httpx.Client
    job_id: str
    text: str = ""
    last_id: str = ""
    connections: int = 0
    next_offset: int = 0
    wrong: list[str] = field(default_factory=list)

    def follow(self, *, seconds: float) -> None:
        """Read until `done`; come back whenever the connection breaks, as a browser does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if self._connect():
                    return
            time.sleep(0.2)
        raise AssertionError("the stream never said done")

    def _connect(self) -> bool:
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with self.api.stream("GET", f"/api/jobs/{self.job_id}/stream", headers=headers) as answer:
            if answer.status_code != 200:
                return False
            self.connections += 1
            event = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "event":
                    event = value
                elif name == "data" and event == "stdout":
                    self._take(json.loads(value))
                elif name == "data" and event == "done":
                    return True
        return False

    def _take(self, data: dict[str, Any]) -> None:
        if data["offset"] != self.next_offset:
            self.wrong.append(f"{self.next_offset} was next, {data['offset']} came")
        self.next_offset = data["next_offset"]
        self.text += data["text"]


def test_killing_the_web_process_in_the_middle_loses_no_line(
    running: House, api: httpx.Client, node_id: str, tmp_path: Path
) -> None:
    witness = tmp_path / "starts"
    script = f"echo run >> {witness}; for i in $(seq 1 400); do echo line $i; sleep 0.02; done"
    job_id = queue_script(running, node_id, apply=script)
    tail = Tail(api, job_id)
    wait_for(lambda: api.get(f"/api/jobs/{job_id}").json()["stdout_bytes"] > 0)
    running.find("uvicorn").kill()
    tail.follow(seconds=90)
    job = finished(api, job_id)
    expected = "".join(f"line {number}\n" for number in range(1, 401))
    assert job["status"] == "SUCCEEDED"
    assert output(api, job_id).decode() == expected
    assert tail.wrong == []
    assert tail.text == expected
    assert witness.read_text() == "run\n"


def test_a_second_agent_enrols_with_a_token_and_ends_with_it(running: House, api: httpx.Client, tmp_path: Path) -> None:
    token = api.post("/api/tokens", json={"name": "second"}).json()

    def beat() -> int:
        given = {
            "HYPRBOX_API_URL": running.url,
            "HYPRBOX_NODE_ID": "second",
            "HYPRBOX_NODE_TOKEN": token["token"],
            "HYPRBOX_STATE_DIR": str(tmp_path),
        }
        return subprocess.run([HYPRNODE, "--once"], env=given, capture_output=True, timeout=60, check=False).returncode

    assert token["token"] in token["install_command"]
    assert beat() == 0
    assert _nodes(api)["second"] in SEEN
    assert api.delete(f"/api/tokens/{token['id']}").status_code in (200, 204)
    time.sleep(5)  # within which every process must know
    assert beat() != 0


def page(running: House, *paths: str) -> list[str]:
    """The texts of these pages, as an admin sees them."""
    with httpx.Client(base_url=running.url, timeout=30, follow_redirects=True) as browser:
        form = {"csrfmiddlewaretoken": "", "email": EMAIL, "password": PASSWORD}
        browser.get("/login/")
        form["csrfmiddlewaretoken"] = browser.cookies["hb_csrf"]
        assert browser.post("/login/", data=form, headers={"Referer": f"{running.url}/login/"}).status_code == 200
        return [re.sub(r"<[^>]*>", "", browser.get(path).text) for path in paths]


NIGHT = """
import django
django.setup()
from datetime import timedelta
from jobs import drift, services
print(drift.queue_due(services.database_now().replace(hour=23, minute=59) + timedelta(days=1)))
"""


def test_what_drifts_is_found_told_and_told_when_it_is_mended(
    running: House, api: httpx.Client, node_id: str, tmp_path: Path
) -> None:
    wanted = tmp_path / "wanted"
    preset = {
        "name": "there-is-a-file", "title": "A file", "description": "A file is there.", "category": "test", "risk": "safe",
        "variables": [{"name": "PLACE", "type": "path", "required": True, "help": "Where."}],
        "check": '[[ -e "$PLACE" ]] || { echo "There is no $PLACE."; return 1; }\n', "apply": 'touch "$PLACE"\n',
    }  # fmt: skip
    assert api.post("/api/presets", json=preset).status_code == 201
    assert api.patch(f"/api/nodes/{node_id}", json={"tags": ["watched"]}).status_code == 200
    order = {"preset": "there-is-a-file", "variables": {"PLACE": str(wanted)}, "tag": "watched"}
    pin = api.post("/api/drift/pins", json=order).json()
    address = f"/api/drift/pins/{pin['id']}"

    def told() -> str:
        return str(api.get(address).json()["summary"])

    def check() -> str:
        [made] = api.post(f"{address}/check", json={}).json()["jobs"]
        assert finished(api, made["id"])["status"] == "SUCCEEDED"
        return str(made["id"])

    job_id = check()
    assert output(api, job_id).decode() == f"There is no {wanted}.\n" and not wanted.exists()
    wait_for(lambda: told() == "1 of 1 drifted since today", why=told())
    of_preset, of_node, line = page(
        running, "/drift/presets/there-is-a-file/", f"/nodes/{node_id}/", "/drift/presets/there-is-a-file/line/"
    )
    assert "1 of 1 drifted since today" in of_preset and "1 of 1 drifted since today" in line
    assert "A file" in of_node and "rifted" in of_node

    api.post("/api/jobs", json={"preset": "there-is-a-file", "variables": order["variables"], "node_id": node_id})
    wait_for(wanted.exists)
    night = [sys.executable, "-c", NIGHT]
    done = subprocess.run(night, env=running.environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "1", done.stderr
    wait_for(lambda: told() == "1 of 1 as wanted", why=told())
    assert "1 of 1 as wanted" in page(running, "/drift/presets/there-is-a-file/")[0]
    assert api.delete(address).status_code == 204


def _audit_from_the_command_line(running: House, hyprbox: Any, folder: Path) -> None:
    """The server's own routes: the log as a file and as an array, and the verdict as an exit code."""
    file = folder / "log.csv"
    hyprbox("audit", "export", "--format", "csv", "--action", "token.created", "-o", str(file))
    rows = file.read_text().splitlines()
    assert rows[0].startswith('"n","at","action"') and len(rows) >= 2 and "token.created" in rows[1]
    lines = [json.loads(line) for line in hyprbox("audit", "export", "--since", "10m").splitlines()]
    assert {"n", "at", "action", "actor_name", "target", "detail", "hash"} <= set(lines[0])
    assert len(json.loads(hyprbox("audit", "export", "--since", "10m", "--json"))) >= len(lines)
    assert b"The record is intact" in hyprbox("audit", "verify")
    assert json.loads(hyprbox("audit", "verify", "--json"))["intact"] is True


def test_an_operator_does_it_all_from_the_command_line(
    running: House, api: httpx.Client, node_id: str, tmp_path: Path
) -> None:
    environment = clean_environment(XDG_CONFIG_HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))

    def hyprbox(*arguments: str, stdin: str = "", code: int = 0) -> bytes:
        command = [sys.executable, "-m", "agent.cli", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, input=stdin.encode(), capture_output=True, timeout=90, check=False
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout

    def as_json(*arguments: str) -> Any:
        return json.loads(hyprbox(*arguments, "--json"))

    assert b"admin" in hyprbox("login", running.url, "--email", EMAIL, stdin=PASSWORD + "\n")
    assert as_json("status")["nodes"]["total"] >= 1
    hyprbox("nodes", "tag", node_id, "cli-journey")
    written = hyprbox("preset", "apply", "system-report", "--tag", "cli-journey", "--wait")
    job = as_json("jobs", "list", "--limit", "1", "--preset", "system-report")[0]
    assert (job["status"], job["stdout_bytes"]) == ("SUCCEEDED", len(written))
    assert hyprbox("jobs", "output", job["id"], "--stream", "stdout") == written
    assert (
        as_json("preset", "preview", "system-report")["sha256"] == as_json("jobs", "show", job["id"])["script_sha256"]
    )
    hyprbox("preset", "apply", "system-report", "-t", node_id, "--set", "DETAIL=loud", code=2)

    for words in ("nodes list", f"nodes show {node_id}", "preset list", "preset show system-report", "preset list --local",
                  f"jobs output {job['id']}", "token list", "audit list --limit 3", "open", "completion bash"):  # fmt: skip
        assert as_json(*words.split()), words
    every_byte = r"""for i in $(seq 0 255); do printf "\\x$(printf %x "$i")"; done; exit 7"""
    failing = queue_script(running, node_id, apply=every_byte)
    assert hyprbox("jobs", "follow", failing, code=7) == bytes(range(256))
    sleeping = queue_script(running, node_id, apply="sleep 300")
    hyprbox("jobs", "cancel", sleeping)
    hyprbox("jobs", "follow", sleeping, code=123)
    hyprbox("jobs", "cancel", sleeping, code=1)

    made = as_json("token", "create", "cli-journey", "--node", "cli-2", "--expires", "1d")
    assert made["token"].startswith("hbnt_") and made["node_id"] == "cli-2"
    assert made["token"].encode() not in hyprbox("token", "list")
    hyprbox("token", "revoke", made["prefix"])
    hyprbox("nodes", "remove", "cli-2", "--yes")
    assert "token.created" in {event["action"] for event in as_json("audit", "list", "--since", "10m")}
    _audit_from_the_command_line(running, hyprbox, tmp_path)
    hyprbox("logout")
    hyprbox("status", code=3)


def test_jobs_run_on_when_the_signing_key_is_replaced(running: House, api: httpx.Client, node_id: str) -> None:
    """The agent that pinned the first key learns of the next two by itself, and keeps running jobs."""
    order = {**QUICK_REPORT, "node_id": node_id}
    signed_with = [finished(api, api.post("/api/jobs", json=order).json()["id"])]
    for flags in ([], ["--now"]):
        subprocess.run(
            [sys.executable, "manage.py", "signing_key", "rotate", *flags],
            env=running.environment(), cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        signed_with.append(finished(api, api.post("/api/jobs", json=order).json()["id"]))
    assert [job["status"] for job in signed_with] == ["SUCCEEDED"] * 3
    assert len({job["signature"] for job in signed_with}) == 3
    pinned = json.loads((running.folder / "agent/keys.json").read_text())
    assert (pinned["version"], [key["retired"] for key in pinned["keys"]].count(False)) == (4, 1)
