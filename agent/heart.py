"""Heartbeats: what this host is and how it fares, and how far its clock is from the server's."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from agent import __version__
from agent.client import Client
from agent.config import Config
from agent.metrics import Meter, inventory, machine_id
from agent.processes import boottime
from agent.state import StateDir
from agent.wire import Malformed, now_text, parse_time

INVENTORY_SECONDS = 300.0


class Heart:
    """Heartbeats: metrics every interval, the inventory first and when it changes."""

    def __init__(self, settings: Config, state: StateDir) -> None:
        self._settings, self._state = settings, state
        self._meter = Meter()
        self._machine_id = machine_id()
        self._instance_id = state.instance_id()
        self._sent_inventory: dict[str, Any] | None = None
        self._looked_at = 0.0
        self._server_ahead: float | None = None  # of the clock that no step touches
        self.spool_problem = ""  # why no job can be taken, as far as the work knows

    def beat(self, client: Client, audit_fork: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one, with two checkpoints that contradict each other if there are any. Raises `CallFailed`."""
        body: dict[str, Any] = {
            "node_id": self._settings.node_id,
            "agent_version": __version__,
            "interval_seconds": self._settings.interval,
            "metrics": {**self._meter.read(), **self._spool()},
            "sent_at": now_text(),
            "machine_id": self._machine_id,
            "instance_id": self._instance_id,
            "beat": self._state.next_beat(),
        }
        if audit_fork is not None:
            body["audit_fork"] = audit_fork
        fresh = self._changed_inventory()
        if fresh is not None:
            body["inventory"] = fresh
        sent = boottime()
        answer = client.post("/api/nodes/heartbeat", body)
        self._note_clock(answer.get("server_time"), sent, boottime())
        if fresh is not None:
            self._sent_inventory = fresh
        return answer

    def _spool(self) -> dict[str, str]:
        return {"spool_unwritable": self.spool_problem[:255]} if self.spool_problem else {}

    def _changed_inventory(self) -> dict[str, Any] | None:
        now = time.monotonic()
        if self._sent_inventory is not None and now - self._looked_at < INVENTORY_SECONDS:
            return None
        self._looked_at = now
        found = inventory(self._settings.region)
        return None if found == self._sent_inventory else found

    def _note_clock(self, server_time: Any, sent: float, received: float) -> None:
        with contextlib.suppress(Malformed):  # an older server: no judgement about the clock
            self._server_ahead = parse_time(server_time).timestamp() - (sent + received) / 2

    @property
    def clock_offset(self) -> float:
        """Seconds that this host's clock is ahead of the server's, now: a step shows at once, not at the next beat."""
        return 0.0 if self._server_ahead is None else time.time() - boottime() - self._server_ahead


def single_heartbeat(settings: Config) -> dict[str, Any]:
    """One without the identity of a running agent, so that it may be sent beside one and looks like no clone."""
    return {
        "node_id": settings.node_id,
        "agent_version": __version__,
        "interval_seconds": settings.interval,
        "metrics": Meter().read(),
        "inventory": inventory(settings.region),
        "sent_at": now_text(),
    }
