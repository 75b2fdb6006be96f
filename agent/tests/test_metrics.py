"""What a host says of itself is sent as it can be: no odd byte in a name keeps a heartbeat from being taken."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from agent import metrics


def test_a_name_that_is_no_utf8_or_is_not_printed_arrives_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: os.fsdecode(b"caf\xe9\x1b[2J") + "x" * 300)
    hostname = metrics.inventory("")["hostname"]
    assert hostname.startswith("caf\ufffd\ufffd[2Jx")
    assert len(hostname) == 255
    json.dumps(hostname, ensure_ascii=False).encode()


def test_files_of_the_host_are_read_whatever_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b'NAME="G\xf6tz Linux"\n')
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, *given, **more: read(odd, *given, **more))
    monkeypatch.setattr(Path, "exists", lambda self: False)
    found: dict[str, Any] = metrics.inventory("")
    assert found["os"] == "G\ufffdtz Linux"
    assert found["virtualization"].startswith("NAME=")
    assert metrics.machine_id().startswith("NAME=")


def test_the_first_reading_is_not_one_of_a_few_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the kernel has counted nothing yet, or one hundredth of a second: 0 or 100 %, whatever the host does."""
    clock = [1000.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(metrics.psutil, "cpu_percent", lambda interval: 12.0 if interval else 100.0)
    meter = metrics.Meter()
    read = []
    for later in (0.004, 0.5, 1.0, 60.0):
        clock[0] = 1000.0 + later
        read.append(meter.read()["cpu_percent"])
    assert read == [12.0, 12.0, 100.0, 100.0]
