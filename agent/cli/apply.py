"""`hyprbox preset apply`: on servers through the control plane, or right here with `--target=local`."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import click

from agent.cli import names, printing, variables
from agent.cli.api import Api
from agent.cli.base import command, current
from agent.cli.confirming import confirm_run
from agent.cli.exits import UsageTrouble
from agent.cli.options import Duration, Statuses, without_empty
from agent.cli.printing import Column
from agent.cli.targets import Targets


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
    wave_size: int | None = None
    stop_after: int | None = None
    allow_background: bool = False

    def body(self, confirm: str) -> dict[str, Any]:
        options = without_empty(
            timeout_seconds=self.timeout_seconds,
            expires_in_seconds=self.expires_in_seconds,
            allow_background=self.allow_background,
        )
        return {"preset": self.preset, "variables": self.values, "mode": self.mode, "confirm": confirm, **options}

    @property
    def pace(self) -> dict[str, Any]:
        return without_empty(wave_size=self.wave_size, stop_after_failures=self.stop_after)

    def confirmed(self, risk: str, node_ids: list[str], warnings: list[str]) -> str:
        """A dry run changes nothing, so nobody is asked about it."""
        if self.mode == "check":
            return self.confirm
        return confirm_run(self.preset, risk, node_ids, confirm=self.confirm, yes=self.yes, warnings=warnings)


@command("apply", short_help="Run a preset on servers, or on this machine.")
@click.argument("name", shell_complete=names.complete_presets)
@click.option(
    "--target", "-t", "targets", multiple=True, metavar="NODE", shell_complete=names.complete_targets,
    help="On this server; may be repeated. `local` is this machine, without a control plane.",
)  # fmt: skip
@click.option(
    "--tag", "tags", multiple=True, metavar="TAG", shell_complete=names.complete_tags,
    help="On all servers with this tag, or one of these.",
)  # fmt: skip
@click.option(
    "--group", "groups", multiple=True, metavar="GROUP", shell_complete=names.complete_groups,
    help="On all servers of this group.",
)  # fmt: skip
@click.option(
    "--status", "statuses", multiple=True, type=Statuses(), help="On all servers that are so, such as online."
)
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A variable's value; may be repeated.")
@click.option("--vars-file", default="", metavar="FILE", help="Values in YAML or JSON; - is stdin. --set comes first.")
@click.option("--check", is_flag=True, help="A dry run: only see whether something would change.")
@click.option("--confirm", default="", metavar="NAME", help="The preset's name once more, for a dangerous one.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask, unless the preset is dangerous.")
@click.option("--wait", "-w", is_flag=True, help="Follow the output and exit with the job's exit code.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="End it after this long, such as 15m.")
@click.option("--expires", type=Duration(), metavar="TIME", help="Give it up if the server has not come by then.")
@click.option(
    "--wave-size",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="So many servers at a time; where more than 50 change, at most 50.",
)
@click.option("--stop-after", type=click.IntRange(1, 1000), metavar="N", help="Start no more waves after N failures.")
@click.option("--allow-background", is_flag=True, help="Let what the script leaves running go on when it has ended.")
def apply(
    name: str, targets: tuple[str, ...], tags: tuple[str, ...], groups: tuple[str, ...], statuses: tuple[str, ...],
    assignments: tuple[str, ...], vars_file: str, check: bool, confirm: str, yes: bool, wait: bool, timeout: int | None,
    expires: int | None, wave_size: int | None, stop_after: int | None,
    allow_background: bool,
) -> int:  # fmt: skip
    """Run the preset NAME on servers, or with --target=local on this machine.

    Of --tag, --group and --status together, a server has to fit each.
    """
    where = Targets(targets, tags, groups, statuses)
    where.check()
    values = variables.gather(assignments, vars_file)
    mode = "check" if check else "apply"
    order = Order(name, values, mode, confirm, yes, timeout, expires, wave_size, stop_after, allow_background)
    if not where.is_here:
        return _apply_there(order, where, wait)
    if wave_size or stop_after or expires:
        raise UsageTrouble("--wave-size, --stop-after and --expires are for servers: --target=local runs here, now.")
    return _apply_here(order)


def _apply_here(order: Order) -> int:
    from agent.cli import local
    from agent.cli.sinks import Sink
    from agent.cli.waiting import tell_end

    preset = local.find(order.preset)
    rendered = local.prepare(preset, order.values, mode=order.mode)
    warnings = list(rendered.warnings)
    order.confirmed(preset.risk, [], warnings)
    sink = None if current().as_json else Sink()
    job = local.run(
        preset,
        rendered,
        mode=order.mode,
        timeout_seconds=order.timeout_seconds,
        allow_background=order.allow_background,
        sink=sink,
    )
    code = tell_end([job])
    if current().as_json:
        printing.as_json({"batch": None, "jobs": [job], "warnings": warnings})
    return code


def _apply_there(order: Order, where: Targets, wait: bool) -> int:
    from agent.cli.waiting import tell_end, wait_for

    api = Api(current())
    path = f"/api/presets/{quote(order.preset, safe='')}"
    preset = api.get(path)
    node_ids = where.find(api)
    # Before anybody is asked anything: the values are judged, and what is odd about them is said.
    warnings = api.post(f"{path}/render", {"variables": order.values}, is_repeatable=True)["warnings"]
    confirm = order.confirmed(preset["risk"], node_ids, warnings)
    batch, jobs = _queue(api, order, confirm, node_ids)
    if not wait:
        _print_queued(batch, jobs, warnings)
        return 0
    printing.note(f"Job {jobs[0]['id']} on {jobs[0]['node_id']}." if batch is None else f"Batch {batch}.")
    ended = wait_for(api, jobs, batch=batch)
    code = tell_end(ended, stopped=_stopped(api, batch))
    if current().as_json:
        found = [with_output(api, job) for job in ended]
        printing.as_json({"batch": batch, "jobs": found, "warnings": warnings})
    return code


def _stopped(api: Api, batch: str | None) -> str:
    """Why the rest of a batch was cancelled; empty when it was not."""
    return "" if batch is None else api.get(f"/api/jobs/batches/{batch}")["stopped_because"] or ""


def _queue(api: Api, order: Order, confirm: str, node_ids: list[str]) -> tuple[str | None, list[dict[str, Any]]]:
    body, key = order.body(confirm), str(uuid.uuid4())
    if len(node_ids) == 1:
        return None, [api.post("/api/jobs", {**body, "node_id": node_ids[0]}, key=key)]
    answer = api.post("/api/jobs/batches", {**body, **order.pace, "node_ids": node_ids}, key=key)
    return answer["id"], answer["jobs"]


def _print_queued(batch: str | None, jobs: list[dict[str, Any]], warnings: list[str]) -> None:
    if current().as_json:
        printing.as_json({"batch": batch, "jobs": jobs, "warnings": warnings})
        return
    columns = [Column("JOB"), Column("NODE"), Column("STATUS", coloured=True)]
    printing.table(columns, [(job["id"], job["node_id"], job["status"]) for job in jobs], empty="")
    follow = f"hyprbox jobs follow {jobs[0]['id']}" if batch is None else f"hyprbox jobs follow --batch {batch}"
    printing.note(f"See how it goes: {follow}")


def with_output(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    """With the kept output as text, for JSON."""
    path = f"/api/jobs/{job['id']}"
    texts = {
        stream: api.call("GET", f"{path}/output", params={"stream": stream}).content.decode("utf-8", "replace")
        for stream in ("stdout", "stderr")
    }
    return {**api.get(path), **texts}
