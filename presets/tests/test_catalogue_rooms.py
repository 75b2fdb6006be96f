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
