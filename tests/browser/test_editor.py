"""The preset editor in a browser: findings while one types, the way to their lines, saving, comparing, a dry run, a pin."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from presets.tests.test_custom import TEXT
from tests.browser.agent import Agent

BAD = TEXT.replace("printf '%s\\n' \"$TEXT\"", "echo $TEXT")
LINE = BAD.split("\n").index("  echo $TEXT > /etc/motd") + 1


@pytest.mark.parametrize("width", [1440, 390])
def test_the_editor_is_whole(ada: Page, width: int) -> None:
    ada.set_viewport_size({"width": width, "height": 844})
    ada.goto("/presets/new/")
    expect(ada.locator("#lines span").last).to_have_text(str(ada.locator("#text").input_value().count("\n") + 1))
    assert ada.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_preset_is_written_mended_saved_and_changed(ada: Page, agent: Agent) -> None:
    ada.goto("/presets/new/")
    text = ada.get_by_label("Document")
    text.fill(BAD)
    finding = ada.locator(".findings li", has_text="TEXT is unquoted")
    expect(finding.first).to_be_visible()
    expect(ada.locator("#lines span").nth(LINE - 1)).to_have_attribute("data-s", "crit")
    finding.first.get_by_role("button", name=f"Line {LINE}").click()
    caret = text.evaluate("(field) => field.value.slice(0, field.selectionStart)")
    assert caret.endswith("\n  echo ")
    text.evaluate("(field) => field.setSelectionRange(field.selectionStart, field.selectionStart + 5)")
    ada.keyboard.insert_text('"$TEXT"')
    expect(ada.get_by_text("Nothing to complain about")).to_be_visible()
    expect(ada.locator("#lines span[data-s]")).to_have_count(0)
    ada.locator("#note").fill("the first")
    ada.get_by_role("button", name="Save revision").click()
    expect(ada.get_by_text("custom, revision 1")).to_be_visible()

    ada.get_by_role("link", name="Edit", exact=True).click()
    ada.get_by_label("Document").fill(TEXT.replace("Message of the day", "What they read"))
    ada.locator("#note").fill("a better title")
    ada.get_by_role("button", name="Save revision").click()
    ada.get_by_role("link", name="Revisions").click()
    expect(ada.locator(".diff .add", has_text="title: What they read")).to_be_visible()
    expect(ada.get_by_text("a better title")).to_be_visible()


def test_leaving_an_unsaved_text_asks_first(ada: Page) -> None:
    ada.goto("/presets/new/")
    ada.get_by_label("Document").fill("name: x\n")
    asked: list[str] = []
    ada.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    ada.get_by_role("link", name="Cancel").click()
    ada.wait_for_url("**/presets/")
    assert asked == ["beforeunload"]


def test_a_dry_run_and_a_pin_begin_at_the_preset(ada: Page, agent: Agent) -> None:
    ada.goto("/presets/time-sync/?node=web-1")
    ada.get_by_role("button", name="Dry run on web-1").click()
    expect(ada.get_by_text("check only")).to_be_visible()
    ada.goto("/presets/time-sync/")
    ada.get_by_role("link", name="Drift").click()
    ada.get_by_label("Where").select_option("node:web-1")
    ada.get_by_role("button", name="Pin and check every night").click()
    expect(ada.locator(".pill", has_text="Not checked yet")).to_be_visible()
    ada.goto("/nodes/web-1/")
    expect(ada.get_by_role("heading", name="Watched for drift")).to_be_visible()
