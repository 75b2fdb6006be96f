"""A passkey in a real browser: js/passkey.js and what Chromium's own authenticator makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from accounts.sessions import SessionStore
from tests import factories

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def sign_in(page: Page) -> None:
    page.goto("/login/")
    page.get_by_label("E-mail address").fill("ada@example.com")
    page.get_by_label("Password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def no_longer_fresh(context: Any) -> None:
    [key] = [cookie["value"] for cookie in context.cookies() if cookie["name"] == "hb_session"]
    store = SessionStore(key)
    store["_fresh_until"] = "2020-01-01T00:00:00+00:00"
    store.save()


@pytest.fixture(scope="module", autouse=True)
def beside_a_loop() -> Iterator[None]:
    """Playwright has a loop in this thread, where Django would refuse to talk to the database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        yield


@pytest.mark.django_db(transaction=True)
def test_register_sign_in_and_step_up(live_server: Any, settings: Any, browser: Browser) -> None:
    settings.HYPRBOX_PUBLIC_URL = url = live_server.url.replace("127.0.0.1", "localhost")
    factories.make_user("ada", "admin")
    context = browser.new_context(base_url=url, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    violations: list[str] = []
    page.on("console", lambda said: violations.append(said.text) if "Security" in said.text else None)
    page.on("pageerror", lambda error: violations.append(str(error)))
    devtools = context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})

    sign_in(page)
    page.locator(".app").wait_for()
    page.goto("/profile/second-factor/")
    page.locator("#passkey-name").fill("laptop")
    page.locator("#passkey-password").fill(factories.PASSWORD)
    page.get_by_role("button", name="Add a passkey").click()
    page.get_by_role("button", name="Make the passkey").click()
    expect(page.locator("#codes .l")).to_have_count(10)
    page.locator("[data-saved-it]").click()
    page.get_by_role("button", name="Sign out", exact=True).first.click()

    page.wait_for_url("**/login/")
    sign_in(page)
    page.wait_for_url("**/login/second/**")
    page.get_by_role("button", name="Use a passkey").click()
    page.locator(".app").wait_for()

    no_longer_fresh(context)
    page.goto("/profile/second-factor/")
    page.get_by_role("button", name="Make new ones").click()
    expect(page.get_by_role("heading", name="Is it still you?")).to_be_visible()
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.locator("#codes .l")).to_have_count(10)
    context.close()
    assert violations == []
