"""`hyprbox nodes`."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import click

from agent.cli import names, printing
from agent.cli.api import Api
from agent.cli.base import confirmed, current, family, is_tty
from agent.cli.exits import UsageTrouble
from agent.cli.options import STATUSES, Statuses, without_empty
from agent.cli.printing import Column
from agent.cli.status import why

nodes = family("nodes", "The servers. How they are, their tags, and forgetting them.")


def path_of(node_id: str) -> str:
    return f"/api/nodes/{quote(node_id, safe='')}"


@nodes.command("list")
@click.option("--status", multiple=True, type=Statuses(), help=f"Only these: {', '.join(STATUSES)}.")
@click.option("--group", default="", shell_complete=names.complete_groups, help="Only this group.")
@click.option("--tag", default="", shell_complete=names.complete_tags, help="Only with this tag.")
@click.option("--search", "-q", default="", metavar="TEXT", help="Only where the name or address has this.")
@click.option("--order", default="", metavar="FIELD", help="Such as node_id, status or last_seen_at; -FIELD reverses.")
def list_nodes(status: tuple[str, ...], group: str, tag: str, search: str, order: str) -> None:
    """All servers."""
    api = Api(current())
    query = without_empty(status=status, group=group, tag=tag, q=search, ordering=order)
    found = api.pages("/api/nodes", query)
    if not query:
        names.remember(api.url, nodes=[node["node_id"] for node in found])
    if current().as_json:
        printing.as_json(found)
        return
    columns = [
        Column("NODE"),
        Column("STATUS", coloured=True),
        Column("CPU", right=True),
        Column("MEM", right=True),
        Column("DISK", right=True),
        Column("SEEN", minor=3),
        Column("GROUP", minor=2),
        Column("TAGS", flexible="wrap", minor=1),
    ]
    printing.table(columns, [_row(node) for node in found], empty="No server matches.")


def _row(node: dict[str, Any]) -> list[Any]:
    metrics = node["metrics"] or {}
    measured = [printing.percent(metrics.get(f"{name}_percent")) for name in ("cpu", "memory", "disk")]
    seen = printing.ago(node["last_seen_at"])
    return [node["node_id"], node["status"], *measured, seen, node["group"], ",".join(node["tags"])]


@nodes.command("show")
@click.argument("node_id", metavar="NODE", shell_complete=names.complete_nodes)
def show(node_id: str) -> None:
    """All about one server."""
    node = Api(current()).get(path_of(node_id))
    if current().as_json:
        printing.as_json(node)
        return
    metrics, inventory = node["metrics"] or {}, node["inventory"] or {}
    measured = {"CPU": "cpu_percent", "Memory": "memory_percent", "Disk": "disk_percent"}
    printing.facts(
        {
            "Node": node["node_id"],
            "Name": node["display_name"],
            "Status": node["status"],
            "Why": why(node),
            "Seen": printing.ago(node["last_seen_at"]),
            **{title: printing.percent(metrics.get(key)) for title, key in measured.items()},
            "Load": metrics.get("load_1"),
            "Uptime": printing.duration(metrics["uptime_seconds"]) if metrics.get("uptime_seconds") else "",
            "Group": node["group"],
            "Tags": ", ".join(node["tags"]),
            "System": node["os"],
            "Kernel": inventory.get("kernel"),
            "Architecture": inventory.get("architecture"),
            "Addresses": ", ".join(map(str, inventory.get("ip_addresses") or [])),
            "Region": node["region"],
            "Agent": node["agent_version"],
            "Notes": node["notes"],
        }
    )


@nodes.command("tag", short_help="Tags and the group of a server.")
@click.argument("node_id", metavar="NODE", shell_complete=names.complete_nodes)
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.option("--remove", multiple=True, metavar="TAG", help="Take this tag away; may be repeated.")
@click.option("--group", help='Put the server into this group; "" takes it out of its group.')
def tag(node_id: str, tags: tuple[str, ...], remove: tuple[str, ...], group: str | None) -> None:
    """Add tags to a server, take tags away, or choose its group. Without any of these, show its tags."""
    api = Api(current())
    node = api.get(path_of(node_id))
    changes: dict[str, Any] = {} if group is None else {"group": group}
    if tags or remove:
        wanted = dict.fromkeys([*node["tags"], *tags])
        changes["tags"] = [each for each in wanted if each not in remove]
    if changes:
        node = api.patch(path_of(node_id), changes)
    if current().as_json:
        printing.as_json({name: node[name] for name in ("node_id", "group", "tags")})
        return
    for each in node["tags"]:
        printing.say(each)
    if not node["tags"]:
        printing.note(f"{node_id} has no tags.")


@nodes.command("remove", short_help="Forget a server.")
@click.argument("node_id", metavar="NODE", shell_complete=names.complete_nodes)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def remove(node_id: str, yes: bool) -> None:
    """Forget a server: its token ends, its queued jobs are cancelled, its history stays in the audit log."""
    api = Api(current())
    if not yes:
        if not is_tty(sys.stdin):
            raise UsageTrouble(f"Removing {node_id} cannot be undone: add --yes.", code="confirm")
        node = api.get(path_of(node_id))
        confirmed(f"Remove {node['node_id']} ({node['status'].lower()})? Its token ends at once.")
    api.delete(path_of(node_id))
    if current().as_json:
        printing.as_json({"node_id": node_id, "removed": True})
    else:
        printing.say(f"{node_id} is removed.")


COMMANDS = {"nodes": nodes}
