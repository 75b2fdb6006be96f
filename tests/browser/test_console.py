"""The job page's console: nothing lost, nothing doubled, nothing but text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.agent import Agent, Held
from tests.browser.conftest import Watch
from tests.house import House, wait_for


@pytest.fixture
def held(house: House, agent: Agent) -> Iterator[Held]:
    """A running job on `web-1`."""
    with house.api() as api:
        order = {"preset": "system-report", "variables": {}, "node_id": "web-1"}
        answer = api.post("/api/jobs", json=order)
        assert answer.status_code == 201, answer.text
    yield agent.take()


def lines(page: Page, kind: str = "out") -> list[str]:
    return page.locator(f".console .ln[data-k={kind}] > span").all_inner_texts()


def test_lines_arrive_while_it_runs_and_survive_reloads(ada: Page, held: Held) -> None:
    held.write("one\ntwo\nthr")
    ada.goto(f"/jobs/{held.id}/")
    expect(ada.locator(".console")).to_contain_text("thr")
    held.write("ee\nfour\n")
    expect(ada.locator(".console")).to_contain_text("four")
    assert lines(ada) == ["one", "two", "three", "four"]
    ada.reload()
    held.write("five\nhalf a ")
    expect(ada.locator(".console")).to_contain_text("half a")
    ada.reload()
    held.write("line\n")
    held.write("last, without an end")
    held.end()
    expect(ada.locator("#job-header .pill")).to_have_text("Succeeded")
    expected = ["one", "two", "three", "four", "five", "half a line", "last, without an end"]
    expect(ada.locator(".console .tail")).to_have_count(0)
    assert lines(ada) == expected
    ada.reload()
    assert lines(ada) == expected


def test_a_killed_server_loses_and_doubles_nothing(ada: Page, watch: Watch, house: House, held: Held) -> None:
    watch.expect("ERR_")
    ada.goto(f"/jobs/{held.id}/")
    held.write("before\nhalf ")
    expect(ada.locator(".console")).to_contain_text("half")
    house.find("uvicorn").kill()
    expect(ada.locator(".conn")).to_have_text("Reconnecting")
    wait_for(house.is_ready, seconds=40)
    held.write("a line\nafter\n")
    expect(ada.locator(".console")).to_contain_text("after", timeout=20_000)
    assert lines(ada) == ["before", "half a line", "after"]
    held.end()
    expect(ada.locator("#job-header .pill")).to_have_text("Succeeded")


def test_output_is_text_and_colours_are_classes(ada: Page, held: Held) -> None:
    ada.goto(f"/jobs/{held.id}/")
    evil = "<img src=x onerror=alert(1)> \x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jplain"
    held.write(f"{evil}\n")
    held.write("\x1b[1;33mbold warning\x1b[0m\n", stream="stderr")
    for _ in range(2):  # live, then rendered by the server
        expect(ada.locator(".ansi-red-fg")).to_have_text("red")
        expect(ada.locator(".ln[data-k=err] .ansi-yellow-fg.ansi-bold")).to_have_text("bold warning")
        assert lines(ada) == ["<img src=x onerror=alert(1)> red plain"]
        assert ada.locator(".console img").count() == 0
        ada.reload()
    held.end()


def test_streams_can_be_seen_apart_and_text_is_found(ada: Page, held: Held) -> None:
    held.write("to stdout\n")
    held.write("to stderr\n", stream="stderr")
    ada.goto(f"/jobs/{held.id}/")
    ada.get_by_role("link", name="stderr").click()
    expect(ada.locator(".ln[data-k=out]")).to_be_hidden()
    expect(ada.locator(".ln[data-k=err]")).to_be_visible()
    ada.get_by_role("link", name="All", exact=True).click()
    ada.get_by_label("Find in output").fill("to std")
    expect(ada.locator("[data-hits]")).to_have_text("2 found")
    held.end(3)
    expect(ada.locator("#job-header .pill")).to_have_text("Failed")
    expect(ada.locator("#job-facts")).to_contain_text("exit 3")


def test_a_viewer_sees_the_state_but_no_output(vera: Page, held: Held) -> None:
    held.write("a secret of this server\n")
    answer = vera.goto(f"/jobs/{held.id}/?tab=script")
    assert answer is not None
    html = answer.text()
    assert "a secret of this server" not in html and "hb_apply" not in html
    expect(vera.locator("main")).to_contain_text("not shown to viewers")
    held.end()
    expect(vera.locator("#job-header .pill")).to_have_text("Succeeded")
    assert vera.request.get(f"/api/jobs/{held.id}/output?stream=stdout").status == 403
    assert vera.request.get(f"/api/jobs/{held.id}/stream").status == 403


def test_four_mib_are_shown_to_their_end_with_the_last_lines(ada: Page, held: Held) -> None:
    ada.goto(f"/jobs/{held.id}/")
    numbered = "".join(f"{number:07d} {'x' * 55}\n" for number in range(64 * 1024))
    for at in range(0, len(numbered), 256 * 1024):
        held.write(numbered[at : at + 256 * 1024])
    held.end()
    expect(ada.locator(".console .tail")).to_have_count(0, timeout=60_000)
    shown = lines(ada)
    assert [int(line[:7]) for line in shown] == list(range(64 * 1024 - len(shown), 64 * 1024))
    assert len(shown) in (1999, 2000)  # what HyprBox itself says is a line as well
    expect(ada.locator("[data-shown]")).to_have_text("2000")


COUNT_SPLIT = """
    window.split = 0;
    const { split } = String.prototype;
    String.prototype.split = function (...by) { window.split += this.length; return split.apply(this, by); };
"""


def test_a_line_without_end_is_read_once(ada: Page, held: Held) -> None:
    """What came before is not gone through again with each piece; a carriage return begins the line anew."""
    ada.add_init_script(COUNT_SPLIT)
    ada.goto(f"/jobs/{held.id}/")
    piece = "y" * 64 * 1024
    for _ in range(16):
        held.write(piece)
        expect(ada.locator(".console .ln[data-k=out]")).to_have_count(1)
    expect(ada.locator(".console")).to_contain_text(f"and {16 * 64 * 1024 - 8000:,} more characters")
    assert len(piece) * 16 <= ada.evaluate("window.split") < len(piece) * 32
    held.write("\r50 %\r")
    held.write("\r\r100 %\r")
    expect(ada.locator(".console .ln[data-k=out] > span")).to_have_text("100 %")
    held.write("done\n")
    expect(ada.locator(".console .ln[data-k=out] > span")).to_have_text("done")
    held.end()


COUNT_LISTENERS = """
    window.leaving = 0;
    const add = window.addEventListener;
    window.addEventListener = function (name, ...more) {
      window.leaving += name === 'pagehide';
      return add.call(this, name, ...more);
    };
"""


@pytest.mark.parametrize("is_job", [True, False])
def test_a_stream_that_begins_anew_leaves_no_listener_behind(ada: Page, watch: Watch, held: Held, is_job: bool) -> None:
    watch.expect("503")
    refused: list[str] = []

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(status=503, body="")

    ada.add_init_script(COUNT_LISTENERS)
    ada.route("**/stream?*" if is_job else "**/events/?*", refuse)
    ada.goto(f"/jobs/{held.id}/" if is_job else "/jobs/")
    wait_for(lambda: bool(ada.wait_for_timeout(100) or len(refused) == 3), seconds=60)
    assert ada.evaluate("window.leaving") == (2 if is_job else 1)
    held.end()
