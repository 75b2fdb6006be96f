"""/styleguide (with DEBUG): every component with made-up values, so that each can be looked at without a fleet."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from hyprbox.fleet.feed import Line
from hyprbox.lib import drawing
from hyprbox.lib.templatetags.ui import LOOKS
from nodes.selectors import NodeCard
from nodes.series import Spark
from nodes.status import Reason, Status

NAMES = ("web-eu-01", "db-eu-02", "prod-eu-central-1b-kubernetes-worker-general-purpose-017", "pi-lobby", "new-1")
FIGURES = {
    Status.ONLINE: (34.0, 61.0, 42.0),
    Status.CRITICAL: (98.0, 94.0, 88.0),
    Status.WARNING: (23.0, 52.0, 91.0),
    Status.OFFLINE: (12.0, 40.0, 30.0),
    Status.UNKNOWN: (None, None, None),
}
WAVE = [20.0, 24, 22, 30, 41, 38, None, 55, 61, 58, 70, 64]


def _card(name: str, status: Status, minutes: int) -> NodeCard:
    now = timezone.now()
    cpu, memory, disk = FIGURES[status]
    seen = None if status is Status.UNKNOWN else now - timedelta(minutes=minutes)
    spark = Spark(now, 1800, list(WAVE), list(WAVE), list(WAVE)) if seen else None
    reasons = () if status is Status.ONLINE else (Reason("made_up", status, "Made up for this page."),)
    return NodeCard(
        uuid.uuid5(uuid.NAMESPACE_DNS, name), name, "", "northwind", ["web", "prod"], "Falkenstein", "Debian 13", "0.1.0",
        10, status, reasons, now - timedelta(hours=2), seen, seen, cpu, memory, disk, spark,
    )  # fmt: skip


def _chart() -> drawing.Chart:
    start = 1_795_000_000.0
    rows = [[start + n * 7200, value, None if value is None else value + 8] for n, value in enumerate(WAVE)]
    shifted = [[at, None if value is None else 100 - value, None] for at, value, _ in rows]
    series = [("cpu", "CPU", rows), ("mem", "Memory", shifted)]
    return drawing.chart(series, start=start, end=start + 86_400, step=7200)


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    context: dict[str, Any] = {
        "looks": sorted(LOOKS),
        "cards": [_card(name, status, 3 * n) for n, (name, status) in enumerate(zip(NAMES, FIGURES, strict=True))],
        "chart": _chart(),
        "lines": [
            Line(now, "hb", "pulse", NAMES[0], "cpu  34 %   mem  61 %   disk  42 %"),
            Line(now, "st", "status-crit", NAMES[1], "Critical. CPU is at 98 %.", "crit", "status"),
        ],
        "script": "#!/usr/bin/env bash\nset -euo pipefail\n\nreadonly SERVER_NAME='example.org'\nhb_apply() {\n  echo \"$SERVER_NAME\"\n}\n",
        "charts": True,
        "now": now,
    }
    return render(request, "styleguide.html", context)
