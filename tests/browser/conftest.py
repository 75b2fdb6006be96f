"""A whole HyprBox with its own agent, and Debian's Chromium to look at it with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.agent import Agent
from tests.folders import open_folder
from tests.house import EMAIL, PASSWORD, House
from tests.house import house as make_house

expect.set_options(timeout=20_000)  # five seconds are too few on a busy machine
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEWER = "vera@example.com"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    with open_folder("browser") as folder, make_house(folder / "var", HYPRBOX_ALLOW_REGISTRATION="true") as made:
        made.start()
        vera = {"email": VIEWER, "password": PASSWORD, "name": "Vera"}
        answer = httpx.post(f"{made.url}/api/auth/register", json=vera)
        assert answer.status_code == 201, answer.text
        yield made


@pytest.fixture(scope="session")
def live_server_url(house: House) -> str:
    return house.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the whole session: Playwright's loop would run on under the asyncio tests that follow.
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Watch:
    """Collects what a page complains about: script errors and violations of the Content-Security-Policy."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.expected: list[str] = []

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def follow(self, page: Page) -> None:
        page.on("console", self.on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def expect(self, *parts: str) -> None:
        """Complaints with these words are what the test provokes."""
        self.expected.extend(parts)

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(part in text for part in self.expected)]


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    assert made.unexpected() == []


@pytest.fixture
def context(browser: Browser, live_server_url: str) -> Iterator[BrowserContext]:
    made = browser.new_context(base_url=live_server_url, viewport={"width": 1440, "height": 900})
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, watch: Watch) -> Page:
    made = context.new_page()
    watch.follow(made)
    return made


def sign_in(page: Page, email: str = EMAIL) -> None:
    page.goto("/login/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.locator(".app").wait_for()


@pytest.fixture(scope="session")
def sessions() -> dict[str, list[Any]]:
    """Cookies by person: signing in is limited to ten times a minute."""
    return {}


def be(page: Page, sessions: dict[str, list[Any]], email: str) -> Page:
    if email in sessions:
        page.context.add_cookies(sessions[email])
        page.goto("/")
    else:
        sign_in(page, email)
        sessions[email] = list(page.context.cookies())
    return page


@pytest.fixture
def ada(page: Page, sessions: dict[str, list[Any]]) -> Page:
    """The admin, signed in."""
    return be(page, sessions, EMAIL)


@pytest.fixture
def vera(page: Page, sessions: dict[str, list[Any]]) -> Page:
    """A viewer, signed in."""
    return be(page, sessions, VIEWER)


@pytest.fixture(scope="session")
def agent(house: House) -> Iterator[Agent]:
    """An agent that does what the test says, on the node `web-1`."""
    with house.api() as api:
        answer = api.post("/api/tokens", json={"name": "web-1", "node_id": "web-1"})
        assert answer.status_code == 201, answer.text
    with httpx.Client(base_url=house.url, timeout=40) as client:
        client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        made = Agent(client, "web-1")
        made.beat()
        yield made
