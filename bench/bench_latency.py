"""What a person waits for, in a real browser: from a heartbeat to its pixel, from the button to the first line.

A whole HyprBox as `script/server` runs it, with its own idle agent, and Debian's Chromium. A moment counts when
the frame after the change has been handed to the screen.
"""

from __future__ import annotations

import shutil
import statistics
import time
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright

from bench.harness import Context, Result, at_most, figure
from tests.browser.agent import Agent
from tests.browser.conftest import ARGUMENTS, CHROMIUM, sign_in
from tests.house import EMAIL, PASSWORD, SEEN, House, house, wait_for

BEATS = 40
JOBS = 20

# Resolves with the wall clock (ms) of the second frame after `find()` is true: by then the first has been painted.
_PAINTED = """
([selector, text]) => {
  window.painted = new Promise(resolve => {
    const look = () => {
      const found = [...document.querySelectorAll(selector)].some(e => !text || e.textContent.replace(/\\u00a0/g, ' ') === text)
      if (!found) return false
      requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.timeOrigin + performance.now())))
      return true
    }
    if (look()) return
    const watch = new MutationObserver(() => { if (look()) watch.disconnect() })
    watch.observe(document.documentElement, {subtree: true, childList: true, characterData: true})
  })
}
"""


def run(context: Context) -> list[Result]:
    if not shutil.which(CHROMIUM):
        raise RuntimeError("this benchmark needs a Chromium: script/bootstrap --browser installs Debian's")
    with house(context.folder / "house", HYPRBOX_INTERVAL="10s") as made:
        made.start()
        http = _api(made)
        here = http.get("/api/nodes").json()["results"][0]["node_id"]
        wait_for(lambda: http.get(f"/api/nodes/{here}").json()["status"] in SEEN)
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = chromium.new_context(base_url=made.url, viewport={"width": 1440, "height": 900}).new_page()
            page.set_default_timeout(30_000)
            sign_in(page)
            beats = _beats(page, _agent(made, http))
            lines = [_first_line(page, here) for _ in range(JOBS)]
            chromium.close()
    return [*_told("heartbeat to pixel", beats), *_told("button to first line on the page", lines)]


def _told(name: str, ms: list[float]) -> list[Result]:
    return [
        figure(f"{name}: median", statistics.median(ms), "ms"),
        at_most(f"{name}: 95th percentile", statistics.quantiles(ms, n=20)[-1], "ms", 1_000.0),
    ]


def _api(made: House) -> httpx.Client:
    http = httpx.Client(base_url=made.url, timeout=30)
    answer = http.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD}).raise_for_status()
    http.headers["Authorization"] = f"Bearer {answer.json()['access']}"
    return http


def _agent(made: House, http: httpx.Client) -> Agent:
    body: dict[str, Any] = {"name": "bench", "node_id": "web-1"}
    token = http.post("/api/tokens", json=body).raise_for_status().json()["token"]
    return Agent(httpx.Client(base_url=made.url, headers={"Authorization": f"Bearer {token}"}), "web-1")


def _beats(page: Page, agent: Agent) -> list[float]:
    agent.beat(cpu_percent=1.0)
    page.goto("/")
    card = page.locator(".node-card").filter(has_text="web-1")
    card.wait_for()
    selector = f"#{card.get_attribute('id')} .trio dd:nth-of-type(1)"
    delays = []
    for number in range(BEATS):
        value = 10 + number
        page.evaluate(_PAINTED, [selector, f"{value} %"])
        began = time.time()
        agent.beat(cpu_percent=float(value))
        delays.append(page.evaluate("window.painted") - began * 1000)
        time.sleep(0.05 + number % 7 * 0.11)  # at any moment between two hints
    return delays


def _first_line(page: Page, node: str) -> float:
    """From the press of the button, over the page's change, to a painted line of output."""
    page.goto(f"/nodes/{node}/")
    page.get_by_label("Preset", exact=True).select_option("system-report")
    page.get_by_role("button", name="Preview and run").click()
    button = page.get_by_role("button", name=f"Run on {node}")
    button.wait_for()
    began = time.time()
    button.click()
    page.wait_for_url("**/jobs/*-*/", wait_until="commit")
    page.evaluate(_PAINTED, [".console .ln[data-k=out]", ""])
    delay: float = page.evaluate("window.painted") - began * 1000
    page.locator("#job-header .pill").filter(has_text="Succeeded").wait_for(timeout=90_000)
    return delay
