"""What the writer of heartbeats writes: the statement, its rows, and those who wait for their COMMIT."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

import msgspec

from hyprbox.lib.errors import HyprBoxError
from nodes.identity import Sighting
from nodes.wire import Heartbeat, Inventory, Metrics
from tokens.cache import VerifiedToken

ID_LENGTH = 36


class Row(msgspec.Struct, gc=False, omit_defaults=True):
    """One heartbeat as the statement reads it; the names are short because they repeat."""

    node: str
    cpu: float | None
    memory: float | None
    disk: float | None
    load: float | None
    rx: float | None
    tx: float | None
    version: str
    seconds: int
    metrics: Metrics
    sent: datetime | None = None
    machine: str | None = None
    instance: str | None = None
    beat: int | None = None
    inventory: Inventory | None = None


# Heartbeats of one node within a batch: the last one is the node's state, each one is a row of history, a
# microsecond apart. Nodes that were removed meanwhile are written nowhere and come back in `gone`. The list of ids
# stands beside the rows so that the planner looks them up by key: from the rows alone it would read the whole fleet.
# Which machine a node is stays as `nodes.clones` noted it, so that one that differs, or the very first, shows as a
# misfit: no statement more, and for the ordinary heartbeat no work but the comparison. A repeated or late heartbeat was sent
# before the newest one, which last_seen_at and the offset tell also after it, and is none; one sent later that counts lower is.
WRITE = """
WITH beats AS (
    SELECT * FROM ROWS FROM (jsonb_to_recordset($1::jsonb) AS (
        node uuid, cpu float8, memory float8, disk float8, load float8, rx float8, tx float8,
        version text, seconds integer, metrics jsonb, sent timestamptz,
        machine text, instance text, beat bigint, inventory jsonb
    )) WITH ORDINALITY AS r (
        node, cpu, memory, disk, load, rx, tx, version, seconds, metrics, sent, machine, instance, beat, inventory, ord
    )
), written AS (
    UPDATE nodes_node AS n SET
        last_seen_at = now(), first_seen_at = COALESCE(n.first_seen_at, now()),
        cpu_percent = b.cpu, memory_percent = b.memory, disk_percent = b.disk, metrics = b.metrics,
        agent_version = b.version, interval_seconds = b.seconds,
        clock_offset_seconds = CASE
            WHEN n.instance_id = b.instance AND b.beat <= n.beat
                AND b.sent <= n.last_seen_at + n.clock_offset_seconds * interval '1 second'
                THEN n.clock_offset_seconds + extract(epoch FROM n.last_seen_at - now())::float8
            ELSE COALESCE(extract(epoch FROM b.sent - now())::float8, n.clock_offset_seconds)
        END,
        beat = CASE WHEN n.instance_id = b.instance THEN GREATEST(n.beat, b.beat) ELSE n.beat END,
        misfit = CASE
            WHEN n.clone_suspected_at IS NOT NULL THEN NULL
            WHEN b.machine <> n.machine_id AND b.machine <> '' THEN 'machine'
            WHEN b.instance <> n.instance_id AND b.instance <> '' THEN 'instance'
            WHEN b.beat <= n.beat AND b.sent > n.last_seen_at + (n.clock_offset_seconds + 0.001) * interval '1 second'
                THEN 'beat'
        END,
        inventory = COALESCE(b.inventory, n.inventory),
        inventory_at = CASE WHEN b.inventory IS NULL THEN n.inventory_at ELSE now() END,
        region = COALESCE(b.inventory ->> 'region', n.region)
    FROM (SELECT DISTINCT ON (node) * FROM beats ORDER BY node, ord DESC) AS b
    WHERE n.id = b.node AND n.id = ANY($2::uuid[]) AND n.removed_at IS NULL
    RETURNING n.id, n.announced_status, n.misfit
), kept AS (
    INSERT INTO nodes_heartbeat (node, at, cpu_percent, memory_percent, disk_percent, load_1, net_rx_bps, net_tx_bps)
    SELECT node, now() + ord * interval '1 microsecond', cpu, memory, disk, load, rx, tx
    FROM beats WHERE node IN (SELECT id FROM written)
)
SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       (SELECT string_agg(node::text, ',') FROM beats WHERE node NOT IN (SELECT id FROM written)),
       (SELECT string_agg(concat(id, misfit), ',') FROM written
        WHERE announced_status IN ('UNKNOWN', 'OFFLINE') OR misfit IS NOT NULL)
"""


class Beat:
    """A heartbeat that was accepted at the door and waits for its COMMIT. `node_key` is its node's id as text."""

    __slots__ = ("heartbeat", "inventory", "node_key", "token")

    node_key: str
    heartbeat: Heartbeat
    inventory: Inventory | None
    token: VerifiedToken | None

    def is_answered(self) -> bool:
        raise NotImplementedError

    def accept(self, written: Written) -> None:
        """It has been committed."""
        raise NotImplementedError

    def refuse(self, error: HyprBoxError) -> None:
        raise NotImplementedError

    def row(self) -> Row:
        beat, m = self.heartbeat, self.heartbeat.metrics
        return Row(
            self.node_key, _real(m.cpu_percent), _real(m.memory_percent), _real(m.disk_percent),
            _real(m.load_1), _real(m.net_rx_bps), _real(m.net_tx_bps),
            beat.agent_version, beat.interval_seconds, m,
            beat.sent_at, beat.machine_id, beat.instance_id, beat.beat, self.inventory,
        )  # fmt: skip

    def sighting(self, misfit: str) -> Sighting:
        """Who sent it, for one that did not fit."""
        beat, token_id = self.heartbeat, self.token.id if self.token is not None else None
        return Sighting(misfit, beat.machine_id or "", beat.instance_id or "", beat.beat or 0, token_id)


class WaitingBeat(Beat):
    """One for which a task of the lane waits."""

    __slots__ = ("answer",)

    def __init__(
        self, node_key: str, heartbeat: Heartbeat, inventory: Inventory | None, token: VerifiedToken | None
    ) -> None:
        self.node_key, self.heartbeat, self.inventory, self.token = node_key, heartbeat, inventory, token
        self.answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()

    def is_answered(self) -> bool:
        return self.answer.done()

    def accept(self, written: Written) -> None:
        self.answer.set_result(written)

    def refuse(self, error: HyprBoxError) -> None:
        self.answer.set_exception(error)


@dataclass(frozen=True, slots=True)
class Written:
    """What a COMMIT said: the database's time (ISO 8601, UTC), and whether agents should slow down."""

    at: str
    is_crowded: bool


def _real(value: float | None) -> float | None:
    """History keeps `real`, which has no numbers between 0 and 1e-37: PostgreSQL would refuse them."""
    return value if value is None or value > 1e-30 else 0.0


def to_look_at(text: str, batch: list[Beat]) -> list[tuple[str, Sighting | None]]:
    """Of each node that someone should look at its id, and what did not fit about its last heartbeat, if anything."""
    newest = {beat.node_key: beat for beat in batch}
    found: list[tuple[str, Sighting | None]] = []
    for item in text.split(","):
        key, misfit = item[:ID_LENGTH], item[ID_LENGTH:]
        found.append((key, newest[key].sighting(misfit) if misfit else None))
    return found


encode = msgspec.json.Encoder().encode
