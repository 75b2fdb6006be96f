"""Closing somebody's access, run for real in a fresh Debian: see root.py."""

from __future__ import annotations

import pytest

from presets.tests.root import Room

pytestmark = pytest.mark.slow

LEAVER = """
useradd --create-home --shell /bin/bash --groups sudo leaver; echo leaver:secret | chpasswd
useradd --create-home --groups sudo stays
install -d -m 700 -o leaver -g leaver /home/leaver/.ssh
echo 'ssh-ed25519 AAAA leaver' >/home/leaver/.ssh/authorized_keys
echo '0 4 * * * true' >/var/spool/cron/crontabs/leaver
"""
FACTS = "getent passwd leaver; getent shadow leaver; id leaver; pgrep --count --uid leaver || true"
WATCHED = ("/home", "/root", "/var/spool/cron")


def test_an_access_is_closed_and_opened_again_exactly(room: Room) -> None:
    result = room.life(
        "disable-user",
        {"ACCOUNT": "leaver"},
        setup=LEAVER,
        facts=FACTS,
        breaks="usermod --expiredate '' leaver",
        watch=WATCHED,
    )
    for open_way in ("its password", "authorized_keys", "the group sudo", "its crontab", "the account itself"):
        assert open_way in result.said["first"]
    assert "cannot log in any more" in result.said["verify"]


def test_what_somebody_runs_is_ended_and_only_that(room: Room) -> None:
    steps = (
        LEAVER
        + "runuser -u leaver -- setsid sleep 300 & runuser -u stays -- setsid sleep 300 &\n"
        + "for i in {1..100}; do if pgrep --uid leaver sleep && pgrep --uid stays sleep; then break; fi; sleep 0.1; done >/dev/null\n"
        + "phase first check; phase apply apply; phase verify verify\n"
        + "pgrep --uid stays sleep >/dev/null; ! pgrep --uid leaver\n"
        + "phase nobody check NOBODY; phase root check ROOT; phase system apply ROOT\n"
    )
    result = room.play(
        "disable-user",
        {"ACCOUNT": "leaver"},
        steps,
        also={"NOBODY": {"ACCOUNT": "unheard-of"}, "ROOT": {"ACCOUNT": "root"}},
    )
    assert result.exits == {"first": 1, "apply": 0, "verify": 0, "nobody": 0, "root": 73, "system": 73}, result.output
    assert "what it still runs" in result.said["first"]


def test_the_last_administrator_and_lines_in_sudoers_are_not_touched(room: Room) -> None:
    steps = (
        LEAVER
        + "gpasswd --delete stays sudo; facts() { getent shadow leaver; id leaver; }; keep before\n"
        + "phase last apply; same before; gpasswd --add stays sudo\n"
        + "echo 'leaver ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/leaver; keep named; phase named apply; same named\n"
    )
    result = room.play("disable-user", {"ACCOUNT": "leaver"}, steps)
    assert result.exits == {"last": 73, "named": 73}, result.output
    assert "the last who can become root" in result.said["last"]
    assert "/etc/sudoers.d/leaver:leaver ALL" in result.said["named"]
    assert not result.differences
