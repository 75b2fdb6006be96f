"""A script that writes 2 GB as fast as it can: how much memory its runner takes for that, and how fast it is.

The runner is the agent's own, started as the daemon starts it; memory is what is resident, from before the first byte on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from agent.journal import JobFolder
from bench.harness import ROOT, Context, Result, at_most, figure

BYTES = 2_000_000_000
QUIET_SECONDS = 2  # before the output, to know what the runner needs anyway
SCRIPT = f"sleep {QUIET_SECONDS}\nhead -c {BYTES} /dev/zero\n".encode()
SAMPLE_SECONDS = 0.02


def run(context: Context) -> list[Result]:
    folder = _order(context.folder / "runner")
    process = _start(folder)
    began = time.monotonic()
    before, peak = _watch(process, began)
    seconds = time.monotonic() - began - QUIET_SECONDS
    _check(folder)
    return [
        at_most("runner: memory that 2 GB of output add", peak - before, "MB", 20.0),
        figure("runner: resident at most", peak, "MB"),
        figure("runner: output taken", BYTES / 1e6 / seconds, "MB/s"),
    ]


def _order(at: Path) -> JobFolder:
    """The job as the daemon leaves it for the runner."""
    now = datetime.now(UTC)
    payload: dict[str, Any] = {
        "v": 1, "job_id": str(uuid.uuid4()), "node_id": "bench-1", "mode": "apply",
        "script": base64.b64encode(SCRIPT).decode(), "script_sha256": hashlib.sha256(SCRIPT).hexdigest(),
        "timeout_seconds": 600, "created_at": _text(now), "expires_at": _text(now + timedelta(hours=1)), "nonce": "0" * 32,
        "environment": {}, "secrets": {}, "preset": "bench", "revision": "r1", "parts": ["apply"], "key_id": "0" * 16,
    }  # fmt: skip
    folder = JobFolder(at / payload["job_id"])
    folder.create()
    raw = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    folder.write("intent", {"claim_id": "bench", "payload": base64.b64encode(raw).decode(), "at": 0.0})
    return folder


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _start(folder: JobFolder) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agent.runner", str(folder.path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"secrets": {}}).encode())
    process.stdin.close()
    return process


def _watch(process: subprocess.Popen[bytes], began: float) -> tuple[float, float]:
    """Resident megabytes: just before the output begins, and the most there was until the end."""
    before = peak = 0.0
    runner = psutil.Process(process.pid)
    while process.poll() is None:
        resident = runner.memory_info().rss / 1e6
        if time.monotonic() - began < QUIET_SECONDS:
            before = resident
        peak = max(peak, resident)
        time.sleep(SAMPLE_SECONDS)
    return before, peak


def _check(folder: JobFolder) -> None:
    """All of it was counted and hashed, and the job ended well."""
    result = folder.read("result") or {}
    block, digest = bytes(1_000_000), hashlib.sha256()
    for _ in range(BYTES // len(block)):
        digest.update(block)
    found = (result.get("status"), result.get("stdout_bytes"), result.get("stdout_sha256"))
    if found != ("succeeded", BYTES, digest.hexdigest()):
        raise RuntimeError(f"the runner reports {found}")
