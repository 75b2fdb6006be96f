"""Hostile text in every field that somebody else fills, and on every page that shows it: none of it is ever more than text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from hyprbox.lib.headers import POLICY
from tests.browser.agent import Agent
from tests.browser.conftest import sign_in
from tests.browser.hostile import CORPUS, Detector, Hostile, bundles, local_part, shown
from tests.folders import open_folder
from tests.house import ROOT, House
from tests.house import house as make_house

# --- the detector detects ---


@pytest.fixture
def detector() -> Detector:
    return Detector()


class Lab:
    """Pages that anybody may write into, on no server."""

    def __init__(self, page: Page) -> None:
        self.page, self.html = page, ""
        self.headers: dict[str, str] = {}
        page.route("**/*", self._answer)

    def open(self, html: str, headers: dict[str, str]) -> None:
        self.html, self.headers = html, headers
        self.page.goto("/")

    def _answer(self, route: Route) -> None:
        is_page = route.request.is_navigation_request() and route.request.frame == self.page.main_frame
        body = self.html if is_page else ""
        route.fulfill(status=200 if is_page else 404, content_type="text/html", body=body, headers=self.headers)


@pytest.fixture
def lab(browser: Browser, detector: Detector) -> Iterator[Lab]:
    context = browser.new_context(base_url="http://hbx.test")
    detector.watch(context)
    yield Lab(context.new_page())
    context.close()


def test_there_are_enough_of_them() -> None:
    texts = [each.text for each in CORPUS]
    assert len(set(texts)) == len(texts) >= 60
    assert [text for text in texts if len(text) > 63] == []


def test_in_a_page_without_a_policy_every_one_of_them_is_noticed(lab: Lab, detector: Detector) -> None:
    for each in CORPUS:
        detector.clear()
        lab.open(each.document, {})
        with pytest.raises(AssertionError, match="ran"):
            detector.check(lab.page)
        assert bool(detector.has_run()) == each.runs, each


def test_in_a_page_with_our_policy_they_are_stopped_and_noticed(lab: Lab, detector: Detector) -> None:
    for each in filter(lambda each: each.runs, CORPUS):
        detector.clear()
        lab.open(each.document, {"content-security-policy": POLICY})
        with pytest.raises(AssertionError, match="blocked"):
            detector.check(lab.page)
        assert detector.blocked and not detector.has_run(), each


# --- and finds nothing in ours ---

TEXTS = [each.text for each in CORPUS]
NAMES = bundles(120)  # of people, presets and keys, which have pages of their own


class Filled:
    """A house in which everything that others may name is named by the corpus, and an admin who looks at it."""

    def __init__(self, house: House, planted: dict[str, Any], page: Page, detector: Detector) -> None:
        self.house, self.page, self.detector = house, page, detector
        self.tokens: dict[str, str] = planted["tokens"]
        self.jobs: list[str] = planted["jobs"]
        self.batches: list[str] = planted["batches"]
        self.people: list[str] = planted["people"]

    def open(self, path: str, status: int = 200) -> str:
        """Load a page, check it, and say what it shows."""
        self.detector.clear()
        answer = self.page.goto(path)
        assert answer is not None and answer.status == status, path
        self.detector.check(self.page)
        return shown(self.page)

    def see(self, texts: Iterable[str], *paths: str) -> None:
        """Every text stands on one of these pages, letter by letter."""
        said = "\0".join(map(self.open, paths))
        assert [text for text in texts if text not in said] == []

    def agent(self, each: Hostile, client: httpx.Client) -> Agent:
        client.headers["Authorization"] = f"Bearer {self.tokens[f'h-{each.number}']}"
        return Agent(client, f"h-{each.number}")

    def beat(self, mark: str = "") -> None:
        """All that an agent may say of its node is hostile."""
        with httpx.Client(base_url=self.house.url, timeout=30) as client:
            for each in CORPUS:
                self.agent(each, client).post("/api/nodes/heartbeat", heartbeat(each, mark))


def heartbeat(each: Hostile, mark: str) -> dict[str, Any]:
    name = NAMES[each.number - 1] if each.number <= len(NAMES) else each.text
    names = ("hostname", "os_version", "kernel", "architecture", "virtualization", "agent_version")
    metrics = {"cpu_percent": 12.0, "memory_percent": 34.0, "disk_percent": 99.0, "spool_unwritable": name}
    return {
        "node_id": f"h-{each.number}",
        "agent_version": each.text if len(each.text) <= 40 else "0.1.0",
        "interval_seconds": 60,
        "metrics": {**metrics, "failed_units": [name], "disks": [{"mount": name, "percent": 99.0}]},
        "inventory": {
            **dict.fromkeys(names, name),
            "os": f"{name}{mark}",
            "region": each.text,
            "ip_addresses": TEXTS if each.number == 1 else [each.text],
        },
    }


@pytest.fixture(scope="module")
def filled(browser: Browser) -> Iterator[Filled]:
    with open_folder("hostile") as folder, make_house(folder / "var", HYPRBOX_NO_AGENT="1") as house:
        house.start()
        command = [sys.executable, "-m", "tests.browser.planting"]
        done = subprocess.run(
            command, env=house.environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        context = browser.new_context(base_url=house.url, viewport={"width": 900, "height": 200})
        context.set_default_timeout(20_000)
        detector = Detector()
        detector.watch(context)
        page = context.new_page()
        made = Filled(house, json.loads(done.stdout), page, detector)
        made.beat()
        sign_in(page)
        yield made
        context.close()


def test_the_fleet(filled: Filled) -> None:
    filled.see(TEXTS, "/?view=cards&sort=name", "/?view=cards&sort=name&page=2")
    filled.see(TEXTS, "/?view=table")
    filled.see(TEXTS, "/?view=map&colour=mem")
    filled.open("/live/")
    assert filled.open("/palette/?q=hbx").count("hbx(") >= 6


def test_nodes(filled: Filled) -> None:
    for number, name in enumerate(NAMES, 1):
        tags = [each.word for each in CORPUS[number - 1 :: len(NAMES)]]
        filled.see([name, TEXTS[number - 1], *tags], f"/nodes/h-{number}/")
        assert filled.page.locator("h1").text_content() == name
        facts = filled.page.locator("#node-details dd").all_text_contents()
        assert facts.count(name) >= 4, facts
    filled.see(TEXTS, "/nodes/h-1/")  # its addresses
    filled.see([NAMES[0], TEXTS[0]], "/nodes/h-1/edit/")


def test_people_and_what_is_theirs(filled: Filled) -> None:
    filled.see(NAMES, "/settings/people/")
    for name, person in list(zip(NAMES, filled.people, strict=True))[::3]:
        filled.see([name], f"/settings/people/{person}/")
    filled.see([*NAMES, *(each.word[:40] for each in CORPUS)], "/profile/")
    filled.see(TEXTS, "/profile/second-factor/")
    filled.see(TEXTS, *(f"/settings/tokens/?page={number}" for number in (1, 2, 3)))


def test_presets(filled: Filled) -> None:
    filled.see(NAMES, "/presets/")
    for number, name in list(enumerate(NAMES))[::2]:
        filled.see([name], f"/presets/hostile-{number}/")
    for number, name in list(enumerate(NAMES))[::6]:
        filled.see([name], f"/presets/hostile-{number}/revisions/")
        filled.see([name], f"/drift/presets/hostile-{number}/")
    filled.see(TEXTS, "/presets/hostile-0/")
    filled.see(NAMES[:1], "/presets/hostile-0/edit/")
    filled.see([each.word for each in CORPUS[: len(NAMES)]], "/drift/")


def test_jobs(filled: Filled) -> None:
    filled.see(NAMES, *(f"/jobs/?page={number}" for number in range(1, 4)))
    for name, job, batch in list(zip(NAMES, filled.jobs, filled.batches, strict=True))[::3]:
        filled.see([name], f"/jobs/{job}/?tab=script")
        filled.see([name], f"/jobs/batches/{batch}/")
    filled.see(TEXTS, f"/jobs/{filled.jobs[0]}/?tab=variables")


def test_the_audit_log(filled: Filled) -> None:
    filled.see(TEXTS, "/audit/?action=node.changed")
    filled.see(TEXTS, "/audit/?action=token.created", "/audit/?action=row.sealed")
    for action in ("key.created", "preset.revised"):
        filled.see(NAMES, f"/audit/?action={action}")
    for action in ("user.created", "login.failed"):
        filled.see(map(local_part, NAMES), f"/audit/?action={action}")


def test_addresses_of_pages(filled: Filled) -> None:
    for text in NAMES[::9]:  # the others are typed, below
        filled.see([text], f"/?{urlencode({'q': text, 'group': text, 'tag': text, 'sort': text, 'view': text})}")
    for text in bundles(240):
        filled.see([text], f"/audit/?{urlencode({'actor': text, 'target': text, 'action': text, 'since': text})}")
        filled.open(f"/nothing/{quote(text, safe='')}/", status=404)
    for text in bundles(240)[::4]:
        filled.open(f"/palette/?{urlencode({'q': text})}")
        filled.open(f"/jobs/?{urlencode({'q': text, 'who': text, 'node': text, 'status': text, 'batch': text})}")
        filled.open(f"/presets/?{urlencode({'q': text, 'risk': text, 'category': text, 'node': text})}")


# --- while it happens ---


def test_what_nodes_say_while_one_looks(filled: Filled) -> None:
    page = filled.page
    filled.open("/?view=table")
    page.evaluate("window.isSamePage = true")
    filled.beat(" moved")
    expect(page.locator("#nodes tbody tr", has_text=" moved")).to_have_count(len(CORPUS))
    filled.detector.check(page)
    assert page.evaluate("window.isSamePage")
    said = shown(page)
    assert [text for text in TEXTS if text not in said] == []
    filled.open("/nodes/h-1/")
    with filled.house.api() as api:
        for text in (NAMES[3], NAMES[-1]):
            assert api.patch("/api/nodes/h-1", json={"display_name": text}).is_success
            expect(page.locator("#node-headline h1")).to_have_text(text)
            filled.detector.check(page)
        filled.open("/live/")
        for number in range(len(NAMES)):
            order = {"preset": f"hostile-{number}", "variables": {}, "node_id": "h-70"}
            assert api.post("/api/jobs", json=order).status_code == 201
    for name in NAMES:
        expect(page.locator("#feed li.job.new", has_text=name).first).to_be_attached()
    filled.detector.check(page)


def test_what_a_job_prints_while_one_looks(filled: Filled) -> None:
    page, streams = filled.page, {"stdout": "out", "stderr": "err"}
    with filled.house.api() as api:
        order = {"preset": "hostile-0", "variables": {}, "node_id": "h-60"}
        job = api.post("/api/jobs", json=order).json()["id"]
    filled.open(f"/jobs/{job}/")
    with httpx.Client(base_url=filled.house.url, timeout=40) as client:
        agent = filled.agent(CORPUS[59], client)
        agent.beat()
        held = agent.take()
        for stream in streams:
            printed = "\n".join(TEXTS) + "\n"
            for piece in (printed[:1000], printed[1000:]):
                held.write(piece, stream=stream)
        for _ in range(2):  # live, then rendered by the server
            for kind in streams.values():
                lines = page.locator(f".console .ln[data-k={kind}] > span")
                expect(lines).to_have_count(len(TEXTS))
                assert lines.all_text_contents() == TEXTS
            filled.detector.check(page)
            filled.open(f"/jobs/{job}/")
        held.end(3)
        expect(page.locator("#job-header .pill")).to_have_text("Failed")
    filled.detector.check(page)


# --- what a page says back ---


def test_forms_that_are_refused(filled: Filled) -> None:
    page = filled.page
    filled.open("/settings/people/")
    for text in bundles(240):
        page.locator("main [name=email]").fill(text)
        page.get_by_role("button", name="Invite").click()
        expect(page.locator(".field-err")).to_contain_text(text)
        filled.detector.check(page)
    everything = " ".join(TEXTS)
    filled.open("/settings/tokens/")
    page.locator("#new [name=name]").fill(everything)
    page.get_by_role("button", name="Create token").click()
    expect(page.locator(".field-err")).to_contain_text("120")
    filled.detector.check(page)
    filled.open("/nodes/h-2/edit/")
    page.locator("[name=display_name]").fill(everything)
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".field-err")).to_contain_text("120")
    filled.detector.check(page)


def test_what_is_said_while_one_types(filled: Filled) -> None:
    page, everything = filled.page, " ".join(TEXTS)
    filled.open("/?view=table")
    for text in bundles(110):
        with page.expect_response("**/?q=*"):
            page.locator("#q").fill(f"zzz {text}")
        expect(page.locator("#nodes .empty")).to_contain_text(f"“zzz {text}”")
        filled.detector.check(page)
    filled.open("/presets/hostile-0/")
    page.locator("#v-SHAPED").fill(everything)
    expect(page.locator("#note-SHAPED")).to_contain_text("characters")
    filled.detector.check(page)
    filled.open("/presets/new/")
    for text in ("\n".join(TEXTS), "\n".join(f"{json.dumps(text)}: 1" for text in TEXTS)):
        page.locator("#text").fill(text)
        with page.expect_response("**/presets/review/"):
            page.locator("#text").press("End")
            page.locator("#text").type(" ")
        filled.detector.check(page)


def test_what_was_just_done(filled: Filled) -> None:
    """The messages on top of the next page."""
    page = filled.page
    filled.open("/settings/tokens/?page=1")
    names = page.locator("#tokens tr", has_text="spare").locator(".main").all_text_contents()
    assert len(names) == len(NAMES)
    page.evaluate("""async () => {
      for (const row of document.querySelectorAll('#tokens tr')) {
        if (!row.textContent.includes('spare')) continue;
        const form = row.querySelector('form[action*=revoke]');
        await fetch(form.action, { method: 'POST', body: new FormData(form), redirect: 'manual' });
      }
    }""")
    filled.open("/profile/")
    messages = page.locator("#main > .notice").all_text_contents()
    assert [name for name in names if not any(f"“{name}” is revoked" in message for message in messages)] == []


def test_why_everything_was_stopped(filled: Filled) -> None:
    with filled.house.api() as api:
        for text, batch in zip(bundles(290), filled.batches, strict=False):
            assert api.post("/api/jobs/stop", json={"reason": text}).is_success
            filled.see([text], f"/jobs/batches/{batch}/")
            assert api.delete("/api/jobs/stop").is_success


def test_signing_in(filled: Filled, browser: Browser) -> None:
    detector = Detector()
    context = browser.new_context(base_url=filled.house.url)
    detector.watch(context)
    page = context.new_page()
    for text in bundles(240):
        page.goto(f"/login/?{urlencode({'next': f'/{text}'})}")
        page.get_by_label("E-mail address").fill(text)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".field-err")).to_be_visible()
        detector.check(page)
        assert text in shown(page)
    context.close()
