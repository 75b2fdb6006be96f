"""Run by `bench_audit` in a process of its own, on a database of its own. Prints commits and entries a second."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import threading
import time

import django
import uvloop

django.setup()

from django.db import connection, transaction

from audit import sequencer, verifying
from audit import services as audit
from audit.actions import Action
from audit.models import Event
from hyprbox.lib.actors import Actor
from nodes.models import Node

WRITERS, ROUNDS, SECONDS = 8, 16, 1.5
VERIFIED = 5  # times
BY = Actor.user(id="bench", name="ada@example.com", role="admin", ip="192.0.2.1", request_id="bench")


def write(node: Node, with_entry: bool, until: float, counts: list[int]) -> None:
    count = 0
    while time.perf_counter() < until:
        count += 1
        with transaction.atomic():
            Node.objects.filter(pk=node.pk).update(notes=f"note {count}")
            if with_entry:
                detail = {"notes": f"note {count}", "was": f"note {count - 1}"}
                audit.record(Action.NODE_CHANGED, by=BY, target=f"node:{node.node_id}", detail=detail)
    counts.append(count)
    connection.close()


def commits(nodes: list[Node], *, with_entry: bool) -> float:
    """Commits a second of all writers together."""
    counts: list[int] = []
    until = time.perf_counter() + SECONDS
    threads = [threading.Thread(target=write, args=(node, with_entry, until, counts)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


async def sequence_until(done: threading.Event) -> None:
    """As a web process does meanwhile: each entry wakes its sequencer."""
    sequencer.loop.start()
    await asyncio.to_thread(done.wait)
    await sequencer.loop.stop()


def main() -> None:
    nodes = [Node.objects.create(node_id=f"bench-{number}") for number in range(WRITERS)]
    gc.freeze()  # as a web process does when it has started
    done = threading.Event()
    web = threading.Thread(target=uvloop.run, args=(sequence_until(done),))
    web.start()
    commits(nodes, with_entry=True)  # warm
    rounds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(ROUNDS):
        for with_entry in (False, True) if number % 2 else (True, False):
            rounds[with_entry].append(commits(nodes, with_entry=with_entry))
    done.set()
    web.join()
    sequencer.sequence()
    reports = [verifying.verify() for _ in range(VERIFIED)]
    assert all(report.intact and report.checked == Event.objects.count() for report in reports)
    answer = {
        "with": statistics.median(rounds[True]),
        "without": statistics.median(rounds[False]),
        # Of neighbours: the speed of a shared machine changes more from one minute to the next than what is measured here.
        "share": statistics.median(one / other for one, other in zip(rounds[True], rounds[False], strict=True)),
        "verified": statistics.median(report.checked / report.seconds for report in reports),
        "entries": reports[0].checked,
    }
    print(json.dumps(answer))


main()
