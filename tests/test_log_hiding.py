"""Both sides hide the same, and nothing that a process of ours says goes past the filter."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent import hiding
from agent.log import Log
from agent.tests.ports import free_port
from hyprbox.lib import logs
from hyprbox.tests.test_logs import HIDDEN_TEXTS, JWT, SHOWN_TEXTS, TOKEN
from tests.house import ROOT, wait_for

# An application that fails in every way there is, beside the settings and the import of the real one.
FAILING = """
import logging, sys, threading
import hyprbox.asgi

def fail():
    raise RuntimeError("cannot reach postgresql://hyprbox:hunter2@db")  # password=hunter3

async def application(scope, receive, send):
    if scope["type"] != "http":
        return await hyprbox.asgi.application(scope, receive, send)
    if scope["path"] == "/thread":
        threading.Thread(target=fail).start()
    elif scope["path"] == "/logger":
        logging.getLogger("some.library").error("got %s", {"Authorization": "Bearer hunter4"})
        logging.getLogger("django.server").warning("GET /reset/HUNTER5HUNTER5HUNTER5HUNTER5/ 500")
    else:
        fail()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
"""


def patterns(module: Any) -> dict[str, tuple[str, int]]:
    return {name: (it.pattern, it.flags) for name, it in vars(module).items() if isinstance(it, re.Pattern)}


def test_the_agent_hides_what_the_control_plane_hides() -> None:
    assert patterns(hiding) == patterns(logs)
    assert len(patterns(logs)) == 4
    assert hiding.HIDDEN == logs.HIDDEN


@pytest.mark.parametrize(("text", "secret"), HIDDEN_TEXTS)
def test_the_agents_log_scrubs_a_text(text: str, secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    Log().error("x.failed", why=text, detail={"of": [text]}, error=ValueError(text))
    line = capsys.readouterr().err
    assert secret not in line and line.count(logs.HIDDEN) >= 3
    assert json.loads(line)["why"] == logs.scrub(text)


@pytest.mark.parametrize("text", SHOWN_TEXTS)
def test_the_agents_log_leaves_the_rest(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Log().error("x.failed", why=text)
    assert json.loads(capsys.readouterr().err)["why"] == text


def test_values_are_scrubbed_as_the_control_plane_does(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"password": "hunter2", "detail": {"otp": 123456, "seen": [TOKEN, {"note": JWT}]}, "count": 3, "node": None}
    Log().info("x.seen", **given)
    told = json.loads(capsys.readouterr().err)
    assert {name: told[name] for name in given} == logs.redact(None, "info", {**given})


@pytest.fixture
def web(tmp_path: Path, transactional_db: Any) -> Any:
    """The application above behind uvicorn as it is run, its log in a file."""
    (tmp_path / "failing.py").write_text(FAILING)
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "uvicorn", "failing:application", "--port", str(port), "--ws", "none"]
    command += ["--http", "hyprbox.lib.protocol:Protocol", "--no-server-header", "--no-proxy-headers"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "HYPRBOX_DEBUG": "true"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_for(lambda: "startup complete" in log.read_text(), seconds=60, why=f"{log}")
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_a_web_process_shows_no_secret_whoever_speaks(web: Any) -> None:
    url, log = web
    assert httpx.get(f"{url}/reset/HUNTER5HUNTER5HUNTER5HUNTER5?password=hunter6").status_code == 500
    assert httpx.get(f"{url}/thread").status_code == 200
    assert httpx.get(f"{url}/logger").status_code == 200
    wait_for(lambda: "thread.failed" in log.read_text() and "django.server" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    by_logger = {line["logger"]: line for line in lines}
    assert {"uvicorn.error", "some.library", "django.server", "hyprbox.lib.logs"} <= set(by_logger)
    failed = [line for line in lines if "RuntimeError" in line.get("exception", "")]
    assert {line["logger"] for line in failed} == {"uvicorn.error", "hyprbox.lib.logs"}
    for line in failed:  # where it failed is told, with the line of the source, and what it had to say
        assert "in fail" in line["exception"] and "postgresql://[hidden]@db" in line["exception"]
    assert "hunter" not in log.read_text().lower()


# The worker's own loop, and a task of a library that fails where nobody waits for it.
FAILING_WORKER = """
import asyncio
from hyprbox import worker
from manage import main

async def fail():
    raise RuntimeError("cannot reach postgresql://hyprbox:hunter2@db")  # password=hunter3

async def work():
    lost = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del lost
    await fail()

worker.work = work
main()
"""


@pytest.mark.slow
def test_a_worker_shows_no_secret_when_it_fails(tmp_path: Path, transactional_db: Any) -> None:
    (tmp_path / "failing.py").write_text(FAILING_WORKER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "hyprbox.settings"}
    command = [sys.executable, str(tmp_path / "failing.py"), "worker"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "hunter" not in done.stdout + done.stderr
    by_logger = {line["logger"]: line for line in map(json.loads, done.stderr.splitlines())}
    assert set(by_logger) == {"asyncio", "hyprbox.lib.logs"}
    assert by_logger["hyprbox.lib.logs"]["event"] == "process.failed"
    for line in by_logger.values():
        assert "in fail" in line["exception"] and "postgresql://[hidden]@db" in line["exception"]


@pytest.mark.slow
def test_what_ends_a_process_is_scrubbed_before_the_settings_are_there() -> None:
    code = "from hyprbox.lib import logs; logs.take_over_tracebacks(); raise OSError('postgresql://a:hunter2@db')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "hunter2" not in done.stderr
    assert done.stderr.splitlines()[-1] == "OSError: postgresql://[hidden]@db"


def test_no_logger_has_a_handler_of_its_own() -> None:
    """As Django has set it up in this process; but for what pytest adds to the root."""
    ours = [name for name, it in logging.root.manager.loggerDict.items() if getattr(it, "handlers", None)]
    assert [name for name in ours if name.partition(".")[0] in ("django", "uvicorn", "hyprbox", "procrastinate")] == []
