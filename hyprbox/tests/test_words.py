"""Times, sizes and counts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hyprbox.lib import words

NOW = datetime(2026, 11, 23, 14, 32, 8, tzinfo=UTC)


def plain(text: str) -> str:
    return text.replace(words.NBSP, " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (12, "12 s"), (252, "4 min 12 s"), (7500, "2 h 05 min"), (270_000, "3 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert plain(words.duration(seconds)) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(0), "now"),
        (timedelta(seconds=3), "3 s ago"),
        (timedelta(minutes=12), "12 min ago"),
        (timedelta(hours=23), "23 h ago"),
        (timedelta(days=1), "22 Nov"),
        (timedelta(days=400), "19 Oct 2025"),
        (-timedelta(days=7, seconds=5), "in 7 d"),
        (-timedelta(days=6, hours=23, minutes=59, seconds=55), "in 7 d"),
        (-timedelta(hours=23, minutes=59, seconds=58), "in 1 d"),
        (-timedelta(hours=23, minutes=20), "in 23 h"),
        (-timedelta(minutes=59, seconds=59.9), "in 1 h"),
        (-timedelta(seconds=59.4), "in 59 s"),
        (-timedelta(seconds=0.5), "now"),
    ],
)
def test_moments(ago: timedelta, text: str) -> None:
    assert plain(words.moment(NOW - ago, NOW)) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 * 2**30, "64.0 GiB")])
def test_sizes(count: int, text: str) -> None:
    assert plain(words.size(count)) == text


def test_long_names_are_cut_in_the_middle() -> None:
    cut = words.middle("prod-eu-central-1b-kubernetes-worker-017", 20)
    assert len(cut) == 20 and cut.startswith("prod-eu-cent") and cut.endswith("er-017")
    assert words.middle("short", 20) == "short"


def test_plurals() -> None:
    assert [plain(words.plural(n, "query", "queries")) for n in (1, 2, 1000)] == [
        "1 query",
        "2 queries",
        "1,000 queries",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("web-1", "web-1"),
        (12, "12"),
        (True, "yes"),
        ({"is_active": False, "role": "viewer", "name": None}, "is_active: no, role: viewer, name: –"),
        (["read", "run"], "read, run"),
        ({"tags": ["a", "ü"]}, 'tags: ["a", "ü"]'),
        ([{"from": 1, "to": None}], '{"from": 1, "to": null}'),
        ({}, "–"),
        ([], "–"),
        ({str(n): n for n in range(30)}, "30 values, which an export has"),
    ],
)
def test_a_value_out_of_json(value: object, shown: str) -> None:
    assert words.fact(value) == shown
