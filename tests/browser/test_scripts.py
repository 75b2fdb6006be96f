"""Nothing that anybody is called, writes or sends runs in a browser: sixty payloads in every field, on every page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.agent import Agent, Held
from tests.browser.conftest import Watch
from tests.browser.payloads import ALL, PAYLOADS, mark
from tests.house import ROOT, House

# What has been on a page when all were looked at, by the marks of `hostile.py`; a field that is shown nowhere is not here.
MARKS = {
    "dis", "grp", "tag", "not", "reg", "age", "hos", "osn", "osv", "ker", "arc", "ipa", "mou", "fai", "spo", "rea",
    "tok", "key", "per", "uag", "tit", "des", "hlp", "def", "cho", "scr", "rev", "val", "out", "err", "sto", "bst", "act",
    "tar", "det", "dek", "inv", "pas",
}  # fmt: skip
# All that a page of ours never has, whoever made it.
FOREIGN = """() => {
  const named = new Set(['script', 'style', 'iframe', 'object', 'embed', 'base', 'math', 'marquee', 'video', 'audio', 'image',
    'animate', 'set', 'xss', 'source', 'applet', 'frameset']);
  const addresses = new Set(['href', 'src', 'action', 'formaction', 'data', 'xlink:href', 'poster', 'hx-get', 'hx-post']);
  const found = [];
  const look = (root) => root.querySelectorAll('*').forEach((element) => {
    const tag = element.localName;
    const isOurs = tag === 'script' && (element.src.startsWith(`${location.origin}/static/`) || element.type === 'application/json');
    if (named.has(tag) && !isOurs) found.push(element.outerHTML.slice(0, 120));
    if (tag === 'meta' && element.httpEquiv) found.push(element.outerHTML);
    if (tag === 'link' && !element.href.startsWith(`${location.origin}/`)) found.push(element.outerHTML);
    if (tag === 'a' && element.textContent === 'link') found.push(element.outerHTML);
    for (const { name, value } of element.attributes) {
      if (/^on|^hx-on|^srcdoc$|^style$/.test(name)) found.push(`${tag} ${name}`);
      if (addresses.has(name) && (/^[\\s\\x00-\\x1f]*(javascript|vbscript|data)\\s*:/i.test(value) || value.includes('evil.example') || value === '/logout/' && tag !== 'form'))
        found.push(`${tag} ${name}=${value.slice(0, 80)}`);
    }
    if (tag === 'template') look(element.content);
  });
  look(document);
  return found;
}"""
LISTEN = """document.addEventListener('securitypolicyviolation', (event) =>
  console.error(`csp: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));"""
SEEN = (
    "() => [...new Set(document.documentElement.outerHTML.match(/Q[a-z]{3}Q/g) || [])].map((each) => each.slice(1, 4))"
)


class Look:
    """Opens pages and gathers what should not be: dialogs, reports of the policy, elements that are not ours."""

    def __init__(self, page: Page, watch: Watch) -> None:
        self.page, self.watch = page, watch
        self.dialogs: list[str] = []
        self.foreign: list[str] = []
        self.seen: set[str] = set()
        page.add_init_script(LISTEN)
        page.on("dialog", self._on_dialog)

    def _on_dialog(self, dialog: Any) -> None:
        self.dialogs.append(f"{self.page.url}: {dialog.type} {dialog.message}")
        dialog.accept()

    def open(self, path: str, status: int = 200) -> None:
        answer = self.page.goto(path)
        assert answer is not None and answer.status == status, (path, answer and answer.status)
        self.look()

    def look(self) -> None:
        self.foreign += [f"{self.page.url}: {each}" for each in self.page.evaluate(FOREIGN)]
        self.seen |= set(self.page.evaluate(SEEN))

    def found(self) -> list[str]:
        return [*self.dialogs, *self.foreign, *self.watch.unexpected()]


@pytest.fixture(scope="module")
def evil(house: House) -> Iterator[dict[str, str]]:
    """The ids of what is in the house; taken out again, for other tests look there as well."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "tests.browser.hostile", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=house.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    yield json.loads(run().splitlines()[-1])
    run("empty")


@pytest.fixture
def look(page: Page, context: BrowserContext, watch: Watch, evil: dict[str, str], live_server_url: str) -> Look:
    """An admin whose own name is a payload."""
    context.add_cookies([{"name": "hb_session", "value": evil["cookie"], "url": live_server_url}])
    return Look(page, watch)


def test_sixty_payloads() -> None:
    assert len(set(PAYLOADS)) >= 60


def test_no_page_runs_any_of_it(look: Look, watch: Watch, evil: dict[str, str]) -> None:
    watch.expect("the server responded with a status of 404", "the server responded with a status of 400")
    searched = quote(PAYLOADS[7])
    ok = [
        "/", "/?view=table", "/?view=map", f"/?q={searched}&group={searched}&tag={searched}&view={searched}",
        f"/nodes/{evil['node']}/", "/nodes/evil-07/", "/live/", "/presets/", f"/presets/?q={searched}&node={searched}",
        f"/presets/{evil['preset']}/?node={evil['node']}", f"/presets/{evil['preset']}/edit/",
        f"/presets/{evil['preset']}/revisions/", "/drift/", f"/drift/presets/{evil['preset']}/", "/jobs/",
        f"/jobs/?q={searched}&who={searched}&node={searched}", f"/jobs/{evil['ended']}/", f"/jobs/{evil['ended']}/?tab=script",
        f"/jobs/{evil['ended']}/?tab=variables", f"/jobs/{evil['running']}/", f"/jobs/batches/{evil['batch']}/",
        "/settings/tokens/", "/settings/people/", f"/settings/people/{evil['owner']}/", "/profile/", "/profile/second-factor/", "/audit/",
        f"/audit/?actor={searched}&target={searched}&since={searched}", f"/palette/?q={searched}", "/palette/?q=evil",
        "/django-admin/accounts/user/", "/django-admin/audit/event/", "/django-admin/tokens/nodetoken/",
        f"/login/?next={quote('javascript:alert(1)')}",
    ]  # fmt: skip
    missing = [f"/nodes/{quote(PAYLOADS[7], safe='')}/", f"/presets/{quote(PAYLOADS[0], safe='')}/", f"/{searched}"]
    for path in ok:
        look.open(path)
    for path in missing:
        look.open(path, 404)
    for path in ("reset", "invitation"):
        look.open(f"/{path}/{quote(PAYLOADS[7], safe='')}/", 400)
    assert look.found() == []
    assert MARKS - look.seen == set()


def test_no_answer_to_a_form_runs_any_of_it(look: Look, evil: dict[str, str]) -> None:
    page = look.page
    look.open("/settings/tokens/")
    page.get_by_label("Name").fill(PAYLOADS[7])
    page.get_by_label("Node").fill(PAYLOADS[45])
    page.get_by_role("button", name="Create token").click()
    expect(page.locator(".field-err").first).to_be_visible()
    look.look()
    look.open(f"/presets/{evil['preset']}/")
    page.get_by_label("TEXT").fill(f"{mark('val', ALL)} '")
    expect(page.locator("#code")).to_contain_text("'\\''")
    look.look()
    look.open("/presets/new/")
    page.get_by_label("Document").fill(
        f"name: '{PAYLOADS[0]}'\ntitle: 'a <img src=x onerror=alert(1)>'\n{PAYLOADS[7]}: 1\nvariables:\n- name: '<b onclick=x>'\n"
    )
    expect(page.locator(".findings li").first).to_be_visible()
    look.look()
    page.get_by_label("Document").fill("name: a-b\napply: |\n  echo $(<img src=x onerror=alert(1)>) ${A<b}\n")
    page.wait_for_timeout(700)
    look.look()
    page.evaluate("window.onbeforeunload = null")
    look.open("/jobs/")
    page.keyboard.press("Control+k")
    page.locator("#palette-q").fill("<img src=x onerror=alert(1)>")
    page.wait_for_timeout(400)
    look.look()
    assert [each for each in look.found() if "beforeunload" not in each and "400" not in each] == []


def beat(agent: Agent, payload: str) -> None:
    """A heartbeat with the payload wherever text may be."""
    short = payload[:40]
    figures = {
        "cpu_percent": 99.0, "memory_percent": 1.0, "disk_percent": 99.0, "spool_unwritable": mark("spo", payload)[:255],
        "disks": [{"mount": mark("mou", payload), "percent": 99.0}], "failed_units": [mark("fai", payload)],
    }  # fmt: skip
    inventory = {name: mark("hos", payload) for name in ("hostname", "os", "os_version", "kernel", "architecture")}
    body = {"node_id": agent.node_id, "agent_version": short, "interval_seconds": 60, "metrics": figures}
    agent.post("/api/nodes/heartbeat", {**body, "inventory": {**inventory, "region": short, "ip_addresses": [short]}})


@pytest.fixture
def held(house: House, agent: Agent, evil: dict[str, str]) -> Iterator[Held]:
    with house.api() as api:
        api.delete("/api/jobs/stop")
        answer = api.post("/api/jobs", json={"preset": "system-report", "variables": {}, "node_id": "web-1"})
        assert answer.status_code == 201, answer.text
        yield agent.take()
        api.patch("/api/nodes/web-1", json={"display_name": "", "group": "", "tags": [], "notes": ""})
    agent.beat()


@pytest.mark.parametrize(
    "path", ["/?q=web-1", "/?view=table&q=web-1", "/?view=map", "/nodes/web-1/", "/live/", "/jobs/"]
)
def test_no_live_update_runs_any_of_it(look: Look, house: House, held: Held, path: str) -> None:
    """The same fields, put into a page that is open."""
    look.open(path)
    expect(look.page.locator(".conn").first).to_have_text("Live")
    replaced = "document.addEventListener('hb:replaced', () => { window.replaced = (window.replaced || 0) + 1; })"
    look.page.evaluate(replaced)
    shown = [PAYLOADS[7], PAYLOADS[0], PAYLOADS[44]]
    with house.api() as api:
        for payload in shown:
            changes = {"display_name": mark("liv", payload), "group": mark("liv", payload), "notes": payload}
            assert api.patch("/api/nodes/web-1", json=changes).status_code == 200
            beat(held.agent, payload)
            held.write(f"{mark('liv', payload)}\n")
    told = "() => window.replaced > 0 || document.body.innerHTML.includes('QlivQ')"
    look.page.wait_for_function(told)
    look.page.wait_for_timeout(600)
    look.look()
    held.end()
    look.page.wait_for_timeout(400)
    look.look()
    assert look.found() == []


def test_no_line_of_output_runs_any_of_it(look: Look, held: Held) -> None:
    look.open(f"/jobs/{held.id}/")
    for stream in ("stdout", "stderr"):
        held.write(
            "".join(f"{each}\n" for each in PAYLOADS) + "\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07\n", stream
        )
    expect(look.page.locator(".console .ln[data-k=err]", has_text="{% debug %}")).to_have_count(1)
    look.look()
    lines = look.page.locator(".console .ln[data-k=out] > span").all_inner_texts()
    assert lines[: len(PAYLOADS)] == PAYLOADS  # as text, every character of it
    held.end()
    expect(look.page.locator("#job-header .pill")).to_have_text("Succeeded")
    look.page.reload()
    look.look()
    assert look.found() == []


def test_a_field_that_is_not_escaped_is_found(look: Look, watch: Watch) -> None:
    """What `|safe` on a node's name would do: without it this test's eyes would prove nothing."""
    watch.expect("")

    def unescaped(route: Any, has_policy: bool) -> None:
        answer = route.fetch()
        text = answer.text()
        for escaped, plain in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x27;", "'")):
            text = text.replace(escaped, plain)
        left_out = {"content-length", "content-encoding", *([] if has_policy else ["content-security-policy"])}
        kept = {name: value for name, value in answer.headers.items() if name not in left_out}
        route.fulfill(status=answer.status, body=text, headers=kept)

    look.page.route("**/?view=table", lambda route: unescaped(route, has_policy=True))
    look.open("/?view=table")
    look.page.wait_for_timeout(500)
    assert look.foreign and look.dialogs == []
    assert any(each.startswith("csp: script-src") for each in watch.complaints)  # the policy held, and told
    look.page.unroute("**/?view=table")
    look.page.route("**/?view=table", lambda route: unescaped(route, has_policy=False))
    look.page.goto("/?view=table", wait_until="commit")
    look.page.wait_for_timeout(1000)
    assert any("alert 1" in each for each in look.dialogs)  # and without the policy it would have run
