"""What a person asks of the agent by hand: one heartbeat, or whether it can do its work."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.client import CallFailed, Client
from agent.config import BadSetting, Config
from agent.heart import single_heartbeat
from agent.keys import KeyRing, KeysUntrusted
from agent.state import AlreadyRunning, StateDir

EXIT_UNREACHABLE = 69


def beat_once(settings: Config) -> int:
    """`hyprnode --once`: one heartbeat, one line, an exit code."""
    client = Client(settings)
    try:
        client.post("/api/nodes/heartbeat", single_heartbeat(settings))
    except CallFailed as error:
        print(f"hyprnode: the heartbeat was not accepted: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE if error.status == 0 or error.status >= 500 else 1
    print(f"hyprnode: heartbeat of {settings.node_id} accepted by {settings.api_url}.")
    return 0


def doctor(settings: Config) -> int:
    """`hyprnode doctor`: can this agent do its work? One line each, exit 1 when something cannot."""
    client = Client(settings)
    problems = 0

    def line(ok: bool, text: str) -> None:
        nonlocal problems
        problems += not ok
        print(("ok    " if ok else "FAIL  ") + text)

    line(True, f"settings: {settings.node_id} at {settings.api_url}, every {settings.interval} s")
    line(os.geteuid() == 0, "runs as root" if os.geteuid() == 0 else "not root: most presets need it")
    try:
        state: StateDir | None = StateDir(settings.state_dir)
        problem = state.spool_problem() if state else ""
        line(not problem, problem or f"state directory {settings.state_dir} is writable")
    except AlreadyRunning:
        line(True, f"an agent runs with {settings.state_dir}")
    except BadSetting as error:
        line(False, str(error))
    line(Path("/bin/bash").exists(), "/bin/bash is there")
    try:
        answer = client.get("/api/agent/keys")
        line(True, f"the control plane answers, key set version {answer.get('version')}")
        try:
            KeyRing(settings.state_dir, settings.keys_sha256).offer(answer)
            line(True, "its keys are the trusted ones")
        except (KeysUntrusted, OSError) as error:
            line(False, f"its keys: {error}")
        client.post("/api/nodes/heartbeat", single_heartbeat(settings))  # a poll would claim a job and let it lie
        line(True, "the token is valid for this node")
    except CallFailed as error:
        line(False, str(error))
    return 1 if problems else 0
