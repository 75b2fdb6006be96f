"""`hyprbox jobs`."""

from __future__ import annotations

from typing import Any

import click

from agent.cli import names, printing
from agent.cli.api import Api
from agent.cli.base import current, family
from agent.cli.exits import FORBIDDEN, REFUSED, Trouble, UsageTrouble, exit_code_of
from agent.cli.options import BATCH, JOB, MAYBE_JOB, SINCE, chosen_limit, limits, without_empty
from agent.cli.outputs import output
from agent.cli.printing import Column
from agent.cli.waiting import tell_end, wait_for

jobs = family("jobs", "What was run: follow, cancel, retry, output.")
STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")


@jobs.command("list")
@click.option(
    "--status", multiple=True, type=click.Choice(STATUSES, case_sensitive=False), help="Only these; may be repeated."
)
@click.option("--node", default="", shell_complete=names.complete_nodes, help="Only on this server.")
@click.option("--preset", default="", shell_complete=names.complete_presets, help="Only of this preset.")
@click.option("--batch", type=click.UUID, help="Only of this batch.")
@click.option("--by", "created_by", default="", metavar="EMAIL", help="Only those that this person queued.")
@click.option("--since", type=SINCE, metavar="TIME", help="Queued from this on: 2h, 7d or a date.")
@click.option("--local", is_flag=True, help="Instead, what was run here with --target=local; as root.")
@limits
def list_jobs(
    status: tuple[str, ...], node: str, preset: str, batch: Any, created_by: str, since: str | None, local: bool,
    limit: int | None, everything: bool,
) -> None:  # fmt: skip
    """Jobs, the newest first."""
    if local:
        if status or node or preset or batch or created_by or since:
            raise UsageTrouble("--local takes no other filter than --limit or --all.")
        _list_local(chosen_limit(limit, everything))
        return
    query = without_empty(
        status=tuple(each.upper() for each in status), node_id=node, preset=preset, batch=batch and str(batch),
        created_by=created_by, since=since,
    )  # fmt: skip
    found = Api(current()).pages("/api/jobs", query, limit=chosen_limit(limit, everything))
    if current().as_json:
        printing.as_json(found)
        return
    columns = [
        Column("JOB"), Column("STATUS", coloured=True), Column("NODE"), Column("PRESET"),
        Column("EXIT", right=True, minor=1), Column("TOOK", minor=3), Column("QUEUED", minor=2), Column("BY", minor=4),
    ]  # fmt: skip
    printing.table(columns, [_row(job) for job in found], empty="No job matches.")


def _row(job: dict[str, Any]) -> list[Any]:
    name = job["preset"] + (" (check)" if job["mode"] == "check" else "")
    queued = printing.ago(job["created_at"])
    exit_code = "?" if job["outcome_unknown"] else job["exit_code"]
    return [job["id"], job["status"], job["node_id"], name, exit_code, printing.took(job), queued, job["created_by"]]


def _list_local(limit: int | None) -> None:
    from agent.cli import record

    try:
        found = record.runs()[:limit]
    except OSError as error:
        code = FORBIDDEN if isinstance(error, PermissionError) else REFUSED
        raise Trouble(f"{record.path()} cannot be read: {error.strerror}.", exit_code=code) from None
    if current().as_json:
        printing.as_json(found)
        return
    columns = [
        Column("STARTED"), Column("STATUS", coloured=True), Column("PRESET"), Column("EXIT", right=True, minor=1),
        Column("TOOK", minor=2), Column("BY", minor=3),
    ]  # fmt: skip
    rows = [
        (
            printing.ago(run["started_at"]), run.get("status") or "UNKNOWN",
            run["preset"] + (" (check)" if run["mode"] == "check" else ""), run.get("exit_code"),
            printing.took(run) if run.get("finished_at") else "", run["created_by"],
        )
        for run in found
    ]  # fmt: skip
    printing.table(columns, rows, empty="Nothing was run here without a control plane.")


@jobs.command("show")
@JOB
@click.option("--script", is_flag=True, help="Print the script that was frozen for it, and nothing else.")
def show(job_id: Any, script: bool) -> None:
    """All about one job."""
    job = Api(current()).get(f"/api/jobs/{job_id}")
    if current().as_json:
        printing.as_json(job)
        return
    if script:
        script_text = job["script"] or ""
        printing.write(printing.clean_text(script_text) if printing.is_terminal() else script_text)
        return
    printing.facts(_facts(job))
    if job["phases"]:
        printing.write("\n")
        columns = [Column("PHASE"), Column("EXIT", right=True), Column("TOOK"), Column("MEANS")]
        printing.table(columns, [_phase_row(phase) for phase in job["phases"]], empty="")


def _facts(job: dict[str, Any]) -> dict[str, Any]:
    unknown = "its outcome is not known" if job["outcome_unknown"] else ""
    return {
        "Job": job["id"],
        "Preset": f"{job['preset']}, revision {job['revision'][:12]}",
        "Mode": job["mode"],
        "Node": job["node_id"],
        "Status": job["status"],
        "Why": ", ".join(part for part in (job["reason"], unknown) if part),
        "Exit code": job["exit_code"],
        "Signal": job["signal"],
        "Changed": {True: "yes", False: "no"}.get(job["changed"]),
        "Queued": f"{printing.ago(job['created_at'])} by {job['created_by']}",
        "Started": printing.ago(job["started_at"]) if job["started_at"] else "",
        "Took": printing.took(job),
        "Cancel asked": printing.ago(job["cancel_requested_at"]) if job["cancel_requested_at"] else "",
        "Output": f"{job['stdout_bytes']:,} bytes of stdout, {job['stderr_bytes']:,} of stderr",
        "Retry of": job["retry_of"],
        "Batch": job["batch"],
        **{f"  {name}": value for name, value in (job["variables"] or {}).items()},
    }


def _phase_row(phase: dict[str, Any]) -> tuple[Any, ...]:
    if phase["skipped"]:
        return phase["name"], "", "", "not needed"
    code = phase["exit_code"] if phase["exit_code"] is not None else f"signal {phase['signal']}"
    return phase["name"], code, printing.duration(phase["duration_ms"] / 1000), _meaning(phase["name"], code)


def _meaning(name: str, code: Any) -> str:
    if name == "check":
        return {0: "already as wanted", 1: "not so yet"}.get(code, "failed")
    done = {"apply": "applied", "verify": "it is so now", "rollback": "rolled back"}
    return done.get(name, "done") if code == 0 else "failed"


@jobs.command("follow", short_help="The output from its beginning, live.")
@MAYBE_JOB
@BATCH
def follow(job_id: Any, batch: Any) -> int:
    """The output from its beginning, live until the end; exits with the job's exit code.

    Of a --batch: the output of all its jobs, each line with the name of its server; 0 when every one ended with 0, else 1.
    """
    _one_of(job_id, batch)
    api = Api(current())
    return _batch_followed(api, str(batch)) if batch else _followed(api, api.get(f"/api/jobs/{job_id}"))


def _one_of(job: Any, batch: Any) -> None:
    if bool(job) == bool(batch):
        raise UsageTrouble("Name a JOB, or all jobs of one order with --batch BATCH.")


def _followed(api: Api, job: dict[str, Any]) -> int:
    from agent.cli.apply import with_output

    [ended] = wait_for(api, [job])
    tell_end([ended])
    if current().as_json:
        printing.as_json(with_output(api, ended))
    return exit_code_of(ended)


def _batch_followed(api: Api, batch: str) -> int:
    from agent.cli.apply import with_output

    api.get(f"/api/jobs/batches/{batch}")  # there is such a batch
    found = list(reversed(api.pages("/api/jobs", {"batch": batch})))
    ended = wait_for(api, found, batch=batch)
    stopped = api.get(f"/api/jobs/batches/{batch}")["stopped_because"] or ""
    code = tell_end(ended, stopped=stopped)
    if current().as_json:
        printing.as_json({"batch": batch, "jobs": [with_output(api, job) for job in ended]})
    return code


@jobs.command("cancel", short_help="Cancel jobs.")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1, type=click.UUID)
@BATCH
@click.option("--force", is_flag=True, help="Give up a job whose server cannot be reached; for admins.")
def cancel(job_ids: tuple[Any, ...], batch: Any, force: bool) -> None:
    """Cancel jobs: a queued one ends at once, a running one as soon as its server has ended all that it started."""
    _one_of(job_ids, batch)
    api = Api(current())
    if batch:
        if force:
            raise UsageTrouble("--force is for single jobs: name them.")
        _cancel_batch(api, str(batch))
        return
    ended = [api.post(f"/api/jobs/{job_id}/cancel", {"force": force}) for job_id in job_ids]
    if current().as_json:
        printing.as_json(ended)
        return
    for job in ended:
        is_over = job["status"] == "CANCELLED"
        printing.say(f"{job['id']} on {job['node_id']} " + ("is cancelled." if is_over else "is being cancelled."))


def _cancel_batch(api: Api, batch: str) -> None:
    found = api.post(f"/api/jobs/batches/{batch}/cancel", {})
    if current().as_json:
        printing.as_json(found)
        return
    counts = found["counts"]
    still = f", {printing.plural(counts['RUNNING'], 'job')} being cancelled" if counts["RUNNING"] else ""
    printing.say(f"{printing.plural(counts['CANCELLED'], 'job')} cancelled{still}.")


@jobs.command("retry", short_help="Queue the same once more, as a new job.")
@MAYBE_JOB
@BATCH
@click.option("--yes", "-y", is_flag=True, help="Do not ask, however many jobs of a batch failed.")
@click.option("--wait", "-w", is_flag=True, help="Follow the output and exit with the job's exit code.")
def retry(job_id: Any, batch: Any, yes: bool, wait: bool) -> int:
    """Queue the same once more, as a new job; of a --batch those that failed, as a new batch."""
    _one_of(job_id, batch)
    api = Api(current())
    if batch:
        made = _batch_retried(api, str(batch), yes)
        if wait:
            return _batch_followed(api, made["id"])
    else:
        made = api.post(f"/api/jobs/{job_id}/retry", {})
        if wait:
            printing.note(f"Job {made['id']} on {made['node_id']}.")
            return _followed(api, made)
    if current().as_json:
        printing.as_json(made)
    else:
        printing.say(made["id"])
    return 0


def _batch_retried(api: Api, batch: str, yes: bool) -> Any:
    from agent.cli.confirming import confirm_retry

    found = api.get(f"/api/jobs/batches/{batch}")
    confirm = confirm_retry(found["preset"], found["counts"]["FAILED"], yes=yes)
    return api.post(f"/api/jobs/batches/{batch}/retry", {"confirm": confirm})


jobs.add_command(output)
COMMANDS = {"jobs": jobs}
