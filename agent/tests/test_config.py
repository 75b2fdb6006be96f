"""Settings: where they come from, and one clear sentence for each that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import config
from agent.config import BadSetting
from agent.tests.plane import TOKEN

GOOD = {"HYPRBOX_API_URL": "https://hyprbox.example", "HYPRBOX_NODE_TOKEN": TOKEN, "HYPRBOX_NODE_ID": "web-1"}
NO_FILE = Path("/nonexistent")


def load(**over: str) -> config.Config:
    return config.load({}, {**GOOD, **over}, NO_FILE)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2), ("2s", 2), ("1m", 60), ("10", 10), (" 5 s ", 5), ("1h", 3600), ("90S", 90)]
)
def test_an_interval_is_a_number_with_or_without_a_unit(text, seconds):
    assert load(HYPRBOX_INTERVAL=text).interval == seconds


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "2x", "fast", "s", "2h", "99999999999", "1m30s", "１"])
def test_a_bad_interval_names_itself_and_what_is_right(text):
    with pytest.raises(BadSetting) as caught:
        load(HYPRBOX_INTERVAL=text)
    assert text in str(caught.value) and "10s" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000",
        "http://127.0.0.1",
        "http://127.9.9.9:1",
        "http://[::1]:8000",
        "https://a.example/prefix/",
    ],
)
def test_addresses_that_may_be_used(url):
    assert load(HYPRBOX_API_URL=url).api_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://hyprbox.example",
        "http://127.evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://10.0.0.1",
        "ftp://hyprbox.example",
        "hyprbox.example",
        "https://",
        "https://user:pass@hyprbox.example",
        "https://hyprbox.example?x=1",
        "https://hyprbox.example:99999",
        "https://[::1",
    ],
)
def test_addresses_that_may_not(url):
    with pytest.raises(BadSetting, match="HYPRBOX_API_URL"):
        load(HYPRBOX_API_URL=url)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HYPRBOX_NODE_ID", "-web"),
        ("HYPRBOX_NODE_ID", "a" * 64),
        ("HYPRBOX_NODE_ID", "web 1"),
        ("HYPRBOX_STATE_DIR", "relative/path"),
        ("HYPRBOX_LOG_LEVEL", "LOUD"),
        ("HYPRBOX_KEYS_SHA256", "abc"),
        ("HYPRBOX_STOP_JOBS", "maybe"),
        ("HYPRBOX_REGION", "x" * 64),
        ("HYPRBOX_NODE_TOKEN", "hbnt_short"),
        ("HYPRBOX_NODE_TOKEN_FILE", "/nonexistent/token"),
    ],
)
def test_each_bad_setting_is_named(name, value):
    environ = {**GOOD, name: value}
    if name == "HYPRBOX_NODE_TOKEN_FILE":
        del environ["HYPRBOX_NODE_TOKEN"]
    with pytest.raises(BadSetting, match=name):
        config.load({}, environ, NO_FILE)


@pytest.mark.parametrize("name", ["HYPRBOX_API_URL", "HYPRBOX_NODE_TOKEN"])
def test_what_is_needed_and_missing_is_named(name):
    with pytest.raises(BadSetting, match=f"{name} is not set"):
        config.load({}, {key: value for key, value in GOOD.items() if key != name}, NO_FILE)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    path = tmp_path / "env"
    path.write_text("# comment\nHYPRBOX_INTERVAL=3\nHYPRBOX_REGION='eu west'\nHYPRBOX_LOG_LEVEL=\"error\"\n\n")
    found = config.load(
        {"HYPRBOX_INTERVAL": "1"}, {**GOOD, "HYPRBOX_INTERVAL": "2", "HYPRBOX_LOG_LEVEL": "debug"}, path
    )
    assert (found.interval, found.region, found.log_level) == (1, "eu west", "DEBUG")


def test_a_bad_line_is_named_but_not_shown(tmp_path):
    path = tmp_path / "env"
    path.write_text(f"HYPRBOX_INTERVAL=3\n{TOKEN}\n")
    with pytest.raises(BadSetting, match="line 2") as caught:
        config.load({}, GOOD, path)
    assert TOKEN[5:20] not in str(caught.value)


def test_the_token_may_come_from_a_file_and_is_never_shown(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    environ = {key: value for key, value in GOOD.items() if key != "HYPRBOX_NODE_TOKEN"}
    found = config.load({}, {**environ, "HYPRBOX_NODE_TOKEN_FILE": str(path)}, NO_FILE)
    assert found.token == TOKEN
    assert TOKEN not in repr(found)
    with pytest.raises(BadSetting) as caught:
        load(HYPRBOX_NODE_TOKEN=TOKEN + "!")
    assert TOKEN not in str(caught.value)
