"""The presets that decide who gets into a server, run for real in a fresh Debian: real sshd, real log-ins, the room's own firewall."""

from __future__ import annotations

import base64

import pytest

from presets.tests.root import Room

pytestmark = pytest.mark.slow

KEYS = """
ssh-keygen -q -t ed25519 -N '' -C ada@laptop -f /tmp/key; chmod 600 /tmp/key
has_key() { install -d -m 700 -o "$1" "$2/.ssh"; install -m 600 -o "$1" /tmp/key.pub "$2/.ssh/authorized_keys"; }
enter() { ssh -F none -i /tmp/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$1@127.0.0.1" "${@:2}" 2>&1; }
reload_ssh() { # sshd reads its settings anew under the same number; until it listens again it refuses, and hears no second reload
  sleep 0.5; systemctl reload ssh
  for ((try = 0; try < 100; try++)); do sleep 0.1; if enter root true >/dev/null; then return 0; fi; done
  echo 'sshd does not listen again' >&2; return 1
}
"""
ACCOUNTS = "cat /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid /etc/subgid"


def test_ssh_takes_keys_only_and_everything_comes_back(room: Room) -> None:
    result = room.life(
        "ssh-hardening",
        {"MAX_TRIES": 3},
        setup=KEYS + "has_key root /root; systemctl start ssh; enter root true",
        facts="sshd -T",
        breaks="echo 'PasswordAuthentication yes' >/etc/ssh/sshd_config.d/00-aaa.conf",
        mends="rm /etc/ssh/sshd_config.d/00-aaa.conf; reload_ssh; enter root echo entered",
    )
    assert "Can still enter and administer: root" in result.said["apply"]
    assert "Permission denied (publickey)." in result.said["verify"]
    assert "passwordauthentication no" in result.said["broken_verify"]
    assert "entered\n" in result.output


def test_a_service_that_still_runs_with_the_old_settings_is_noticed(room: Room) -> None:
    steps = (
        KEYS
        + "has_key root /root; systemctl start ssh; phase apply apply; file=/etc/ssh/sshd_config.d/00-hyprbox.conf\n"
        "mv $file /tmp/; reload_ssh; mv /tmp/00-hyprbox.conf $file; phase check check; phase verify verify\n"
    )
    result = room.play("ssh-hardening", {}, steps)
    assert result.exits == {"apply": 0, "check": 0, "verify": 1}, result.output
    assert "still offers passwords" in result.said["verify"]


def test_ssh_never_shuts_everybody_out(room: Room) -> None:
    steps = (
        KEYS + "systemctl start ssh; keep original\n"
        "phase nobody apply; has_key root /root; chmod 666 /root/.ssh/authorized_keys; phase open apply\n"
        "chmod 600 /root/.ssh/authorized_keys; phase no_root apply no_root\n"
        "useradd -m -s /bin/bash ada; has_key ada /home/ada; phase no_admin apply no_root; usermod -aG sudo ada\n"
        "echo 'AllowUsers eve' >/etc/ssh/sshd_config.d/50-some.conf; phase not_allowed apply no_root\n"
        "echo 'AllowGroups su*' >/etc/ssh/sshd_config.d/50-some.conf\n"
        "sed -i.bak /Include/d /etc/ssh/sshd_config; phase no_include apply no_root; mv /etc/ssh/sshd_config.bak /etc/ssh/sshd_config\n"
        "echo 'AuthenticationMethods publickey,keyboard-interactive' >>/etc/ssh/sshd_config\n"
        "sed -i '/^Kbd/s/no/yes/' /etc/ssh/sshd_config; phase second_factor apply no_root\n"
        "sed -i /AuthenticationMethods/d /etc/ssh/sshd_config; echo 'Nonsense yes' >>/etc/ssh/sshd_config; phase broken apply no_root\n"
        "sed -i /Nonsense/d /etc/ssh/sshd_config; [[ ! -e /etc/ssh/sshd_config.d/00-hyprbox.conf ]]\n"
        "phase good apply no_root; phase verify verify no_root; enter ada echo entered; enter root true || true\n"
    )
    result = room.play("ssh-hardening", {}, steps, also={"no_root": {"ROOT_LOGIN": "no"}})
    refused = ("nobody", "open", "no_root", "no_admin", "not_allowed", "no_include", "second_factor", "broken")
    assert result.exits == {**dict.fromkeys(refused, 78), "good": 0, "verify": 0}, result.output
    assert "with the preset admin-user" in result.said["nobody"]
    assert "may be written by others" in result.said["open"]
    assert "Include /etc/ssh/sshd_config.d/*.conf" in result.said["no_include"]
    assert "a code beside their key" in result.said["second_factor"]
    assert "Can still enter and administer: ada" in result.said["good"]
    assert result.output.endswith("entered\nroot@127.0.0.1: Permission denied (publickey).\r\n")


def test_a_password_is_enough_where_passwords_stay(room: Room) -> None:
    steps = (
        "useradd -m -s /bin/bash -G sudo ada; phase locked apply; echo ada:correct-horse | chpasswd; systemctl start ssh\n"
        "phase apply apply; phase verify verify; echo 'Ciphers aes256-ctr' >>/etc/ssh/sshd_config; phase own apply\n"
        "sshd -T | grep ^ciphers\n"
    )
    result = room.play("ssh-hardening", {"PASSWORDS": True, "ROOT_LOGIN": "no"}, steps)
    assert result.exits == {"locked": 78, "apply": 0, "verify": 0, "own": 0}, result.output
    assert result.output.endswith("ciphers aes256-ctr\n"), "a stricter list of the administrator's stays"


def public_key(comment: str = "ada@laptop") -> str:
    """A key of the right form; that nobody has the other half does not matter here."""
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-ed25519", bytes(range(32))))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {comment}"


@pytest.mark.parametrize("setup", ["", "useradd -m -s /bin/sh ada; echo ada:x | chpasswd; chmod 775 /home/ada"])
def test_an_administrator_is_made_and_unmade(room: Room, setup: str) -> None:
    result = room.life(
        "admin-user",
        {"ACCOUNT": "ada", "PUBLIC_KEY": public_key()},
        setup=setup,
        facts=ACCOUNTS,
        breaks="cp /etc/sudoers.d/hyprbox-ada /tmp; sed -i s/NOPASSWD:// /etc/sudoers.d/hyprbox-ada",
        watch=("/etc/sudoers.d", "/home"),
    )
    assert "ada became root with sudo." in result.said["verify"]
    assert ("The account ada is removed." if not setup else "ada is as it was") in result.said["undo"]
    assert "may not become root" in result.said["broken_verify"]


def test_an_administrator_enters_with_the_key_and_becomes_root(room: Room) -> None:
    steps = (
        KEYS + "systemctl start ssh; quoted=$(cat /tmp/key.pub)\n"
        "sed -i \"s|^readonly PUBLIC_KEY=.*|readonly PUBLIC_KEY='$quoted'|\" /room/script.sh\n"
        "phase apply apply; phase verify verify; enter ada sudo -n id -u\n"
        "install -d -o ada /home/ada/elsewhere; rm -rf /home/ada/.ssh; ln -s /root /home/ada/.ssh; phase astray apply\n"
        "ls -A /root/.ssh /root/authorized_keys || true\n"
    )
    result = room.play("admin-user", {"ACCOUNT": "ada", "PUBLIC_KEY": public_key()}, steps)
    assert result.exits == {"apply": 0, "verify": 0, "astray": 1}, result.output
    assert "\n0\n" in result.output, "ada became root over SSH"
    assert "cannot access '/root/authorized_keys'" in result.output


def test_accounts_of_the_system_and_broken_keys_are_refused(room: Room) -> None:
    short = {"ACCOUNT": "ada", "PUBLIC_KEY": public_key().replace("AAAA", "AAA", 1)}
    steps = "phase root check; phase root_apply apply; phase short check short; phase with apply with; phase so verify with\n"
    also = {"short": short, "with": {"ACCOUNT": "eve", "PUBLIC_KEY": public_key(), "SUDO": "with-password"}}
    result = room.play("admin-user", {"ACCOUNT": "www-data", "PUBLIC_KEY": public_key()}, steps, also=also)
    assert result.exits == {"root": 73, "root_apply": 73, "short": 78, "with": 0, "so": 0}, result.output
    assert "is no whole SSH key" in result.said["short"]


WITH_UFW = """
apt-get -y -q install ufw >/dev/null 2>&1; ufw allow 8080/tcp; printf 'Port 22\\nPort 2222\\n' >/etc/ssh/sshd_config.d/50-port.conf
systemctl start ssh
"""


def test_the_firewall_lets_ssh_in_and_is_taken_down_again(room: Room) -> None:
    result = room.life(
        "ufw-baseline",
        {"OPEN_PORTS": "80/tcp 60000:61000/udp", "LIMIT_SSH": True},
        setup=WITH_UFW,
        facts="ufw status verbose; systemctl is-active ufw; iptables -S | grep -vE '^-N ufw|^-A ufw|ufw-'",
        breaks="iptables -P INPUT ACCEPT; ufw delete allow 80/tcp",
        mends="ufw reload",
        watch=("/etc/ufw", "/etc/default"),
    )
    assert "ufw allow 8080/tcp" in result.said["verify"], "a rule that was there stays"
    assert "ufw limit 22/tcp" in result.said["verify"]
    assert "ufw limit 2222/tcp" in result.said["verify"]
    assert "The kernel has the rules." in result.said["verify"]
    assert "ufw allow 80/tcp" in result.said["broken_verify"]


def test_the_firewall_is_installed_and_really_closes(room: Room) -> None:
    steps = (
        "systemctl start ssh; ip link add br0 type bridge; ip addr add 192.0.2.1/24 dev br0; ip link set br0 up\n"
        "phase first check; phase apply apply; phase verify verify; phase again check\n"
        "iptables -P INPUT ACCEPT; phase open verify; iptables -P INPUT DROP\n"
        "iptables -F ufw-user-input; phase shut verify; phase rollback rollback; ufw status; iptables -S | grep '^-P'\n"
    )
    result = room.play("ufw-baseline", {"SSH_FROM": "192.0.2.7/32"}, steps)
    assert result.exits == {"first": 1, "apply": 0, "verify": 0, "again": 0, "open": 1, "shut": 1, "rollback": 0}, (
        result.output
    )
    assert "lets in what no rule names" in result.said["open"]
    assert "does not let SSH in on port 22" in result.said["shut"]
    assert "Status: inactive\n-P INPUT ACCEPT\n" in result.output


def test_the_firewall_never_shuts_out_who_is_connected(room: Room) -> None:
    steps = (
        KEYS
        + "apt-get -y -q install ufw >/dev/null 2>&1; has_key root /root; systemctl start ssh; enter root sleep 60 &\n"
        "for i in {1..100}; do if ss -Htn state established | grep -q ':22 '; then break; fi; sleep 0.1; done; sleep 0.5\n"
        "phase outside apply; phase inside apply inside; ufw status; phase nowhere check nowhere\n"
    )
    also = {"inside": {"SSH_FROM": "127.0.0.0/8"}, "nowhere": {"OPEN_PORTS": "80/tcp 70000/tcp"}}
    result = room.play("ufw-baseline", {"SSH_FROM": "203.0.113.0/24"}, steps, also=also)
    assert result.exits == {"outside": 78, "inside": 0, "nowhere": 78}, result.output
    assert "outside of 203.0.113.0/24: 127.0.0.1. They could not come back." in result.said["outside"]
    assert "no port 70000" in result.said["nowhere"]


def test_newer_ssh_has_a_program_of_its_own_for_each_session(room: Room) -> None:
    session = 'users:(("sshd-session",pid=9,fd=4),("sshd-session",pid=8,fd=4))'
    tools = {
        "ss": f"""case "$*" in *established*) echo '0 0 192.0.2.1:2222 198.51.100.9:5000 {session}' ;; *) exec /usr/bin/ss "$@" ;; esac"""
    }
    steps = (
        "apt-get -y -q install ufw >/dev/null 2>&1; systemctl start ssh; phase outside apply\n"
        "phase everywhere apply everywhere; ufw show added\n"
    )
    result = room.play("ufw-baseline", {"SSH_FROM": "203.0.113.0/24"}, steps, also={"everywhere": {}}, tools=tools)
    assert result.exits == {"outside": 78, "everywhere": 0}, result.output
    assert "outside of 203.0.113.0/24: 198.51.100.9." in result.said["outside"]
    assert "ufw allow 2222/tcp" in result.output and "ufw allow 22/tcp" in result.output


def test_a_private_network_never_takes_over_all_traffic(room: Room) -> None:
    private = {"ADDRESS": "10.8.0.7", "PEER_PUBLIC_KEY": "A" * 43 + "=", "PEER_NETWORKS": "10.0.0.0/8 fd00::/8"}
    also = {
        name: {**private, "PEER_NETWORKS": networks}
        for name, networks in {
            "all": "0.0.0.0/0",
            "halves": "0.0.0.0/1 128.0.0.0/1",
            "six": "10.8.0.0/24 ::/00",
        }.items()
    }
    steps = "phase fine check; " + "".join(
        f"phase {name} check {name}; phase {name}_apply apply {name}\n" for name in also
    )
    result = room.play("wireguard-peer", private, steps, also=also)
    refused = {label: 78 for name in also for label in (name, f"{name}_apply")}
    assert result.exits == {"fine": 1, **refused}, result.output


AUTH_LOG = "echo \"$(date '+%b %d %H:%M:%S') room sshd[7]: Server listening on 0.0.0.0 port 22.\" >/var/log/auth.log\n"


def test_fail2ban_watches_ssh_and_goes_back(room: Room) -> None:
    result = room.life(
        "fail2ban",
        {"MAX_RETRY": 3, "NEVER_BAN": "203.0.113.7 2001:db8::/32"},
        setup=AUTH_LOG + "apt-get -y -q install fail2ban >/dev/null 2>&1; systemctl restart fail2ban; sleep 2",
        facts="systemctl is-active fail2ban; for i in {1..100}; do fail2ban-client status sshd >/dev/null 2>&1 && break; sleep 0.2; done\n"
        "for each in maxretry findtime bantime ignoreip; do fail2ban-client get sshd $each | cut -c 4- | sort; done",
        breaks="fail2ban-client set sshd bantime 1",
        mends="sleep 2",
        watch=("/etc/fail2ban",),
    )
    assert "The running fail2ban has 1 for bantime." in result.said["broken_verify"]
    assert "A trial ban reached the firewall and was lifted again." in result.said["verify"]


def test_fail2ban_is_installed_and_bans_who_fails_too_often(room: Room) -> None:
    steps = (
        AUTH_LOG
        + "echo 'Port 2222' >/etc/ssh/sshd_config.d/50-port.conf; phase first check; phase apply apply; phase verify verify\n"
        "for n in 1 2 3; do for from in 198.51.100.9 203.0.113.7; do\n"
        "  echo \"$(date '+%b %d %H:%M:%S') room sshd[7]: Failed password for root from $from port 4242$n ssh2\" >>/var/log/auth.log; done; done\n"
        "for try in $(seq 30); do if iptables -S | grep -q 198.51.100.9; then break; fi; sleep 0.5; done; sleep 1; iptables -S\n"
        "cp /var/log/auth.log /var/log/auth.log.1; : >/var/log/auth.log; phase rotated check; cp /var/log/auth.log.1 /var/log/auth.log\n"
        "phase rollback rollback; systemctl is-active fail2ban || true; iptables -S | grep 198.51 || true\n"
    )
    result = room.play("fail2ban", {"MAX_RETRY": 3, "NEVER_BAN": "203.0.113.7"}, steps)
    assert result.exits == {"first": 1, "apply": 0, "verify": 0, "rotated": 0, "rollback": 0}, result.output
    assert "-s 198.51.100.9/32 -j REJECT" in result.output
    assert "--dports 2222" in result.output
    assert "203.0.113.7/32" not in result.output
    assert result.output.endswith("inactive\n"), "stopped, and the ban is gone"
