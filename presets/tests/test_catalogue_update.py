"""The system update, run for real in a fresh Debian whose only archive is a folder with one package: see root.py."""

from __future__ import annotations

import pytest

from presets.tests.root import Room

pytestmark = pytest.mark.slow

ARCHIVE = r"""
publish() { # VERSION
  mkdir -p /tmp/build/DEBIAN /srv/archive
  printf 'Package: sample\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: a sample\n' "$1" >/tmp/build/DEBIAN/control
  (umask 022; chmod 755 /tmp/build /tmp/build/DEBIAN; dpkg-deb --build --root-owner-group /tmp/build "/srv/archive/sample_$1_all.deb" >/dev/null)
  local file=/srv/archive/sample_$1_all.deb
  {
    cat /tmp/build/DEBIAN/control
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${file##*/}" "$(stat -c %s "$file")" "$(sha256sum <"$file" | cut -d ' ' -f 1)"
  } >>/srv/archive/Packages
  chmod -R a+rX /srv/archive
}
rm -f /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] file:/srv/archive ./' >/etc/apt/sources.list
publish 1.0; apt-get -q update >/dev/null; apt-get -y -q install sample >/dev/null
installed() { dpkg-query --show --showformat='${Version}\n' sample; }
"""


def test_what_waits_is_installed_and_what_comes_later_is_noticed(room: Room) -> None:
    steps = (
        ARCHIVE
        + "rm -rf /var/lib/apt/periodic; touch -d '2 days ago' /var/lib/apt/lists; phase stale check; touch /var/lib/apt/lists\n"
        + "publish 2.0; apt-get -q update >/dev/null; phase waits check; phase apply apply; installed; phase verify verify; phase so check\n"
        + "phase again apply; publish 3.0; apt-get -q update >/dev/null; phase broken verify; phase more check\n"
        + "installed >/room/said.version\n"
    )
    result = room.play("system-update", {}, steps)
    assert result.exits == {
        "stale": 1, "waits": 1, "apply": 0, "verify": 0, "so": 0, "again": 0, "broken": 1, "more": 1
    }, result.output  # fmt: skip
    assert "48 hours old" in result.said["stale"]
    assert "Updates that wait: 1\n  sample" in result.said["waits"]
    assert "Still waiting:\nsample" in result.said["broken"]
    assert result.said["version"] == "2.0\n"


def test_security_alone_leaves_other_updates_waiting(room: Room) -> None:
    steps = ARCHIVE + "publish 2.0; phase apply apply; phase verify verify; installed >/room/said.version\n"
    result = room.play("system-update", {"SCOPE": "security"}, steps)
    assert result.exits == {"apply": 0, "verify": 0}, result.output
    assert "There are none." in result.said["apply"]
    assert result.said["version"] == "1.0\n"


def test_an_archive_that_does_not_answer_and_half_installed_packages_fail_it(room: Room) -> None:
    steps = (
        ARCHIVE
        + "mv /srv/archive /srv/away; phase gone apply; mv /srv/away /srv/archive\n"
        + "publish 2.0; echo exit 1 >/tmp/build/DEBIAN/preinst; chmod 755 /tmp/build/DEBIAN/preinst; publish 3.0\n"
        + "phase refused apply\n"
        + "sed -i '/^Package: sample$/,/^$/s/^Status: install ok installed/Status: install ok half-configured/' /var/lib/dpkg/status\n"
        + "phase half verify\n"
    )
    result = room.play("system-update", {}, steps)
    assert result.exits == {"gone": 100, "refused": 100, "half": 1}, result.output
    assert "only half installed" in result.said["half"]
