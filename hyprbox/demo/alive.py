"""The demo goes on: its servers report and run their jobs, as if they had agents (`seed_demo --live`).

Heartbeats go through the writer of the heartbeat lane, and jobs are claimed and reported like an agent's; so everything
that follows from them happens as it does with real ones. No script is run anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from django.utils import timezone

from hyprbox.demo import measured
from hyprbox.demo.fleet import MOST, Host, hosts
from hyprbox.demo.measured import Gauge
from hyprbox.demo.running import Runs
from hyprbox.lib.errors import HyprBoxError
from hyprbox.lib.threads import in_thread
from nodes.beats import WaitingBeat
from nodes.models import Node
from nodes.wire import Heartbeat, Metrics
from nodes.writer import writer
from tokens.errors import BadToken
from tokens.models import NodeToken

FEW = 200
STAY = ("swap_percent", "processes")  # what does not jump from one heartbeat to the next


@dataclass(slots=True, eq=False)
class Server:
    """A made-up server that reports. `first` is what its row said when we began, at `since` (monotonic seconds)."""

    node: Node
    host: Host
    gauge: Gauge
    first: dict[str, Any]
    since: float

    def beat(self, dice: random.Random, interval_seconds: int) -> Heartbeat:
        now = timezone.now()
        metrics = measured.metrics(self.host, self.gauge.at(now), dice)
        metrics |= {name: self.first[name] for name in STAY if name in self.first}
        metrics["uptime_seconds"] = int(self.first.get("uptime_seconds", 0) + time.monotonic() - self.since)
        return Heartbeat(
            self.node.node_id, "0.1.0", interval_seconds, msgspec.convert(metrics, Metrics), sent_at=timezone.now()
        )


def servers(dice: random.Random) -> list[Server]:
    """The demo's servers that are here and not silent. Who has a token has an agent, so that one is none of ours."""
    known = {host.node_id: host for host in hosts(MOST)}
    theirs = NodeToken.objects.filter(node_pk__isnull=False).values("node_pk")
    found = []
    for node in Node.objects.present().named(known).exclude(pk__in=theirs).order_by("node_id"):
        host = known[node.node_id]
        if not (host.silent or host.is_new):
            gauge = Gauge(host, dice, timezone.now())
            found.append(Server(node, host, gauge, node.metrics, time.monotonic()))
    return found


class Fleet:
    """What the made-up servers do, second by second."""

    def __init__(self, found: list[Server], dice: random.Random, *, pace: float = 1.0) -> None:
        self.servers = found
        self.every = 15 if len(found) <= FEW else 60
        self.runs = Runs({server.node.pk: server.host for server in found}, dice, pace=pace)
        self._dice = dice
        self._turn = 0

    async def go_on(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await self.turn()
                await asyncio.sleep(1)
        finally:
            await self.runs.stop()
            await writer.drain()

    async def turn(self) -> None:
        """One second: the servers whose turn it is report, and jobs that wait are begun."""
        due = self.servers[self._turn % self.every :: self.every]
        self._turn += 1
        await asyncio.gather(*map(self._beat, due))
        with contextlib.suppress(HyprBoxError):  # the database is away; we look again in a second
            await self.runs.look()

    async def _beat(self, server: Server) -> None:
        try:
            await writer.submit(
                WaitingBeat(str(server.node.pk), server.beat(self._dice, self.every), None, None),
            )
        except BadToken:  # somebody removed the node
            self.servers.remove(server)
        except HyprBoxError:
            pass  # the database is away; the next heartbeat may do better


async def go_on(seed: int) -> None:
    """Report for all of the demo's servers, until it is cancelled. Returns at once when there are none."""
    dice = random.Random(seed)
    found = await in_thread(servers, dice)
    if found:
        await Fleet(found, dice).go_on()
