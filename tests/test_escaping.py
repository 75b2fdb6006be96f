"""Where text becomes markup: every such place is named here, with what it may be given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house import ROOT

# Python that says that text is markup already: drawn by us, or escaped in the same function.
TRUSTED = {
    "accounts/factor_views.py": "the QR code that segno draws of an address of ours",
    "hyprbox/templatetags/fleet.py": "an attribute that is written there",
    "hyprbox/lib/templatetags/ui.py": "icons from files, and JSON whose <, > and & are escaped",
    "hyprbox/lib/bash.py": "tokens that are escaped one by one",
}
# Scripts that parse markup: only what the server rendered, which is escaped there.
PARSING = {"static/js/live.js": 2, "static/js/job.js": 1}
PACKAGES = ("accounts", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens")


def test_templates_never_say_that_a_value_is_safe() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text()
        found = re.findall(r"\|\s*safe\b|\|\s*safeseq|autoescape\s+off|\bescapejs\b|\{%\s*filter", text)
        assert found == [], path
        assert not re.search(
            r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|\son[a-z]+=|\sstyle=|javascript:", text
        ), path
        # A value that is an attribute without quotes would need no quote to leave it.
        assert not re.search(r"\s[a-z-]+=\{\{", text), path


def test_python_says_it_in_four_places() -> None:
    sayers = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "tests" not in path.parts and re.search(r"mark_safe\(|SafeString\(|\.__html__", path.read_text())
    }
    assert sayers == set(TRUSTED)


def test_nothing_is_put_into_markup_by_format_strings() -> None:
    """`format_html` escapes what it is given; an f-string as its template would not be."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"(?:format_html|mark_safe)\(\s*f[\"']", path.read_text()), path


def scripts() -> list[Path]:
    return sorted((ROOT / "static/js").glob("*.js"))


def test_scripts_parse_markup_in_three_places() -> None:
    parsing = {}
    for path in scripts():
        count = len(
            re.findall(r"\.(?:inner|outer)HTML\s*\+?=|insertAdjacentHTML|createContextualFragment", path.read_text())
        )
        if count:
            parsing[str(path.relative_to(ROOT))] = count
    assert parsing == PARSING


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_scripts_never_run_text(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\beval\(|new Function|document\.write|set(?:Timeout|Interval)\(\s*['\"`]|javascript:", text)
    assert not re.search(r"setAttribute\(\s*['\"]on", text)
