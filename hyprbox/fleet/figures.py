"""Charts and facts of the fleet and of one node. Reads nothing: what it draws was read before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hyprbox.fleet.state import COLOURS
from hyprbox.lib import drawing, words
from nodes.selectors import NodeDetail
from nodes.series import History
from nodes.status import DEFAULT_LIMITS, METRIC_LABELS


def _rows(history: History, metric: str) -> list[tuple[float, float, float]]:
    return [(at.timestamp(), average, highest) for at, average, highest in history.series[metric]]


def _drawn(history: History, lines: tuple[tuple[str, str, str], ...], **frame: int) -> drawing.Chart:
    return drawing.chart(
        [(key, label, _rows(history, metric)) for key, label, metric in lines],
        start=history.starts_at.timestamp(),
        end=history.ends_at.timestamp(),
        step=history.step_seconds,
        **frame,
    )


def fleet_chart(history: History) -> drawing.Chart:
    return _drawn(history, (("cpu", "CPU", "cpu_percent"), ("mem", "Memory", "memory_percent")))


@dataclass(frozen=True, slots=True)
class Metric:
    """One of the three big figures of a node's page."""

    key: str
    label: str
    now: float | None
    state: str
    limit_y: float
    warning: float
    chart: drawing.Chart
    note: str


def node_metrics(detail: NodeDetail, history: History) -> list[Metric]:
    return [_metric(detail, history, key, metric) for key, metric in COLOURS.items()]


def _metric(detail: NodeDetail, history: History, key: str, metric: str) -> Metric:
    value = getattr(detail.card, metric) if detail.card.is_fresh else None
    limits = DEFAULT_LIMITS[metric]
    state = "UNKNOWN" if value is None else "ONLINE"
    if value is not None and value >= limits.warning:
        state = "CRITICAL" if value >= limits.critical else "WARNING"
    label = METRIC_LABELS[metric]
    chart = _drawn(history, ((key, label, metric),), width=400, height=140, ticks=4)
    return Metric(key, label, value, state, 139 - 138 * limits.warning / 100, limits.warning, chart, _note(detail, key))


def _note(detail: NodeDetail, key: str) -> str:
    notes: dict[str, Callable[[NodeDetail], str]] = {"cpu": _cpu_note, "mem": _memory_note, "disk": _disk_note}
    return notes[key](detail)


def _cpu_note(detail: NodeDetail) -> str:
    loads = [detail.metrics.get(f"load_{minutes}") for minutes in (1, 5, 15)]
    cores = detail.inventory.get("cpu_count")
    parts = [f"{cores} core{'s' if cores != 1 else ''}"] if cores else []
    if all(load is not None for load in loads):
        parts.append("load " + " / ".join(f"{load:.1f}" for load in loads))
    return ", ".join(parts)


def _memory_note(detail: NodeDetail) -> str:
    total, swap = detail.metrics.get("memory_total_bytes"), detail.metrics.get("swap_percent")
    parts = []
    if total and detail.card.memory_percent is not None:
        parts.append(f"{_gib(total * detail.card.memory_percent / 100)} of {_gib(total)} GiB")
    if swap is not None:
        parts.append(f"swap {swap:.0f} %")
    return ", ".join(parts)


def _disk_note(detail: NodeDetail) -> str:
    total = detail.metrics.get("disk_total_bytes")
    if not total or detail.card.disk_percent is None:
        return ""
    return f"{_gib(total * detail.card.disk_percent / 100)} of {_gib(total)} GiB"


def _gib(count: float) -> str:
    return f"{count / 1024**3:.1f}"


def node_facts(detail: NodeDetail) -> list[tuple[str, Any, bool]]:
    """(name, value, whether it is an identifier) of what is known; unknown facts are left out."""
    inventory, card = detail.inventory, detail.card
    uptime = detail.metrics.get("uptime_seconds")
    addresses = [
        (f"Address {n}" if n > 1 else "Address", at, True)
        for n, at in enumerate(inventory.get("ip_addresses") or [], 1)
    ]
    facts: list[tuple[str, Any, bool]] = [
        ("System", card.os, False),
        ("Kernel", inventory.get("kernel"), True),
        ("Architecture", inventory.get("architecture"), True),
        ("Processors", inventory.get("cpu_count"), False),
        ("Virtualisation", inventory.get("virtualization"), False),
        ("Host name", inventory.get("hostname"), True),
        *addresses[:6],
        ("Region", card.region, False),
        ("Agent", card.agent_version, True),
        ("Heartbeat", f"every {card.interval_seconds} s" if card.last_seen_at else None, False),
        ("Uptime", None if uptime is None else words.duration(uptime), False),
        ("Processes", detail.metrics.get("processes"), False),
        ("Failed units", detail.metrics.get("failed_units"), False),
    ]
    return [fact for fact in facts if fact[1] not in (None, "", [])]
