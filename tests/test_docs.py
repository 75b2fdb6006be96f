"""Documents that the code can check are checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from django.core.management import get_commands
from django.urls import URLPattern, URLResolver, get_resolver

import hyprbox.asgi
import hyprbox.urls  # every app's errors
from agent import config
from agent.cli import exits
from agent.cli.root import hyprbox as hyprbox_command
from hyprbox.lib.errors import HyprBoxError
from tests.house import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
SETTINGS = (ROOT / "docs/operate/settings.md").read_text()
API = (ROOT / "docs/use/api.md").read_text()
CLI = (ROOT / "docs/use/cli.md").read_text()
AGENT = (ROOT / "docs/install/agent.md").read_text()


def test_every_setting_is_documented_and_none_that_is_not() -> None:
    code = (ROOT / "hyprbox/settings.py").read_text()
    code = code + "".join(path.read_text() for path in (ROOT / "hyprbox/management").rglob("*.py"))
    used = set(re.findall(r'(?:env\.\w+|setting|environ\.get)\(\s*"((?:HYPRBOX_|DATABASE_)\w+)"', code))
    documented = set(re.findall(r"^\| `((?:HYPRBOX_|DATABASE_)\w+)`", SETTINGS, re.MULTILINE))
    documented |= set(re.findall(r"`(HYPRBOX_ADMIN_\w+)`", SETTINGS))
    assert documented == used


def test_every_setting_of_the_agent_is_documented() -> None:
    assert [name for name in config.NAMES if f"`{name}`" not in AGENT] == []


def test_every_command_is_documented() -> None:
    ours = {name for name, app in get_commands().items() if app == "hyprbox"}
    text = (ROOT / "docs/operate/commands.md").read_text()
    assert [name for name in ours if f"`{name}" not in text] == []


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _leaves(found, (*path, name))
    else:
        yield " ".join(path)


def test_every_command_of_the_command_line_is_documented() -> None:
    assert [name for name in _leaves(hyprbox_command) if f"`{name}" not in CLI] == []


def test_every_exit_code_of_the_command_line_is_documented() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    documented = {int(number) for number in re.findall(r"^\| (?:128 \+ n|(\d+)) \|", CLI, re.MULTILINE) if number}
    assert documented == codes - {exits.SIGNAL_BASE} | {0}


def _errors(kind: type[HyprBoxError] = HyprBoxError) -> set[type[HyprBoxError]]:
    return {kind for child in kind.__subclasses__() for kind in {child} | _errors(child)}


def error_table() -> str:
    """What stands between the marks in docs/use/api.md."""
    rows = {(kind.status, kind.code, " ".join((kind.__doc__ or "").split())) for kind in _errors()}
    ours = [row for row in sorted(rows) if not row[1].startswith("_")]
    lines = [f"| {status} | `{code}` | {message} |" for status, code, message in ours]
    return "\n".join(["| status | code | message |", "|---|---|---|", *lines])


def test_every_error_code_is_documented() -> None:
    """On failure: put the expected table between the marks."""
    found = re.search(r"<!-- codes -->\n(.*?)\n?<!-- /codes -->", API, re.DOTALL)
    assert found is not None
    assert found[1] == error_table()


def _addresses(resolver: URLResolver, before: str = "") -> set[str]:
    found = set()
    for entry in resolver.url_patterns:
        here = before + str(entry.pattern)
        found |= {here} if isinstance(entry, URLPattern) else _addresses(entry, here)
    return found


def test_every_address_of_the_api_is_documented() -> None:
    routes = {route for route in _addresses(get_resolver()) if route.startswith("api/") and "^" not in route}
    routes |= {route for route in (*hyprbox.asgi.STREAMS, *(lane.lstrip("/") for lane in hyprbox.asgi.LANES))}
    plain = {
        "/" + re.sub(r"<\w+:(\w+_)?(id|name|number)>", r"{\1\2}", route) for route in routes if route.startswith("api/")
    }
    plain = {re.sub(r"\{(token|job|user|session|key|pin|invitation)_id\}", "{id}", route) for route in plain}
    short = API.replace("`/output`, `/complete`", "`/api/jobs/{id}/output`, `/api/jobs/{id}/complete`")
    assert sorted(route for route in plain if f"{route}`" not in short and f"{route}?" not in short) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_no_link_leads_nowhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_named_scripts_and_folders_exist(document: Path) -> None:
    names = re.findall(r"`((?:script|deploy|docs|bench|presets|requirements|tests)/[\w./-]+)", document.read_text())
    assert [name for name in names if not (ROOT / name.rstrip(".")).exists() and "README" not in document.name] == []
