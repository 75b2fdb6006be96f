"""Effective status: what a node is, judged when it is read. Pure; `nodes.sql` says the same in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import TextChoices

METRICS = ("cpu_percent", "memory_percent", "disk_percent")
METRIC_LABELS = {"cpu_percent": "CPU", "memory_percent": "Memory", "disk_percent": "Disk"}
LATE_BEATS = 3
LATE_SLACK_SECONDS = 10.0
CLOCK_WARNING_SECONDS = 300.0
CLONE = "Two machines seem to report as this node, so it gets no new jobs."


class Status(TextChoices):
    ONLINE = "ONLINE", "Online"
    WARNING = "WARNING", "Warning"
    CRITICAL = "CRITICAL", "Critical"
    OFFLINE = "OFFLINE", "Offline"
    UNKNOWN = "UNKNOWN", "Unknown"


WORST_FIRST = (Status.CRITICAL, Status.OFFLINE, Status.WARNING, Status.UNKNOWN, Status.ONLINE)


@dataclass(frozen=True, slots=True)
class Limits:
    """From `warning` on a metric is a warning, from `critical` on critical; in percent."""

    warning: float
    critical: float


DEFAULT_LIMITS = {
    "cpu_percent": Limits(90, 97),
    "memory_percent": Limits(90, 97),
    "disk_percent": Limits(85, 95),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a status depends on beside the node itself.

    `is_settling`: this server started so recently that silence proves nothing; a node that was announced
    OFFLINE stays so, no other becomes it.
    """

    offline_after_seconds: float = 600.0
    is_settling: bool = False
    limits: Mapping[str, Limits] = field(default_factory=lambda: DEFAULT_LIMITS, hash=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one node. `silence_seconds` is the time since its last heartbeat, None for never."""

    silence_seconds: float | None
    interval_seconds: float = 60.0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    clock_offset_seconds: float | None = None
    announced: str = Status.UNKNOWN
    spool_problem: str | None = None
    is_clone_suspected: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node is not simply ONLINE. `code` is for programs, `message` for people."""

    code: str
    status: Status
    message: str

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "status": str(self.status), "message": self.message}


@dataclass(frozen=True, slots=True)
class Judgement:
    status: Status
    reasons: tuple[Reason, ...] = ()


def late_after_seconds(interval_seconds: float) -> float:
    """Three missed intervals of the node's own, and 10 s."""
    return LATE_BEATS * interval_seconds + LATE_SLACK_SECONDS


def judge(facts: Facts, rules: Rules) -> Judgement:
    """The status in force and every reason for it, the worst first."""
    silence = facts.silence_seconds
    if silence is None:
        return Judgement(Status.UNKNOWN, (Reason("never_seen", Status.UNKNOWN, "No heartbeat yet."),))
    if silence > rules.offline_after_seconds and (not rules.is_settling or facts.announced == Status.OFFLINE):
        return Judgement(Status.OFFLINE, (Reason("silent", Status.OFFLINE, f"No heartbeat for {spell(silence)}."),))
    reasons = [reason for metric in METRICS if (reason := _judge_metric(metric, facts, rules)) is not None]
    if silence > late_after_seconds(facts.interval_seconds):
        reasons.append(Reason("late", Status.WARNING, f"Its heartbeat is late: the last was {spell(silence)} ago."))
    offset = facts.clock_offset_seconds
    if offset is not None and abs(offset) > CLOCK_WARNING_SECONDS:
        side = "ahead" if offset > 0 else "behind"
        reasons.append(Reason("clock", Status.WARNING, f"Its clock is {spell(abs(offset))} {side}."))
    if facts.is_clone_suspected:
        reasons.insert(0, Reason("clone", Status.CRITICAL, CLONE))
    if facts.spool_problem:
        reasons.append(Reason("spool", Status.WARNING, f"It takes no jobs: {facts.spool_problem}."))
    reasons.sort(key=lambda reason: WORST_FIRST.index(reason.status))
    return Judgement(reasons[0].status if reasons else Status.ONLINE, tuple(reasons))


def _judge_metric(metric: str, facts: Facts, rules: Rules) -> Reason | None:
    value, limits = facts.metrics.get(metric), rules.limits[metric]
    if value is None or value < limits.warning:
        return None
    status = Status.CRITICAL if value >= limits.critical else Status.WARNING
    return Reason(metric, status, f"{METRIC_LABELS[metric]} is at {value:.0f} %.")


def silence_between(last_seen_at: datetime | None, now: datetime) -> float | None:
    return None if last_seen_at is None else (now - last_seen_at).total_seconds()


def spell(seconds: float) -> str:
    """A duration in its largest whole unit: `45 s`, `12 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
