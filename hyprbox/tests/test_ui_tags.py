"""The vocabulary of the templates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.template import Context, Template, TemplateSyntaxError

from hyprbox.lib.actors import Role
from hyprbox.lib.templatetags import ui
from jobs.states import Status as JobStatus
from nodes.status import Status as NodeStatus
from presets.documents import RISKS

TEMPLATES = Path(settings.BASE_DIR) / "templates"


def render(text: str, **context: object) -> str:
    return Template(text).render(Context(context))


def test_an_icon_is_inlined() -> None:
    assert render('{% icon "server" "s" %}').startswith('<svg class="ico s" viewBox="0 0 16 16" aria-hidden="true">')


@pytest.mark.parametrize("name", ["nothing", "../base", "server.svg", "Server", ""])
def test_an_unknown_icon_raises(name: str) -> None:
    with pytest.raises(TemplateSyntaxError):
        render("{% icon name %}", name=name)


@pytest.mark.parametrize("state", [*NodeStatus.values, *JobStatus.values, *RISKS])
def test_every_state_has_a_shape_a_word_and_a_colour(state: str) -> None:
    look = ui.look_of(state)
    assert look.word and look.tone
    assert "<svg" in render("{% badge state %}{% status state %}", state=state)


def test_an_unknown_state_raises() -> None:
    with pytest.raises(TemplateSyntaxError):
        render('{% badge "BROKEN" %}')


def test_missing_figures_are_read_as_no_data() -> None:
    assert "no data" in render("{% percent None %}")
    assert render("{% percent 12.4 %}") == "12\u00a0%"


def test_json_cannot_leave_its_script() -> None:
    shown = render("{% json_data value %}", value={"a": "</script><!--&"})
    assert "<" not in shown and ">" not in shown and "&" not in shown


def test_text_in_tags_is_escaped() -> None:
    assert "<b>" not in render('{% badge "ONLINE" word %}', word="<b>")
    assert "<b>" not in render("{% bash_lines source %}", source="echo '<b>'")


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("_*.html")), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_a_fragment_begins_with_what_it_is(path: Path) -> None:
    text = re.sub(r"^(\{% load [^%]+%\}\s*)+", "", path.read_text())
    assert text.startswith(("{#", "<svg"))


def test_no_template_writes_a_style_or_a_handler() -> None:
    for path in TEMPLATES.rglob("*.html"):
        assert not re.search(r"\s(style|on[a-z]+)=|<style|javascript:", path.read_text()), path


def test_every_icon_is_used() -> None:
    sources = "".join(path.read_text() for path in TEMPLATES.rglob("*.html"))
    sources += "".join(path.read_text() for path in Path(settings.BASE_DIR).glob("[ahjnpt]*/**/*.py"))
    unused = [path.stem for path in (TEMPLATES / "icons").glob("*.svg") if f'"{path.stem}"' not in sources]
    assert unused == []


def test_roles_have_names() -> None:
    assert Role.labels == ["Viewer", "Operator", "Admin"]
