"""/readyz: words for everybody, sentences for the log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from hyprbox import health
from hyprbox.lib import live, mackey, signing
from hyprbox.management.commands.up import not_ready

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_told", {})
    monkeypatch.setattr(live.listener, "is_connected", True)


def ask(client: Client) -> tuple[int, dict[str, Any]]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()


def test_it_is_ready(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(client) == (200, {"ready": True, "failing": {}})
    assert "ready." not in caplog.text


@pytest.mark.parametrize("name", ["signing", "mac"])
def test_a_key_that_cannot_be_used_is_named_in_the_log_alone(
    client: Client, settings: Any, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"{name}.key"
    setattr(settings, f"HYPRBOX_{name.upper()}_KEY_FILE", path)
    for damage in ("missing", "open"):
        if damage == "open":
            (signing if name == "signing" else mackey).create_key(path)
            path.chmod(0o644)
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "failing": {f"{name}_key": "unusable"}}
        assert str(path) not in answer.content.decode() and str(tmp_path) not in str(answer.headers)
        assert str(path) in caplog.text
        caplog.clear()


def test_the_log_hears_of_changes_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(live.listener, "is_connected", False)
    assert [ask(client) for _ in range(3)] == [(503, {"ready": False, "failing": {"listener": "disconnected"}})] * 3
    assert caplog.text.count("ready.not") == 1 and "The live listener is not connected." in caplog.text
    monkeypatch.setattr(live.listener, "is_connected", True)
    assert [ask(client)[0] for _ in range(3)] == [200] * 3
    assert caplog.text.count("ready.again") == 1


def test_what_is_wrong_with_the_database_is_a_word(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def cursor(self) -> Any:
            raise OperationalError("connection to /var/run/postgresql failed for hyprbox")

    monkeypatch.setattr(health, "_migrated", False)
    monkeypatch.setattr(health.MigrationExecutor, "migration_plan", lambda *args: ["one", "two"])
    assert ask(client) == (503, {"ready": False, "failing": {"migrations": "pending"}})
    monkeypatch.setattr(health, "_migrated", True)
    monkeypatch.setattr(health, "connection", Away())
    assert ask(client) == (503, {"ready": False, "failing": {"database": "unreachable"}})


# --- what `manage.py up` makes of it ---


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"{}", ""),
        (503, b'{"failing": {"signing_key": "unusable"}}', "signing key unusable"),
        (
            503,
            b'{"failing": {"database": "unreachable", "mac_key": "unusable"}}',
            "database unreachable, mac key unusable",
        ),
        (502, b"<html>", "/readyz answers 502"),
    ],
)
def test_up_says_which_part_fails(status: int, body: bytes, words: str) -> None:
    with answering(status, body) as url:
        assert not_ready(url) == words


def test_up_says_that_nobody_answers() -> None:
    assert not_ready("http://127.0.0.1:1") == "the web process does not answer"
