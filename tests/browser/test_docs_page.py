"""The API's document for people works under the content security policy, and asks nobody else for anything."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.folders import open_folder
from tests.house import house

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_api_can_be_looked_at(browser: Browser) -> None:
    settings = {"HYPRBOX_NO_AGENT": "1", "HYPRBOX_ENABLE_DOCS": "true"}
    with open_folder("docs") as folder, house(folder / "var", **settings) as made:
        made.start()
        page = browser.new_context(base_url=made.url).new_page()
        complaints: list[str] = []
        asked: set[str] = set()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: asked.add(request.url))
        page.goto("/api/docs")
        page.locator(".opblock").first.wait_for()
        assert page.locator(".opblock").count() > 50
        assert complaints == []
        assert [url for url in asked if not url.startswith((made.url, "data:", "blob:"))] == []
