"""The presets that set up services, run for real in a fresh Debian with its own systemd: see root.py.

Each goes through one story: it installs what is missing, proves it, takes itself back, comes again, changes nothing the second time,
is broken, notices, and is brought back.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from presets.tests.root import Result, Room

pytestmark = pytest.mark.slow

STORY = """
phase first check
phase apply apply; phase verify verify; phase second check; keep applied
phase undo rollback; undone
phase redo apply; redone; phase again apply; same applied
broken
phase broken_verify verify; phase broken_check check
phase back rollback; same applied; phase back_check check
"""
EXITS = {
    "first": 1,
    "apply": 0,
    "verify": 0,
    "second": 0,
    "undo": 0,
    "redo": 0,
    "again": 0,
    "broken_check": 1,
    "back": 0,
    "back_check": 0,
}


def must_not(command: str) -> str:
    """`!` alone does not end a script."""
    return f"if {command}; then echo 'this should not be so'; exit 1; fi"


def nowhere(word: str, *places: str) -> str:
    """The word is in no file there and in no command line. (The brackets keep grep from finding itself.)"""
    return must_not(f"grep -rlsa '[{word[0]}]{word[1:]}' {' '.join(places)} /proc/[0-9]*/cmdline")


def life(
    server: Room,
    name: str,
    values: Mapping[str, object],
    *,
    unit: str,
    breaks: str,
    setup: str = "",
    undone: str = "",
    facts: str = ":",
    redone: str = "same applied",
) -> Result:
    """The story. `undone` says in bash what else must be so after the first rollback, `redone` after the second apply."""
    begin = f"""
{setup}
facts() {{ systemctl is-enabled {unit} || true; systemctl is-active {unit} || true; {facts}; }}
broken() {{ {breaks}; }}
redone() {{ {redone}; }}
undone() {{
  if systemctl is-enabled --quiet {unit} || systemctl is-active --quiet {unit}; then echo 'still enabled or running'; exit 1; fi
  if grep -rl HyprBox /etc; then echo 'still configured'; exit 1; fi
  {undone}
}}
"""
    result = server.play(name, values, begin + STORY, timeout=400)
    found = {label: code for label, code in result.exits.items() if label != "broken_verify"}
    assert found == EXITS, result.output
    assert result.exits["broken_verify"] != 0, result.output
    assert not result.differences, result.output
    return result


def test_the_node_exporter_offers_figures_on_this_server_only(server: Room) -> None:
    result = life(
        server,
        "node-exporter",
        {"PORT": 9111, "UNITS": True},
        unit="prometheus-node-exporter",
        breaks="systemctl stop prometheus-node-exporter",
        redone="same applied; for i in {1..50}; do if ss -Hltn | grep -q 127.0.0.1:9111; then break; fi; sleep 0.2; done\n"
        "ss -Hltn | grep -q 127.0.0.1:9111",
    )
    assert "figures" in result.said["verify"]


def test_redis_wants_its_password_and_nobody_else_sees_it(server: Room) -> None:
    result = life(
        server,
        "redis",
        {"PORT": 6380, "PERSISTENCE": "log", "PASSWORD": "env:HYPRBOX_SECRET_REDIS"},
        setup="export PASSWORD=canary-of-redis",
        unit="redis-server",
        breaks="REDISCLI_AUTH=canary-of-redis redis-cli -p 6380 config set maxmemory 1mb",
        redone="same applied; redis-cli -p 6380 ping 2>&1 | grep NOAUTH; "
        + nowhere("canary-of-redis", "/etc", "/var/lib", "/var/log"),
        undone=must_not("redis-cli -p 6380 ping"),
    )
    assert "canary" not in result.output


def test_postgresql_gives_a_role_its_own_database(server: Room) -> None:
    result = life(
        server,
        "postgresql",
        {"DATABASE": "shop", "OWNER": "shop-app", "PASSWORD": "env:HYPRBOX_SECRET_SHOP", "MAX_CONNECTIONS": 40},
        setup='export PASSWORD="canary\'of\\\\\\$postgres"',
        unit="postgresql",
        breaks="runuser -u postgres -- psql -qc 'alter role \"shop-app\" password null'",
        redone="same applied; " + nowhere("canary.of", "/etc", "/var/lib/postgresql", "/var/log"),
        undone="[[ -z $(pg_lsclusters -h | grep online) ]]",
    )
    assert "works for shop-app in shop" in result.said["verify"]
    assert "cannot log in with the password" in result.said["broken_verify"]
    assert "canary" not in result.output


def test_docker_runs_a_container_and_keeps_what_was_set_by_hand(server: Room) -> None:
    result = life(
        server,
        "docker-engine",
        {"ADDRESS_POOL": "10.201.0.0/16"},
        setup='mkdir -p /etc/docker; echo \'{"dns": ["10.0.0.53"]}\' >/etc/docker/daemon.json',
        unit="docker",
        breaks="systemctl stop docker docker.socket",
        redone="same applied; grep -q 10.0.0.53 /etc/docker/daemon.json",
        undone='[[ $(</etc/docker/daemon.json) == \'{"dns": ["10.0.0.53"]}\' ]]',
    )
    assert "ran a container" in result.said["verify"]


APPLICATION = "(mkdir -p /srv/app; cd /srv/app; exec python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1) & application=$!\n"


@pytest.mark.parametrize("tls", ["internal"])
def test_caddy_passes_visitors_on_over_tls(server: Room, tls: str) -> None:
    result = life(
        server,
        "caddy-reverse-proxy",
        {"SERVER_NAME": "shop.example.org", "TLS": tls},
        setup=APPLICATION,
        unit="caddy",
        breaks="kill $application; systemctl stop caddy",
        undone=must_not("grep -q hyprbox /etc/caddy/Caddyfile"),
    )
    assert "status 200" in result.said["verify"]


AUTHORITY = """
cat >/etc/systemd/system/pebble.service <<'UNIT'
[Service]
Environment=PEBBLE_VA_ALWAYS_VALID=1 PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
ExecStart=/usr/bin/pebble -config /etc/pebble.json
UNIT
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
  -keyout /etc/pebble.key -out /usr/local/share/ca-certificates/pebble.crt 2>/dev/null
chmod 644 /usr/local/share/ca-certificates/pebble.crt
update-ca-certificates >/dev/null 2>&1
echo '{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000", "httpPort": 80, "tlsPort": 443, \
  "certificate": "/usr/local/share/ca-certificates/pebble.crt", "privateKey": "/etc/pebble.key", "ocspResponderURL": ""}}' >/etc/pebble.json
systemctl start pebble
"""


def test_a_certificate_is_got_and_its_renewal_rehearsed(server: Room) -> None:
    result = life(
        server,
        "certificate-renewal",
        {
            "DOMAINS": "shop.example.org www.shop.example.org",
            "AGREE_TO_TERMS": True,
            "AUTHORITY": "https://127.0.0.1:14000/dir",
            "RELOAD_SERVICE": "cron",
        },
        setup=AUTHORITY,
        unit="certbot.timer",
        breaks="systemctl stop certbot.timer",
        undone="[[ ! -e /etc/letsencrypt/live/shop.example.org ]]",
        redone="keep applied",
    )
    assert "simulated renewals" in result.said["verify"]


def test_restic_backs_up_and_reads_back(server: Room) -> None:
    result = life(
        server,
        "restic-backup",
        {"REPOSITORY": "/mnt/backup", "PASSWORD": "env:HYPRBOX_SECRET_BACKUP", "FOLDERS": "/etc /nowhere"},
        setup="export PASSWORD=canary-of-restic",
        unit="hyprbox-restic-main.timer",
        breaks="rm -r /mnt/backup/snapshots; mkdir /mnt/backup/snapshots; systemctl stop hyprbox-restic-main.timer",
        redone="same applied; " + nowhere("canary-of-restic", "/etc/systemd", "/var/log", "/mnt/backup"),
        undone="[[ -e /mnt/backup/config && ! -e /etc/hyprbox-restic/main ]]",
    )
    assert "read back" in result.said["verify"]
    assert "canary" not in result.output


def test_prometheus_watches_this_server(server: Room) -> None:
    result = life(
        server,
        "monitoring-stack",
        {"INTERVAL": "5s", "TARGETS": "127.0.0.1:9999"},
        unit="prometheus",
        breaks="systemctl stop prometheus-node-exporter",
        undone="[[ $(ss -Hltn | grep -cE ':(9090|9100) ') == 0 ]]",
    )
    assert "collects the figures of this server" in result.said["verify"]
    assert "Of the other servers, 1 of 1 do not answer" in result.said["verify"]


OTHER_SIDE = """
apt-get -y -q install --no-install-recommends wireguard-tools >/dev/null 2>&1
ip netns add other; ip link add here type veth peer name there netns other
ip address add 203.0.113.1/24 dev here; ip link set here up
ip -n other address add 203.0.113.2/24 dev there; ip -n other link set there up; ip -n other link set lo up
mkdir -p /etc/wireguard; wg genkey >/etc/wireguard/wg0.key
ip netns exec other wireguard-go wg9
wg genkey >/root/other.key
ip netns exec other wg set wg9 private-key /root/other.key listen-port 51820 peer "$(wg pubkey </etc/wireguard/wg0.key)" allowed-ips 10.8.0.7/32
ip -n other address add 10.8.0.1/24 dev wg9; ip -n other link set wg9 up
"""


def test_a_wireguard_peer_reaches_the_other_side(server: Room) -> None:
    key = "A" * 43 + "="
    values = {
        "ADDRESS": "10.8.0.7",
        "PEER_PUBLIC_KEY": key,
        "PEER_NETWORKS": "10.8.0.0/24",
        "PEER_ENDPOINT": "203.0.113.2:51820",
        "PROBE": "10.8.0.1",
    }
    result = life(
        server,
        "wireguard-peer",
        values,
        setup=OTHER_SIDE + f'sed -i "s|{key}|$(wg pubkey </root/other.key)|" /room/script.sh',
        unit="wg-quick@wg0",
        breaks="wg set wg0 peer $(wg show wg0 peers) remove",
        facts="wg show wg0 allowed-ips",
        undone="[[ ! -e /etc/wireguard/wg0.conf && -e /etc/wireguard/wg0.key ]]",
    )
    assert "10.8.0.1 answers" in result.said["verify"]


def test_a_real_journal_keeps_to_its_limit(server: Room) -> None:
    result = server.life(
        "journald-limit",
        {"MAX_USE_MB": 64, "MAX_AGE": "7d"},
        facts="systemctl is-active systemd-journald; n=$RANDOM$RANDOM; logger -t room $n\n"
        "for i in {1..50}; do if journalctl -q -t room -o cat | grep -qx $n; then echo heard; break; fi; sleep 0.2; done",
        breaks="sed -i s/64M/1G/ /etc/systemd/journald.conf.d/60-hyprbox.conf; systemctl restart systemd-journald",
        timeout=300,
    )
    assert "SystemMaxUse is 64M, MaxRetentionSec is 604800" in result.said["second"]
