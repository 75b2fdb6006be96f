"""What a newcomer does: from signing in to a finished job on this very machine, and a token for the next one."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.browser.agent import Agent
from tests.browser.conftest import Watch, sign_in
from tests.house import House, wait_for

COMMAND = re.compile(r"HYPRBOX_NODE_TOKEN=(hbnt_[\w-]+)")


def test_from_signing_in_to_a_finished_job(page: Page) -> None:
    name = socket.gethostname()
    sign_in(page)
    card = page.locator(".node-card").filter(has_text=name).first
    expect(card.locator(".trio")).to_contain_text(re.compile(r"\d+\s%"))
    card.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)

    page.get_by_label("Preset", exact=True).select_option("system-report")
    page.get_by_role("button", name="Preview and run").click()
    expect(page.locator("#code")).to_contain_text("hb_apply()")
    page.get_by_role("button", name=f"Run on {name}").click()

    page.wait_for_url("**/jobs/*-*/")
    expect(page.locator(".console .ln[data-k=out]").nth(3)).to_be_attached()
    page.reload()
    expect(page.locator("#job-header .pill")).to_have_text("Succeeded", timeout=90_000)
    expect(page.locator("#job-facts")).to_contain_text(re.compile(r"Exit code\s*0"))
    expect(page.locator(".console .tail")).to_have_count(0)
    live = page.locator(".console .ln[data-k=out] > span").all_inner_texts()
    page.reload()
    assert page.locator(".console .ln[data-k=out] > span").all_inner_texts() == live


def test_the_overview_moves_without_a_reload(ada: Page, agent: Agent) -> None:
    card = ada.locator(".node-card").filter(has_text="web-1")
    expect(card).to_be_visible()
    ada.evaluate("window.isSamePage = true")
    for cpu in (71.0, 23.0):
        line = card.locator(".spark path").last
        before = line.get_attribute("d") or ""
        agent.beat(cpu_percent=cpu)
        expect(card.locator(".trio dd").first).to_have_text(f"{cpu:.0f}\u00a0%", timeout=10_000)
        expect(line).not_to_have_attribute("d", before)
    assert ada.evaluate("window.isSamePage")


def test_a_token_is_shown_once_turns_green_and_can_be_revoked(ada: Page, live_server_url: str) -> None:
    ada.goto("/settings/tokens/")
    form = ada.locator("#new")
    form.get_by_label("Name").fill("second server")
    form.get_by_label("Node").fill("web-2")
    form.get_by_role("button", name="Create token").click()
    command = ada.locator("#command").inner_text()
    match = COMMAND.search(command)
    assert match is not None and "HYPRBOX_KEYS_SHA256=" in command
    expect(ada.locator(".waiting")).to_contain_text("Waiting for the first heartbeat")
    row = ada.locator("tr").filter(has_text="second server")
    expect(row).to_contain_text("Not used yet")

    with httpx.Client(base_url=live_server_url, headers={"Authorization": f"Bearer {match[1]}"}) as client:
        Agent(client, "web-2").beat()
        expect(ada.locator(".waiting")).to_contain_text("web-2 reports", timeout=5_000)
        expect(row).to_contain_text("Active", timeout=5_000)
        expect(row.get_by_role("button", name="Rotate")).to_be_visible()
        assert "Not used yet" not in row.inner_text() and ada.locator("#command").inner_text() == command
        ada.get_by_role("link", name="I have saved it").click()
        ada.wait_for_url("**/settings/tokens/")
        assert match[1] not in ada.content()

        row.get_by_role("button", name="Revoke").click()
        ada.get_by_role("dialog").get_by_role("button", name="Revoke token").click()
        expect(row).to_contain_text("Revoked")
        body = {"node_id": "web-2", "agent_version": "0.1.0", "interval_seconds": 60, "metrics": {}}
        assert client.post("/api/nodes/heartbeat", json=body).status_code == 401


def test_the_palette_finds_a_node(ada: Page, agent: Agent) -> None:
    ada.keyboard.press("Control+k")
    ada.keyboard.type("web-1")
    expect(ada.locator("#palette-found a").first).to_contain_text("web-1")
    ada.keyboard.press("Enter")
    ada.wait_for_url("**/nodes/web-1/")


def test_shortcuts_lead_to_places(ada: Page) -> None:
    ada.keyboard.press("g")
    ada.keyboard.press("j")
    ada.wait_for_url("**/jobs/")
    ada.keyboard.press("?")
    expect(ada.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()


def test_a_lost_connection_says_so_and_heals(ada: Page, watch: Watch, house: House, agent: Agent) -> None:
    watch.expect("ERR_")
    expect(ada.locator(".conn")).to_have_text("Live")
    ada.evaluate("window.isSamePage = true")
    house.find("uvicorn").kill()
    expect(ada.locator("#lost")).to_be_visible()
    expect(ada.locator(".conn")).to_have_text("Reconnecting")
    wait_for(house.is_ready, seconds=40)
    agent.beat(cpu_percent=44.0)
    expect(ada.locator("#lost")).to_be_hidden(timeout=20_000)
    card = ada.locator(".node-card").filter(has_text="web-1")
    expect(card.locator(".trio dd").first).to_have_text("44\u00a0%", timeout=8_000)
    assert ada.evaluate("window.isSamePage")


def test_only_jobs_that_would_be_shown_are_called_new(ada: Page, house: House) -> None:
    new = ada.locator("[data-new=jobs]")

    def watched(path: str, act: Callable[[], Any]) -> Any:
        """What came of the act, once the page has asked what it would show."""
        ada.goto(path)
        expect(ada.locator(".conn").first).to_have_text("Live")
        with ada.expect_response(lambda answer: answer.request.headers.get("hx-request") == "true"):
            done = act()
        ada.wait_for_timeout(500)
        return done

    with house.api() as api:

        def queue() -> str:
            answer = api.post("/api/jobs", json={"preset": "system-report", "variables": {}, "node_id": "idle-1"})
            assert answer.status_code == 201, answer.text
            return str(answer.json()["id"])

        def cancel(job_id: str) -> None:
            assert api.post(f"/api/jobs/{job_id}/cancel", json={}).status_code == 200

        made = api.post("/api/tokens", json={"name": "idle-1", "node_id": "idle-1"})
        assert made.status_code == 201
        once = Agent(httpx.Client(base_url=house.url, timeout=40), "idle-1")
        once.client.headers["Authorization"] = f"Bearer {made.json()['token']}"
        once.beat()
        once.client.close()
        jobs = [queue() for _ in range(50)]
        jobs.append(watched("/jobs/?status=FAILED", queue))
        expect(new).to_be_hidden()
        watched("/jobs/?node=idle-1", lambda: cancel(jobs[0]))  # it belongs to the next page
        expect(new).to_be_hidden()
        jobs.append(watched("/jobs/?node=idle-1", queue))
        expect(new).to_have_text("1 new, show")
        new.click()
        expect(ada.locator(f"#job-{jobs[-1]}")).to_be_visible()
        expect(new).to_be_hidden()
        for job_id in jobs[1:]:
            cancel(job_id)


def test_a_page_that_was_open_while_more_than_ten_failed_asks_for_the_name(ada: Page, house: House) -> None:
    names = [f"failing-{number:02d}" for number in range(11)]
    agents = []
    with house.api() as api:
        for name in names:
            made = api.post("/api/tokens", json={"name": name, "node_id": name})
            assert made.status_code == 201, made.text
            client = httpx.Client(base_url=house.url, timeout=40)
            client.headers["Authorization"] = f"Bearer {made.json()['token']}"
            agents.append(Agent(client, name))
            agents[-1].beat()
        order = {"preset": "system-report", "variables": {}, "node_ids": names, "confirm": "system-report"}
        batch = api.post("/api/jobs/batches", json=order)
        assert batch.status_code == 201, batch.text
    ada.goto(f"/jobs/batches/{batch.json()['id']}/")
    at_once = ada.locator("form.if-few-failed").get_by_role("button", name="Retry the failed ones")
    asking = ada.get_by_role("button", name="Retry the failed ones", exact=True).and_(ada.locator("a"))
    expect(at_once).to_be_hidden()
    agents[0].take().end(3)
    expect(at_once).to_be_visible()
    expect(asking).to_be_hidden()
    for one in agents[1:]:
        one.take().end(3)
    expect(asking).to_be_visible()
    expect(at_once).to_be_hidden()
    asking.click()
    again = ada.get_by_role("button", name="Run them again")
    expect(again).to_be_disabled()
    ada.get_by_label("Type system-report to confirm").fill("system-report")
    again.click()
    expect(ada.locator("h1")).to_contain_text("System report")
    expect(ada.locator("#batch-state")).to_contain_text("0 of 11 ended")
    with house.api() as api:
        assert api.post(f"/api/jobs/batches/{ada.url.split('/')[-2]}/cancel", json={}).status_code == 200
    for one in agents:
        one.client.close()
