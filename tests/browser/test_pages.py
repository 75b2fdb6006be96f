"""Every page, at both widths and in both themes: no complaint, nothing cut off, one heading, no inline style."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.agent import Agent
from tests.browser.conftest import Watch, sign_in

PAGES = [
    "/",
    "/?view=table",
    "/?view=map&colour=mem",
    "/nodes/web-1/?range=30d",
    "/nodes/web-1/edit/",
    "/live/",
    "/presets/",
    "/presets/nginx-static-site/",
    "/presets/system-report/?node=web-1",
    "/jobs/",
    "/drift/",
    "/settings/tokens/",
    "/settings/people/",
    "/profile/",
    "/audit/",
    "/palette/?q=web",
]
INLINE = re.compile(r"<[^>]+\s(?:style|on[a-z]+)=|<style|<script(?![^>]*(?:src=|application/json))")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole(ada: Page, agent: Agent, live_server_url: str, path: str) -> None:
    for width, theme in ((1440, "dark"), (390, "light"), (320, "dark")):
        ada.set_viewport_size({"width": width, "height": 844})
        ada.context.add_cookies([{"name": "hb_theme", "value": theme, "url": live_server_url}])
        answer = ada.goto(path)
        assert answer is not None and answer.status == 200
        html = answer.text()
        assert f'data-theme="{theme}"' in html
        assert INLINE.search(html) is None
        assert html.count("<h1") == 1
        overflow = ada.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} is {overflow} px too wide at {width}"
        ids = ada.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
        assert len(ids) == len(set(ids))


def test_errors_are_pages(ada: Page, watch: Watch) -> None:
    watch.expect("404")
    for path in ("/nothing/", "/nodes/nobody/", "/presets/nothing/", "/jobs/00000000-0000-0000-0000-000000000000/"):
        answer = ada.goto(path)
        assert answer is not None and answer.status == 404
        expect(ada.get_by_role("heading", level=1)).to_have_text("There is no such page")
        expect(ada.locator(".error-page .hint")).to_contain_text("request")


def test_an_address_that_only_takes_forms_is_a_page(ada: Page, watch: Watch) -> None:
    watch.expect("405")
    answer = ada.goto("/jobs/stop/")
    assert answer is not None and answer.status == 405
    expect(ada.get_by_role("heading", level=1)).to_have_text("There is nothing to open here")


def test_a_page_follows_its_window(ada: Page, agent: Agent) -> None:
    ada.goto("/?range=1h")
    ada.locator(".chart[data-ready] canvas").first.wait_for()
    ada.set_viewport_size({"width": 390, "height": 844})
    ada.wait_for_function("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    ada.wait_for_function("document.querySelector('.chart canvas').clientWidth < 390")


@pytest.mark.parametrize("path", ["/settings/tokens/", "/audit/"])
def test_a_viewer_is_kept_out_of_what_admins_see(vera: Page, watch: Watch, path: str) -> None:
    watch.expect("403")
    assert vera.locator(f'.nav a[href="{path}"]').count() == 0
    answer = vera.goto(path)
    assert answer is not None and answer.status == 403
    expect(vera.get_by_role("heading", level=1)).to_have_text("You may not do that")


def test_values_are_checked_while_one_types(ada: Page, agent: Agent) -> None:
    ada.goto("/presets/nginx-static-site/?node=web-1")
    expect(ada.locator(".field-err")).to_have_count(0)
    name = ada.get_by_label("SERVER_NAME")
    name.fill("not a host")
    expect(ada.locator("#note-SERVER_NAME .field-err")).to_be_visible()
    expect(name).to_have_attribute("aria-invalid", "true")
    expect(name).to_be_focused()
    expect(ada.locator(".code .bad")).to_contain_text("SERVER_NAME")
    expect(ada.get_by_role("button", name="Choose targets")).to_be_disabled()
    name.fill("it's.example.org")
    name.fill("example.org")
    expect(ada.locator(".field-err")).to_have_count(0)
    expect(ada.locator("#code")).to_contain_text("readonly SERVER_NAME='example.org'")
    ada.get_by_role("button", name="Choose targets").click()
    expect(ada.get_by_role("checkbox", name="web-1")).to_be_checked()
    ada.get_by_role("button", name="Review").click()
    expect(ada.locator("main")).to_contain_text("This changes 1\u00a0node")
    expect(ada.get_by_role("button", name="Run on 1")).to_be_visible()


def test_filters_are_addresses(ada: Page, agent: Agent) -> None:
    ada.get_by_label("Search nodes").fill("web-1")
    ada.wait_for_url("**/?q=web-1*")
    expect(ada.locator(".node-card")).to_have_count(1)
    ada.get_by_label("Search nodes").fill("no such node")
    expect(ada.get_by_role("heading", name="No node matches")).to_be_visible()
    ada.goto("/?q=web-1&view=table")
    expect(ada.locator("tbody tr")).to_have_count(1)


def test_everything_works_without_javascript(browser: Browser, live_server_url: str, agent: Agent) -> None:
    context: BrowserContext = browser.new_context(base_url=live_server_url, java_script_enabled=False)
    page = context.new_page()
    sign_in(page)
    page.goto("/presets/pick/?preset=nginx-static-site&node=web-1")
    page.get_by_label("SERVER_NAME").fill("not a host")
    page.get_by_role("button", name="Update the preview").click()
    expect(page.locator("#note-SERVER_NAME .field-err")).to_be_visible()
    page.get_by_label("SERVER_NAME").fill("example.org")
    page.get_by_role("button", name="Update the preview").click()
    page.get_by_role("button", name="Choose targets").click()
    page.get_by_role("button", name="Review").click()
    page.get_by_role("button", name="Run on 1").click()
    expect(page.locator("#job-header .pill")).to_have_text("Queued")
    page.get_by_role("button", name="Cancel job").click()
    expect(page.locator("#job-header .pill")).to_have_text("Cancelled")
    page.get_by_role("button", name="Theme").first.click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    context.close()
