"""`hyprbox preset apply`: on servers through the control plane, or right here with `--target=local`."""

from __future__ import annotations

import sys
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import click

from agent.cli import names, printing, variables
from agent.cli.api import Api
from agent.cli.base import clean, command, confirmed, current, is_tty
from agent.cli.exits import NotThere, UsageTrouble
from agent.cli.options import Duration, without_empty
from agent.cli.printing import Column

LOCAL = "local"
MAX_TARGETS = 1000


@dataclass(frozen=True)
class Order:
    """What was asked for, as far as the command line tells."""

    preset: str
    values: dict[str, Any]
    mode: str
    confirm: str
    yes: bool
    timeout_seconds: int | None
    expires_in_seconds: int | None

    def body(self, confirm: str) -> dict[str, Any]:
        numbers = without_empty(timeout_seconds=self.timeout_seconds, expires_in_seconds=self.expires_in_seconds)
        return {"preset": self.preset, "variables": self.values, "mode": self.mode, "confirm": confirm, **numbers}


@command("apply", short_help="Run a preset on servers, or on this machine.")
@click.argument("name", shell_complete=names.complete_presets)
@click.option(
    "--target", "-t", "targets", multiple=True, metavar="NODE", shell_complete=names.complete_targets,
    help="On this server; may be repeated. `local` is this machine, without a control plane.",
)  # fmt: skip
@click.option("--tag", default="", help="On all servers with this tag.")
@click.option("--group", default="", help="On all servers of this group; with --tag, on those that have both.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A variable's value; may be repeated.")
@click.option("--vars-file", default="", metavar="FILE", help="Values in YAML or JSON; - is stdin. --set comes first.")
@click.option("--check", is_flag=True, help="A dry run: only see whether something would change.")
@click.option("--confirm", default="", metavar="NAME", help="The preset's name once more, for a dangerous one.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask, unless the preset is dangerous.")
@click.option("--wait", "-w", is_flag=True, help="Follow the output and exit with the job's exit code.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="End it after this long, such as 15m.")
@click.option("--expires", type=Duration(), metavar="TIME", help="Give it up if the server has not come by then.")
def apply(
    name: str, targets: tuple[str, ...], tag: str, group: str, assignments: tuple[str, ...], vars_file: str,
    check: bool, confirm: str, yes: bool, wait: bool, timeout: int | None, expires: int | None,
) -> int:  # fmt: skip
    """Run the preset NAME on servers, or with --target=local on this machine."""
    if bool(targets) == bool(tag or group):
        raise UsageTrouble("Say where: either --target NODE, or --tag or --group.")
    values = variables.gather(assignments, vars_file)
    order = Order(name, values, "check" if check else "apply", confirm, yes, timeout, expires)
    if LOCAL in targets:
        if len(set(targets)) > 1:
            raise UsageTrouble("--target=local runs here, without a control plane: it goes with no other target.")
        return _apply_here(order)
    return _apply_there(order, targets, tag, group, wait)


def _apply_here(order: Order) -> int:
    from agent.cli import local
    from agent.cli.sinks import Sink
    from agent.cli.waiting import tell_end

    preset = local.find(order.preset)
    rendered = local.prepare(preset, order.values, mode=order.mode)
    _confirmed(order, preset.risk, "this machine")
    sink = None if current().as_json else Sink()
    job = local.run(preset, rendered, mode=order.mode, timeout_seconds=order.timeout_seconds, sink=sink)
    code = tell_end([job])
    if current().as_json:
        printing.as_json({"batch": None, "jobs": [job]})
    return code


def _apply_there(order: Order, targets: tuple[str, ...], tag: str, group: str, wait: bool) -> int:
    from agent.cli.waiting import tell_end, wait_for

    api = Api(current())
    preset = api.get(f"/api/presets/{quote(order.preset, safe='')}")
    node_ids = list(dict.fromkeys(targets)) or _matching(api, tag, group)
    confirm = _confirmed(order, preset["risk"], _where(node_ids))
    batch, jobs = _queue(api, order, confirm, node_ids)
    if not wait:
        _print_queued(batch, jobs)
        return 0
    for job in jobs[:1] if len(jobs) == 1 else []:
        printing.note(f"Job {job['id']} on {job['node_id']}.")
    ended = wait_for(api, jobs, batch=batch)
    code = tell_end(ended)
    if current().as_json:
        printing.as_json({"batch": batch, "jobs": [with_output(api, job) for job in ended]})
    return code


def _matching(api: Api, tag: str, group: str) -> list[str]:
    found = [node["node_id"] for node in api.pages("/api/nodes", without_empty(tag=tag, group=group))]
    wanted = " and ".join(part for part in (tag and f"the tag “{tag}”", group and f"the group “{group}”") if part)
    if not found:
        raise NotThere(f"No server has {wanted}.", code="no_target")
    if len(found) > MAX_TARGETS:
        raise UsageTrouble(f"{len(found):,} servers have {wanted}; at most {MAX_TARGETS:,} are possible at once.")
    return found


def _where(node_ids: list[str]) -> str:
    if len(node_ids) <= 5:
        return ", ".join(node_ids)
    return f"{len(node_ids):,} servers ({', '.join(node_ids[:3])}, ...)"


def _confirmed(order: Order, risk: str, where: str) -> str:
    """Asks a person where the risk wants it; returns what to confirm with. Raises `UsageTrouble`, `click.Abort`."""
    if order.mode == "check" or risk == "safe" or (risk == "confirm" and (order.yes or not _can_ask())):
        return order.confirm
    if risk != "dangerous":
        confirmed(f"Run {order.preset} on {where}?")
        return order.confirm
    if order.confirm == order.preset:
        return order.confirm
    if order.confirm or not _can_ask():
        raise UsageTrouble(
            f"{order.preset} is dangerous: confirm it with --confirm {order.preset}. It would run on {where}.",
            code="confirm",
        )
    question = f"{order.preset} is dangerous and would run on {where}. Type its name to go on"
    if click.prompt(clean(question), err=True).strip() != order.preset:
        raise UsageTrouble("That is not its name. Nothing was run.", code="confirm")
    return order.preset


def _can_ask() -> bool:
    return is_tty(sys.stdin) and is_tty(sys.stderr)


def _queue(api: Api, order: Order, confirm: str, node_ids: list[str]) -> tuple[str | None, list[dict[str, Any]]]:
    body, key = order.body(confirm), str(uuid.uuid4())
    if len(node_ids) == 1:
        return None, [api.post("/api/jobs", {**body, "node_id": node_ids[0]}, key=key)]
    answer = api.post("/api/jobs/batches", {**body, "node_ids": node_ids}, key=key)
    return answer["id"], answer["jobs"]


def _print_queued(batch: str | None, jobs: list[dict[str, Any]]) -> None:
    if current().as_json:
        printing.as_json({"batch": batch, "jobs": jobs})
        return
    columns = [Column("JOB"), Column("NODE"), Column("STATUS", coloured=True)]
    printing.table(columns, [(job["id"], job["node_id"], job["status"]) for job in jobs], empty="")
    follow = f"hyprbox jobs follow {jobs[0]['id']}" if len(jobs) == 1 else f"hyprbox jobs list --batch {batch}"
    printing.note(f"See how it goes: {follow}")


def with_output(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    """With the kept output as text, for JSON."""
    path = f"/api/jobs/{job['id']}"
    texts = {
        stream: api.call("GET", f"{path}/output", params={"stream": stream}).content.decode("utf-8", "replace")
        for stream in ("stdout", "stderr")
    }
    return {**api.get(path), **texts}
