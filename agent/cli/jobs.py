"""`hyprbox jobs`."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import click
import requests

from agent.cli import names, printing
from agent.cli.api import Api, unreachable
from agent.cli.base import current, family
from agent.cli.exits import Trouble, exit_code_of
from agent.cli.follow import STREAMS
from agent.cli.options import SINCE, chosen_limit, limits, without_empty
from agent.cli.printing import Column
from agent.cli.sinks import Sink
from agent.cli.waiting import tell_end, wait_for

jobs = family("jobs", "What was run: follow, cancel, retry, output.")
STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")
JOB = click.argument("job_id", metavar="JOB", type=click.UUID)


@jobs.command("list")
@click.option(
    "--status", multiple=True, type=click.Choice(STATUSES, case_sensitive=False), help="Only these; may be repeated."
)
@click.option("--node", default="", shell_complete=names.complete_nodes, help="Only on this server.")
@click.option("--preset", default="", shell_complete=names.complete_presets, help="Only of this preset.")
@click.option("--batch", type=click.UUID, help="Only of this batch.")
@click.option("--by", "created_by", default="", metavar="EMAIL", help="Only those that this person queued.")
@click.option("--since", type=SINCE, metavar="TIME", help="Queued from this on: 2h, 7d or a date.")
@limits
def list_jobs(
    status: tuple[str, ...], node: str, preset: str, batch: Any, created_by: str, since: str | None,
    limit: int | None, everything: bool,
) -> None:  # fmt: skip
    """Jobs, the newest first."""
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
        columns = [Column("PHASE"), Column("EXIT", right=True), Column("TOOK")]
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
        return phase["name"], "skipped", ""
    code = phase["exit_code"] if phase["exit_code"] is not None else f"signal {phase['signal']}"
    return phase["name"], code, printing.duration(phase["duration_ms"] / 1000)


@jobs.command("follow", short_help="The output from its beginning, live.")
@JOB
def follow(job_id: Any) -> int:
    """The output from its beginning, live until the end; exits with the job's exit code."""
    api = Api(current())
    return _followed(api, api.get(f"/api/jobs/{job_id}"))


def _followed(api: Api, job: dict[str, Any]) -> int:
    from agent.cli.apply import with_output

    [ended] = wait_for(api, [job])
    tell_end([ended])
    if current().as_json:
        printing.as_json(with_output(api, ended))
    return exit_code_of(ended)


@jobs.command("cancel", short_help="Cancel jobs.")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True, type=click.UUID)
@click.option("--force", is_flag=True, help="Give up a job whose server cannot be reached; for admins.")
def cancel(job_ids: tuple[Any, ...], force: bool) -> None:
    """Cancel jobs: a queued one ends at once, a running one as soon as its server has ended all that it started."""
    api = Api(current())
    ended = [api.post(f"/api/jobs/{job_id}/cancel", {"force": force}) for job_id in job_ids]
    if current().as_json:
        printing.as_json(ended)
        return
    for job in ended:
        is_over = job["status"] == "CANCELLED"
        printing.say(f"{job['id']} on {job['node_id']} " + ("is cancelled." if is_over else "is being cancelled."))


@jobs.command("retry")
@JOB
@click.option("--wait", "-w", is_flag=True, help="Follow the output and exit with the job's exit code.")
def retry(job_id: Any, wait: bool) -> int:
    """Queue the same once more, as a new job."""
    api = Api(current())
    job = api.post(f"/api/jobs/{job_id}/retry", {})
    if wait:
        printing.note(f"Job {job['id']} on {job['node_id']}.")
        return _followed(api, job)
    if current().as_json:
        printing.as_json(job)
    else:
        printing.say(job["id"])
    return 0


@jobs.command("output", short_help="What a job wrote, byte for byte.")
@JOB
@click.option("--stream", type=click.Choice(STREAMS), help="Only this one, to stdout.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Into this file; with --stream.")
def output(job_id: Any, stream: str | None, output: Path | None) -> None:
    """What the job wrote, byte for byte: its stdout to stdout, its stderr to stderr."""
    api = Api(current())
    if current().as_json:
        printing.as_json({name: _as_document(api, job_id, name) for name in ([stream] if stream else STREAMS)})
        return
    if output is not None:
        _save(api, job_id, stream or "stdout", output)
        return
    for name in [stream] if stream else STREAMS:
        _copy(api, job_id, name, "stdout" if stream else name)


def _copy(api: Api, job_id: Any, stream: str, target: str) -> None:
    sink = Sink()
    with api.download(f"/api/jobs/{job_id}/output", {"stream": stream}) as answer:
        first = int(answer.headers.get("X-First-Offset", 0))
        if first:
            sink.gap(stream, first)
        try:
            for piece in answer.iter_content(64 * 1024):
                sink.write(target, piece)
        except requests.exceptions.RequestException as error:
            raise unreachable(api.url, error) from None
    sink.close()


def _as_document(api: Api, job_id: Any, stream: str) -> dict[str, Any]:
    """`text` is for people; `base64` has every byte."""
    answer = api.call("GET", f"/api/jobs/{job_id}/output", params={"stream": stream})
    return {
        "first_offset": int(answer.headers.get("X-First-Offset", 0)),
        "total_bytes": int(answer.headers.get("X-Total-Bytes", len(answer.content))),
        "text": answer.content.decode("utf-8", "replace"),
        "base64": base64.b64encode(answer.content).decode(),
    }


def _save(api: Api, job_id: Any, stream: str, path: Path) -> None:
    content = api.call("GET", f"/api/jobs/{job_id}/output", params={"stream": stream}).content
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error.strerror}.", code="not_writable") from None
    print(f"{len(content):,} bytes in {path}.", file=sys.stderr)


COMMANDS = {"jobs": jobs}
