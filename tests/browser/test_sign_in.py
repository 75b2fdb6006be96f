"""Signing in and out."""

from __future__ import annotations

import time
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Watch, sign_in
from tests.house import EMAIL, PASSWORD


def test_a_wrong_password_gets_one_calm_sentence(page: Page, watch: Watch) -> None:
    watch.expect("401")
    page.goto("/login/")
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The e-mail address and the password do not match.")
    expect(page.get_by_label("E-mail address")).to_have_value(EMAIL)
    expect(page.get_by_label("Password")).to_be_focused()
    expect(page.get_by_label("Password")).to_have_value("")


def test_a_page_that_needs_someone_leads_to_sign_in_and_back(page: Page) -> None:
    page.goto("/jobs/?status=FAILED")
    assert page.url.endswith("/login/?next=%2Fjobs%2F%3Fstatus%3DFAILED")
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/jobs/?status=FAILED")


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "https:evil.example",
        "evil",
    ],
)
def test_open_redirects_are_not_offered(page: Page, target: str) -> None:
    page.goto(f"/login/?{urlencode({'next': target})}")
    assert page.locator(".auth-form [name=next]").get_attribute("value") == "/"


def test_an_open_redirect_is_refused(page: Page, live_server_url: str) -> None:
    page.goto("/login/")
    page.evaluate("document.querySelector('[name=next]').value = '//evil.example/'")
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{live_server_url}/")


def test_signing_out_ends_the_session(page: Page) -> None:
    sign_in(page)
    page.get_by_role("button", name="Sign out").first.click()
    page.wait_for_url("**/login/")
    page.goto("/jobs/")
    assert "/login/" in page.url


def test_a_live_page_does_not_overtake_its_own_signing_out(page: Page) -> None:
    sign_in(page)

    def slowly(route: Route) -> None:
        answer = route.fetch(max_redirects=0)  # from here on the page's stream says that the login has ended
        time.sleep(2)
        route.fulfill(response=answer)

    page.route("**/logout/", slowly)
    page.get_by_role("button", name="Sign out").first.click()
    page.wait_for_url("**/login/**")
    assert page.url.endswith("/login/")


def test_the_theme_is_remembered_by_the_server(ada: Page) -> None:
    ada.locator(".side").get_by_role("button", name="Theme").click()
    assert ada.locator("html").get_attribute("data-theme") == "dark"
    answer = ada.reload()
    assert answer is not None and 'data-theme="dark"' in answer.text()
