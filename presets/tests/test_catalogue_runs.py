"""The presets that change things, run for real in a scratch machine: twice the same, and back again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from presets import catalogue, rendering
from presets.tests.helpers import run
from presets.tests.scratch import needs_room, play

pytestmark = pytest.mark.slow
NEED_SYSTEMD = ["journald-limit", "nginx-static-site", "time-sync"]
TWICE = "phase first check; phase apply apply; phase verify verify; phase second check\n"
CHANGED = {"first": 1, "apply": 0, "verify": 0, "second": 0}


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
@pytest.mark.parametrize("name", NEED_SYSTEMD)
@pytest.mark.parametrize("part", ["check", "apply"])
def test_without_systemd_it_says_so_and_changes_nothing(tmp_path: Path, name: str, part: str) -> None:
    preset = catalogue.builtin()[name]
    values = {"SERVER_NAME": "nowhere.test"} if name == "nginx-static-site" else {}
    done = run(tmp_path, rendering.render(preset, values).script, part)
    assert done.returncode == 69
    assert b"systemd does not run here" in done.stderr


@needs_room
def test_the_journal_limit_is_set_once_and_taken_back(tmp_path: Path) -> None:
    steps = (
        "mkdir -p /etc/systemd/journald.conf.d; mkdir -p /run/units; touch /run/units/systemd-journald.active\n"
        "file=/etc/systemd/journald.conf.d/60-hyprbox.conf; rm -f $file\n"
        + TWICE
        + "stat -c 'mode %a' $file; cat $file; phase rollback rollback; phase again rollback; [[ ! -e $file ]]\n"
        "echo old >$file; phase third apply; phase back rollback; grep -qx old $file\n"
    )
    result = play(tmp_path, "journald-limit", {"MAX_USE_MB": 200}, steps)
    assert result.exits == {**CHANGED, "rollback": 0, "again": 0, "third": 0, "back": 0}, result.output
    assert "mode 644" in result.output
    assert "SystemMaxUse=200M\n" in result.output
    assert "MaxRetentionSec=2592000\n" in result.output
    assert "--vacuum-size=200M" in result.output
    assert "so there is nothing to restore" in result.output


@needs_room
@pytest.mark.parametrize("chrony", [False, True])
@pytest.mark.parametrize("servers", ["", "0.pool.example.org time.example.org"])
def test_the_clock_is_set_up_once_and_put_back(tmp_path: Path, chrony: bool, servers: str) -> None:
    steps = (
        (
            'printf "#!/bin/sh\\n" >$ROOM/bin/chronyd; chmod 755 $ROOM/bin/chronyd; mkdir -p /etc/chrony/sources.d\n'
            if chrony
            else ""
        )
        + TWICE
        + "cat /etc/chrony/sources.d/hyprbox.sources /etc/systemd/timesyncd.conf.d/60-hyprbox.conf 2>/dev/null || true\n"
        "phase rollback rollback; cat /run/zone; ls /run/units\n"
        "[[ ! -e /etc/systemd/timesyncd.conf.d/60-hyprbox.conf && ! -e /etc/chrony/sources.d/hyprbox.sources ]]\n"
    )
    result = play(tmp_path, "time-sync", {"TIMEZONE": "Europe/Istanbul", "NTP_SERVERS": servers}, steps)
    assert result.exits == {**CHANGED, "rollback": 0}, result.output
    assert result.output.rstrip().endswith("Etc/UTC"), "the zone is back and no unit is left enabled or running"
    if servers and chrony:
        assert "server 0.pool.example.org iburst prefer\nserver time.example.org iburst prefer\n" in result.output
    elif servers:
        assert "[Time]\nNTP=0.pool.example.org time.example.org\n" in result.output


@needs_room
def test_an_unknown_time_zone_is_refused_before_anything_changes(tmp_path: Path) -> None:
    result = play(tmp_path, "time-sync", {"TIMEZONE": "Europe/Atlantis"}, "phase first check\n")
    assert result.exits == {"first": 78}
    assert "Europe/Atlantis" in result.output


@needs_room
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_a_site_is_served_and_taken_down_again(tmp_path: Path) -> None:
    steps = (
        TWICE
        + "(exec 3<>/dev/tcp/127.0.0.1/8123; printf 'GET /.git/config HTTP/1.0\\r\\nHost: site.test\\r\\n\\r\\n' >&3; head -n 1 <&3)\n"
        "stat -c 'root %a' /srv/scratch/www; ls /etc/nginx/sites-enabled\n"
        "phase rollback rollback\n"
        "[[ ! -e /srv/scratch/www && ! -e /etc/nginx/sites-available/hyprbox-site.test.conf && ! -L /etc/nginx/sites-enabled/hyprbox-site.test.conf ]]\n"
        "phase third check\n"
    )
    values = {"SERVER_NAME": "site.test", "PORT": 8123, "ROOT": "/srv/scratch/www"}
    result = play(tmp_path, "nginx-static-site", values, steps)
    assert result.exits == {**CHANGED, "rollback": 0, "third": 1}, result.output
    assert "nginx answers for site.test: HTTP/1.1 200 OK" in result.output
    assert "403 Forbidden" in result.output
    assert "root 755" in result.output


@needs_room
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_a_broken_neighbour_fails_the_apply_and_the_site_goes_back_to_what_it_was(tmp_path: Path) -> None:
    steps = (
        "(umask 022; mkdir -p /srv/scratch/www); phase apply apply\n"
        "sum=$(sha256sum /etc/nginx/sites-available/hyprbox-site.test.conf)\n"
        "echo '# touched by hand' >>/etc/nginx/sites-available/hyprbox-site.test.conf; phase edited check\n"
        "echo 'this is not nginx' >/etc/nginx/conf.d/broken.conf; phase broken apply; rm /etc/nginx/conf.d/broken.conf\n"
        "phase rollback rollback; grep -qx '# touched by hand' /etc/nginx/sites-available/hyprbox-site.test.conf\n"
        'phase repaired apply; [[ $(sha256sum /etc/nginx/sites-available/hyprbox-site.test.conf) == "$sum" ]]; phase verify verify\n'
    )
    values = {"SERVER_NAME": "site.test", "PORT": 8123, "ROOT": "/srv/scratch/www"}
    result = play(tmp_path, "nginx-static-site", values, steps)
    assert result.exits == {"apply": 0, "edited": 1, "broken": 1, "rollback": 0, "repaired": 0, "verify": 0}, (
        result.output
    )
    assert "has no index.html yet" in result.output


@needs_room
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_a_port_that_something_else_holds_is_left_alone(tmp_path: Path) -> None:
    steps = (
        "python3 -c 'import socket,time; s=socket.create_server((\"\", 8123)); time.sleep(60)' &\n"
        "for i in {1..100}; do if (: </dev/tcp/127.0.0.1/8123) 2>/dev/null; then break; fi; sleep 0.1; done\n"
        "phase apply apply; phase rollback rollback; kill %1; ls -A /var/lib/hyprbox-presets 2>/dev/null || true\n"
    )
    result = play(tmp_path, "nginx-static-site", {"SERVER_NAME": "site.test", "PORT": 8123}, steps)
    assert result.exits == {"apply": 73, "rollback": 0}, result.output
    assert "Something else listens on port 8123" in result.output


@needs_room
def test_a_file_that_is_no_swap_file_is_never_touched(tmp_path: Path) -> None:
    victim = tmp_path / "precious"
    victim.write_text("mine")
    result = play(
        tmp_path,
        "swap-file",
        {"SWAP_PATH": str(victim)},
        "phase check check; phase apply apply; phase rollback rollback\n",
    )
    assert result.exits == {"check": 73, "apply": 73, "rollback": 0}, result.output
    assert victim.read_text() == "mine"


@needs_room
def test_a_swap_file_in_memory_is_refused(tmp_path: Path) -> None:
    result = play(tmp_path, "swap-file", {"SWAP_PATH": "/run/swapfile"}, "phase check check\n")
    assert result.exits == {"check": 69}
    assert "tmpfs" in result.output
