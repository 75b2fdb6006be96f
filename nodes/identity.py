"""Whether two machines report as one node: what heartbeats tell of themselves, compared. Pure.

A node is one `machine_id`, and on it one `instance_id`, which lies in the agent's state directory beside a counter that
only rises. A restart or an upgrade keeps both; a new state directory is another instance, once. Two machines show in one
of three ways: another machine, an instance that comes back with a higher count after another one was seen, or (both are
copies of one disk) one instance whose count goes back and forth.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MAX_INSTANCES = 16  # remembered: more machines than that under one name were noticed before
# So often has the count to go back, with a new highest one each time, within so many intervals of the node's own. A host
# that crashes can lose its last count and so go back once; a snapshot that is put back does so once as well.
TIMES_BACK, BACK_INTERVALS = 5, 10

MACHINE, INSTANCE, COUNT = "machine", "instance", "beat"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A heartbeat that did not fit what is known of its node: what of it did not, and who sent it."""

    misfit: str
    machine_id: str
    instance_id: str
    beat: int
    token_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a node. `instances` has the highest count of each earlier one; `back` the highest count and the
    time (seconds) of each moment in which the count went back."""

    machine_id: str
    instance_id: str
    beat: int
    instances: Mapping[str, int] = field(default_factory=dict)
    back: tuple[tuple[int, float], ...] = ()

    def memory(self) -> dict[str, Any]:
        """As it is stored; `recalled` reads it."""
        stored: dict[str, Any] = {}
        if self.instances:
            stored["instances"] = dict(self.instances)
        if self.back:
            stored["back"] = [list(moment) for moment in self.back]
        return stored


@dataclass(frozen=True, slots=True)
class Verdict:
    """`known` from now on, and what makes it two machines (a sentence), or nothing."""

    known: Known
    why: str = ""


def recalled(machine_id: str, instance_id: str, beat: int | None, memory: Mapping[str, Any]) -> Known:
    back = tuple((int(high), float(at)) for high, at in memory.get("back", ()))
    return Known(machine_id, instance_id, beat or 0, dict(memory.get("instances", {})), back)


def judge(known: Known, seen: Sighting, *, now: float, interval_seconds: float, is_expected: bool = False) -> Verdict:
    """What follows from a heartbeat that did not fit.

    `is_expected`: somebody has given out a new token since, so that another machine is what they want.
    """
    if is_expected:
        return Verdict(Known(seen.machine_id, seen.instance_id, seen.beat))
    if seen.machine_id and known.machine_id and seen.machine_id != known.machine_id:
        return Verdict(known, "another machine reports under this name")
    known = replace(known, machine_id=known.machine_id or seen.machine_id)
    if seen.instance_id and not known.instance_id:
        return Verdict(replace(known, instance_id=seen.instance_id, beat=seen.beat))
    if seen.instance_id and seen.instance_id != known.instance_id:
        return _another_instance(known, seen)
    if seen.misfit == COUNT and seen.instance_id == known.instance_id:
        return _count_went_back(known, now, interval_seconds)
    return Verdict(known)


def _another_instance(known: Known, seen: Sighting) -> Verdict:
    before = known.instances.get(seen.instance_id)
    if before is None:
        kept = {**known.instances, known.instance_id: known.beat}
        newest = dict(list(kept.items())[-MAX_INSTANCES:])
        return Verdict(Known(known.machine_id, seen.instance_id, seen.beat, newest))
    if seen.beat > before:
        return Verdict(known, "two agents take turns under this name")
    return Verdict(known)  # one of its heartbeats came late


def _count_went_back(known: Known, now: float, interval_seconds: float) -> Verdict:
    since = now - BACK_INTERVALS * interval_seconds
    back = tuple(moment for moment in known.back if moment[1] > since)
    if back and known.beat <= back[-1][0]:  # a state directory that was put back counts up to where it was
        return Verdict(replace(known, back=back))
    back = (*back, (known.beat, now))
    why = "two copies of one agent take turns under this name" if len(back) >= TIMES_BACK else ""
    return Verdict(replace(known, back=back), why)
