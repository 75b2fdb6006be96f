"""`hyprbox status`: the fleet at a glance."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from agent.cli import printing
from agent.cli.api import MOST_COUNTED, Api
from agent.cli.base import command, current
from agent.cli.printing import Column

STATUSES = ("ONLINE", "WARNING", "CRITICAL", "OFFLINE", "UNKNOWN")
NEEDS_ATTENTION = ("CRITICAL", "OFFLINE", "WARNING")
SHOWN = 20


@command("status", short_help="How the fleet is.")
def status() -> None:
    """How many servers there are and how they are, what runs, and what needs a person."""
    api = Api(current())
    summary = _summary(api)
    if current().as_json:
        printing.as_json(summary)
    else:
        _print(summary)


def _summary(api: Api) -> dict[str, Any]:
    user = api.get("/api/auth/me")
    counts = {name: api.count("/api/nodes", {"status": name}) for name in STATUSES}
    since = (datetime.now(timezone.utc) - timedelta(hours=24)).isoformat()
    jobs = {name.lower(): api.count("/api/jobs", {"status": name}) for name in ("RUNNING", "QUEUED")}
    jobs["failed_24h"] = api.count("/api/jobs", {"status": "FAILED", "since": since})
    jobs["succeeded_24h"] = api.count("/api/jobs", {"status": "SUCCEEDED", "since": since})
    attention: list[dict[str, Any]] = []
    if any(counts[name] for name in NEEDS_ATTENTION):
        attention = api.pages("/api/nodes", {"status": ",".join(NEEDS_ATTENTION), "ordering": "status"}, limit=SHOWN)
    return {
        "url": api.url,
        "user": {"email": user["email"], "role": user["role"]},
        "nodes": {"total": sum(counts.values()), **{name.lower(): number for name, number in counts.items()}},
        "jobs": jobs,
        "attention": [
            {name: node[name] for name in ("node_id", "status", "reasons", "last_seen_at")} for node in attention
        ],
    }


def _told(count: int) -> str:
    return f"{count:,}" if count <= MOST_COUNTED else f"more than {MOST_COUNTED:,}"


def _print(summary: dict[str, Any]) -> None:
    nodes, jobs = summary["nodes"], summary["jobs"]
    by_status = ", ".join(f"{nodes[name.lower()]:,} {name.lower()}" for name in STATUSES if nodes[name.lower()])
    day = f"{_told(jobs['succeeded_24h'])} succeeded, {_told(jobs['failed_24h'])} failed in 24 h"
    printing.facts(
        {
            "Control plane": f"{summary['url']}, as {summary['user']['email']} ({summary['user']['role']})",
            "Nodes": f"{nodes['total']:,}" + (f": {by_status}" if by_status else ""),
            "Jobs": f"{_told(jobs['running'])} running, {_told(jobs['queued'])} queued; {day}",
        }
    )
    if summary["attention"]:
        printing.write("\n")
        columns = [Column("NODE"), Column("STATUS", coloured=True), Column("SEEN"), Column("WHY", flexible="wrap")]
        rows = [
            (node["node_id"], node["status"], printing.ago(node["last_seen_at"]), why(node))
            for node in summary["attention"]
        ]
        printing.table(columns, rows, empty="")
        bad = sum(nodes[name.lower()] for name in NEEDS_ATTENTION)
        if bad > len(rows):
            printing.note(f"... and {bad - len(rows):,} more: hyprbox nodes list --status offline,critical,warning")


def why(node: dict[str, Any]) -> str:
    return "; ".join(str(reason["message"]).rstrip(".") for reason in node["reasons"])


COMMANDS = {"status": status}
