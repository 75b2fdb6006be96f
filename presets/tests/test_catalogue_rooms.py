"""The presets of a server's baseline, run for real in a fresh Debian: see root.py for what that shows and what not."""

from __future__ import annotations

import pytest

from presets.tests.root import Room

pytestmark = pytest.mark.slow


def test_a_server_is_named_and_gets_its_old_name_back(room: Room) -> None:
    result = room.life(
        "hostname",
        {"HOST_NAME": "web-1.example.org"},
        setup="printf '203.0.113.5 web-1 shop # public\\n' >>/etc/hosts; mkdir -p /etc/cloud/cloud.cfg.d",
        facts="uname -n",
        breaks="hostname elsewhere",
    )
    assert "room is now web-1.example.org." in result.said["apply"]
    assert "The server is called elsewhere" in result.said["broken_verify"]


def test_updates_install_themselves_and_the_package_goes_again(room: Room) -> None:
    result = room.life(
        "unattended-upgrades",
        {"SCOPE": "distribution", "LEAVE_ALONE": "g++ mariadb-server", "AUTO_REBOOT": True},
        setup="systemctl enable --now apt-daily.timer apt-daily-upgrade.timer; systemctl disable --now apt-daily.timer\n"
        "systemctl mask apt-daily-upgrade.service",
        facts="apt-config dump | grep -i unattended; systemctl is-active apt-daily.timer; command -v unattended-upgrade; "
        "systemctl is-enabled apt-daily-upgrade.service || true",
        breaks="echo 'APT::Periodic::Unattended-Upgrade \"0\";' >/etc/apt/apt.conf.d/zz-later",
        mends="rm /etc/apt/apt.conf.d/zz-later",
        watch=("/etc/apt", "/etc/systemd"),
    )
    assert "is not installed" in result.said["first"]
    assert "origin=Debian,codename=bookworm-security,label=Debian-Security" in result.said["verify"]
    assert "mariadb-server$" in result.said["verify"]
    assert 'APT::Periodic::Unattended-Upgrade "1";' in result.said["broken_verify"]


NEWER_KERNEL = "touch /boot/vmlinuz-$(uname -r) /boot/vmlinuz-999.0.0-1-amd64\n"
RESTART_TOOLS = {
    # What systemd-run makes: a timer that is active.
    "systemd-run": 'mkdir -p /run/systemd/system; : >/run/systemd/system/hyprbox-reboot.timer; echo "$*"; systemctl start hyprbox-reboot.timer',
    "who": "cat /run/people 2>/dev/null || true",
}


def test_a_restart_is_announced_once_and_called_off(room: Room) -> None:
    steps = (
        "phase idle check\n"
        "touch /run/reboot-required; echo linux-image-amd64 >/run/reboot-required.pkgs\n"
        "echo 'ada pts/0' >/run/people; phase people check; rm /run/people\n"
        "phase first check; phase apply apply; phase verify verify; phase second check\n"
        "cp /run/units/hyprbox-reboot.timer.active /run/before; phase again apply; cmp /run/before /run/units/hyprbox-reboot.timer.active\n"
        "phase kept rollback; systemctl stop hyprbox-reboot.timer; phase broken verify; phase redo apply\n"
        "phase rollback rollback; phase off verify; systemctl is-active hyprbox-reboot.timer || true\n"
        "rm /run/reboot-required; " + NEWER_KERNEL + "phase kernel check\n"
        "touch /boot/initrd.img-$(uname -r); phase no_initrd check\n"
    )
    result = room.play("reboot-if-required", {"DELAY": "5m"}, steps, tools=RESTART_TOOLS)
    good = dict.fromkeys(("idle", "apply", "verify", "second", "again", "kept", "redo", "rollback"), 0)
    bad = {"people": 75, "first": 1, "broken": 1, "off": 1, "kernel": 1, "no_initrd": 78}
    assert result.exits == good | bad, result.output
    assert "linux-image-amd64" in result.said["first"]
    assert "--on-active=300s" in result.said["apply"]
    assert "announced no restart" in result.said["kept"], "the second apply announced nothing, so it calls nothing off"
    assert "ada" in result.said["people"]
    assert "999.0.0-1-amd64 is installed" in result.said["kernel"]


# The machine's own kernel must not be changed: files stand in for its settings, while net.* is the room's own and real.
KERNEL_FILES = """
mkdir /run/settings; cp -r /proc/sys/kernel /proc/sys/fs /run/settings/ 2>/dev/null || true
mkdir -p /run/settings/kernel/yama
echo 0 >/run/settings/kernel/kptr_restrict; echo 2 >/run/settings/kernel/yama/ptrace_scope; echo 0 >/run/settings/kernel/dmesg_restrict
for each in kernel fs; do mount --bind /run/settings/$each /proc/sys/$each; done
ip link add name eth0 type bridge
"""


def test_kernel_settings_are_set_and_set_back(room: Room) -> None:
    result = room.life(
        "sysctl-hardening",
        {"REVERSE_PATH": "strict", "LOG_MARTIANS": True},
        setup=KERNEL_FILES,
        facts="sysctl -a --pattern '^net.ipv[46].(conf|icmp|tcp)|^fs.(prot|suid)|^kernel.(kptr|dmesg|yama|rand|unpriv)' 2>&1",
        breaks="sysctl -qw net.ipv4.conf.eth0.rp_filter=0",
        mends="sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
    )
    assert "net.ipv4.conf.eth0.rp_filter: 0 -> 1" in result.said["apply"]
    assert "net.ipv4.conf.eth0.rp_filter is 0, not 1." in result.said["broken_verify"]
    assert "ptrace_scope" not in result.said["apply"], "what is stricter stays"
    assert "kernel.kptr_restrict: 0 -> 1" in result.said["apply"]


def test_kernel_settings_that_another_file_undoes_are_named(room: Room) -> None:
    steps = (
        "phase apply apply; phase verify verify; cat /etc/sysctl.d/99-zz-hyprbox-hardening.conf\n"
        "sysctl --system >/dev/null 2>&1 || true; phase after_start verify\n"
        "echo 'net.ipv4.tcp_syncookies = 0' >/etc/sysctl.d/zzz.conf; phase undone verify\n"
    )
    result = room.play("sysctl-hardening", {"KERNEL": False}, steps)
    assert result.exits == {"apply": 0, "verify": 0, "after_start": 0, "undone": 1}, result.output
    assert "net/ipv4/conf/*/rp_filter = 2\n" in result.output
    assert "/etc/sysctl.d/zzz.conf sets again" in result.said["undone"]


def test_kernel_settings_of_a_container_are_left_to_its_host(room: Room) -> None:
    result = room.play("sysctl-hardening", {}, "phase first check\n")
    assert result.exits == {"first": 69} or "kernel" not in result.said["first"], result.output


CLUTTER = """
rm -f /var/cache/apt/archives/*.deb; head -c 3M /dev/urandom >/var/cache/apt/archives/old_1_amd64.deb
for each in syslog syslog.1 syslog.2.gz app-20200101 app.log shop.log-20200101.gz live.2024; do head -c 1M /dev/urandom >/var/log/$each; done
mkdir -p /var/crash /var/log/journal/x; echo >/var/crash/a.crash; echo >/var/log/journal/x/system.1; echo >/var/log/fresh.log.1
touch -d '40 days ago' /var/log/syslog* /var/log/app* /var/log/shop* /var/log/live* /var/crash/a.crash /var/log/journal/x/system.1
"""


def test_space_is_freed_and_what_is_live_stays(room: Room) -> None:
    result = room.life(
        "disk-cleanup",
        {"WORTH_MB": 4},
        setup=CLUTTER,
        breaks="head -c 9M /dev/urandom >/var/cache/apt/archives/again_1_amd64.deb",
        rollback=False,
        watch=("/etc", "/var/log", "/var/crash"),
    )
    assert "Together 7 MiB could be freed." in result.said["first"]
    gone = result.said["apply"]
    for name in ("syslog.1", "syslog.2.gz", "app-20200101", "shop.log-20200101.gz", "/var/crash/a.crash"):
        assert name in gone
    for name in ("/var/log/syslog\n", "app.log", "live.2024", "fresh", "journal"):
        assert name not in gone


def test_nothing_is_cleaned_that_was_not_asked_for(room: Room) -> None:
    nothing = {"DOWNLOADED_PACKAGES": False, "LOGS_OLDER_THAN": "", "WORTH_MB": 0}
    steps = (
        CLUTTER
        + "apt-get -q -y install --no-install-recommends whois >/dev/null 2>&1; apt-mark auto whois >/dev/null; keep all\n"
        "phase none check; phase apply apply; same all; phase unused check unused; phase remove apply unused; phase verify verify unused\n"
        "command -v whois || echo whois is gone\n"
    )
    also = {"unused": {**nothing, "UNUSED_PACKAGES": True}}
    result = room.play(
        "disk-cleanup",
        nothing,
        "touch /tmp/x\n" + steps.replace("rm -f /var/cache/apt/archives/*.deb; ", ""),
        also=also,
    )
    assert result.exits == {"none": 0, "apply": 0, "unused": 1, "remove": 0, "verify": 0}, result.output
    assert not result.differences
    assert "Unused packages: whois" in result.said["unused"]
    assert result.output.endswith("whois is gone\n")


def test_logs_are_rotated_by_a_rule_of_ones_own(room: Room) -> None:
    result = room.life(
        "logrotate-check",
        {"OWN_LOGS": "/var/log/shop/*.log /srv/app.log", "LARGEST_MB": 2},
        setup="mkdir -p /var/log/shop; head -c 3M /dev/zero >/var/log/shop/a.log; head -c 3M /dev/zero >/srv/app.log\n"
        "systemctl enable --now logrotate.timer; systemctl disable --now logrotate.timer",
        facts="systemctl is-active logrotate.timer",
        breaks="echo 'rotate lots' >/etc/logrotate.d/broken",
        mends="rm /etc/logrotate.d/broken",
        watch=("/etc",),
    )
    assert "is another one" in result.said["first"]
    assert "lots" in result.said["broken_verify"]


def test_a_log_that_no_rule_rotates_is_named(room: Room) -> None:
    steps = (
        "head -c 3M /dev/zero >/var/log/lonely; head -c 3M /dev/zero >/srv/app.log; phase apply apply; phase lonely verify\n"
        "rm /var/log/lonely; phase verify verify; stat -c %s /srv/app.log /srv/app.log.1\n"
        "sed -i s,/srv/app.log,/srv/other.log, /var/lib/logrotate/status; phase unknown verify\n"
        "touch -d '5 days ago' /var/lib/logrotate/status; phase stale check\n"
    )
    result = room.play("logrotate-check", {"LARGEST_MB": 2, "OWN_LOGS": "/srv/app.log"}, steps)
    assert result.exits == {"apply": 0, "lonely": 1, "verify": 0, "unknown": 1, "stale": 1}, result.output
    assert "/var/log/lonely" in result.said["lonely"]
    assert "\n0\n3145728\n" in result.output
    assert "does not know /srv/app.log" in result.said["unknown"]
    assert "ran last on" in result.said["stale"]
