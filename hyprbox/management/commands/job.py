"""`manage.py job queue|list|cancel`: jobs, for whoever has a shell on the host."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError
from hyprbox.management.firsts import sentence
from hyprbox.management.tables import aligned, as_json
from jobs import batches, selectors, services
from jobs.api import JobRowSerializer
from jobs.models import Job
from jobs.states import Mode, Status
from nodes.selectors import NodeFilter, list_nodes

_BY = Actor.system("manage.py job")
_HEADING = ("JOB", "QUEUED", "STATUS", "NODE", "PRESET", "BY")


class Command(BaseCommand):
    help = "Queue jobs, list or cancel them."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="queue|list|cancel")
        queue = verbs.add_parser("queue", help="run a preset on one node or more")
        queue.add_argument("preset")
        queue.add_argument("node", nargs="*", help="its node_id")
        queue.add_argument("--tag", default="", help="all nodes with this tag, as well")
        queue.add_argument("--group", default="", help="all nodes of this group, as well")
        queue.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="a variable of the preset")
        queue.add_argument("--check", action="store_true", help="only look whether it is so already; changes nothing")
        queue.add_argument(
            "--confirm",
            default="",
            metavar="PRESET",
            help="its name once more: where it is dangerous, and for more than 10 nodes",
        )
        queue.add_argument(
            "--wave-size", type=int, metavar="N", help="so many nodes at a time; where more than 50 change, at most 50"
        )
        queue.add_argument("--stop-after", type=int, metavar="N", help="start no more waves after so many failures")
        queue.add_argument("--timeout", type=int, metavar="SECONDS")
        queue.add_argument("--expires-in", type=int, metavar="SECONDS", help="give up when no agent came by then")
        queue.add_argument(
            "--allow-background", action="store_true", help="what the script leaves running is not ended with it"
        )
        listing = verbs.add_parser("list", help="jobs, newest first")
        listing.add_argument("--node", default="")
        listing.add_argument("--status", action="append", default=[], type=str.upper, choices=Status.values)
        listing.add_argument("--limit", type=int, default=50)
        cancel = verbs.add_parser("cancel", help="cancel a queued job, ask a running one's agent to")
        cancel.add_argument("job", nargs="+", help="its id")
        cancel.add_argument("--force", action="store_true", help="give a running one up without its agent's word")
        for each in (queue, listing, cancel):
            each.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            jobs = getattr(self, f"_{options['verb']}")(options)
        except HyprBoxError as error:
            raise CommandError(sentence(error)) from error
        if options["json"]:
            self.stdout.write(as_json(JobRowSerializer(jobs, many=True).data))
        elif jobs:
            self.stdout.write(aligned([_HEADING, *(_row(job) for job in jobs)]))
        else:
            self.stdout.write("There is no such job.")

    def _queue(self, options: dict[str, Any]) -> list[Job]:
        order = services.Order(
            options["preset"],
            dict(_pair(text) for text in options["var"]),
            mode=Mode.CHECK if options["check"] else Mode.APPLY,
            confirm=options["confirm"],
            timeout_seconds=options["timeout"],
            expires_in_seconds=options["expires_in"],
            allow_background=options["allow_background"],
        )
        node_ids = _targets(options)
        if len(node_ids) == 1:
            return [services.queue_job(by=_BY, order=order, node_id=node_ids[0])[0]]
        pace = batches.Pace(options["wave_size"], options["stop_after"])
        return batches.queue(by=_BY, order=order, node_ids=node_ids, pace=pace)[1]

    def _list(self, options: dict[str, Any]) -> list[Job]:
        found = selectors.list_jobs(by=_BY, status=options["status"], node_id=options["node"])
        return list(found[: max(1, options["limit"])])

    def _cancel(self, options: dict[str, Any]) -> list[Job]:
        return [services.request_cancel(by=_BY, job_id=job_id, force=options["force"]) for job_id in options["job"]]


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise CommandError(f"“{text}” is not NAME=VALUE.")
    return name, value


def _targets(options: dict[str, Any]) -> list[str]:
    """Named nodes first, then those of the tag and the group. Raises `CommandError` for none."""
    chosen = list(options["node"])
    for kind in ("tag", "group"):
        if options[kind]:
            found = list_nodes(NodeFilter(**{kind: options[kind]}))
            if not found.exists():
                raise CommandError(f"No node has the {kind} “{options[kind]}”.")
            if not found.seen().exists():
                raise CommandError(f"No node with the {kind} “{options[kind]}” has ever reported.")
            chosen += found.seen().values_list("node_id", flat=True)
    if not chosen:
        raise CommandError("Name a node, or give --tag or --group.")
    return list(dict.fromkeys(chosen))


def _row(job: Job) -> tuple[str, ...]:
    state = job.get_status_display() + (f" ({job.get_reason_display()})" if job.reason else "")
    if job.cancel_requested_at and not job.is_finished:
        state += ", cancel requested"
    return (str(job.pk), f"{job.created_at:%Y-%m-%d %H:%M:%S}", state, job.node.node_id, job.preset, job.created_by)
