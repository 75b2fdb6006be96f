"""Seeding: refuse where real nodes are, then write everything in one transaction."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction

from accounts import people
from accounts.models import User
from accounts.selectors import actor_for
from audit import sequencer
from audit.actions import Action
from hyprbox.demo import measured
from hyprbox.demo.fleet import DOMAIN, HOSTS, MOST, PEOPLE, Host, hosts, make_flips, make_node
from hyprbox.demo.past import ENDINGS, USUAL, Past
from hyprbox.lib import live
from hyprbox.lib.actors import Actor, Capability, require
from hyprbox.lib.errors import Conflict, InvalidInput
from jobs.models import Batch
from nodes import services as nodes
from nodes.models import Node, StatusFlip
from nodes.selectors import database_now
from presets import catalogue

JOBS = 120
DAYS = 30


@dataclass(frozen=True, slots=True)
class Seeded:
    """How much there is now."""

    nodes: int
    jobs: int
    entries: int
    people: list[str]


def seed(*, by: Actor, seed: int, count: int = len(HOSTS), force: bool = False, password: str = "") -> Seeded:
    """Make the demo's fleet of `count` servers and its past; the same seed makes the same one, up to now.

    Raises `Conflict`, `InvalidInput`.
    """
    require(by, Capability.MANAGE_USERS)
    if not len(HOSTS) <= count <= MOST:
        raise InvalidInput(f"The demo has from {len(HOSTS)} to {MOST:,} servers, not {count:,}.")
    names = [host.node_id for host in hosts(count)]
    if Node.objects.present().named(names).exists():
        raise Conflict(f"A node of the demo is here already, such as {HOSTS[0].node_id}: remove them first.")
    if not force and (there := Node.objects.present().count()):
        what = "1 node is" if there == 1 else f"{there} nodes are"
        raise Conflict(f"{what} here already, and this would mix with them; --force does it all the same.")
    dice = random.Random(seed)
    actors = _people(by, password)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '120s'; SET LOCAL idle_in_transaction_session_timeout = 0")
        now = database_now()
        fleet = [(make_node(host, dice, now), host) for host in hosts(count)]
        Node.objects.bulk_create([node for node, _ in fleet])
        StatusFlip.objects.bulk_create([flip for node, host in fleet for flip in make_flips(node, host, dice, now)])
        # With dice of their own: how many figures there are depends on the minute, and the rest must not.
        measured.write(fleet, random.Random(seed), now)
        past = _past(fleet, actors, dice, now)
        past.write()
        nodes.publish_nodes([node.pk for node, _ in fleet])
        live.publish("jobs", job=None, node=None)
        live.publish(sequencer.WRITTEN)
    return Seeded(len(fleet), len(past.jobs), len(past.entries), [actor.name for actor in actors])


def is_seeded() -> bool:
    """Whether the demo's servers are here."""
    return Node.objects.present().named(host.node_id for host in HOSTS).exists()


def _people(by: Actor, password: str) -> list[Actor]:
    """The demo's people; without a password nobody can log in as one of them."""
    found = []
    for name, full, role in PEOPLE:
        email = f"{name}@{DOMAIN}"
        user = User.objects.filter(email=email).first() or people.create_user(
            by=by, email=email, password=password or secrets.token_urlsafe(24), name=full, role=role
        )
        found.append(actor_for(user, ip="10.20.0.7", request_id=""))
    return found


def _past(fleet: list[tuple[Node, Host]], actors: list[Actor], dice: random.Random, now: datetime) -> Past:
    past = Past(dice, now)
    admin, *operators = actors
    for node, _ in fleet:
        past.note(node.created_at, Action.NODE_CREATED, admin, f"node:{node.node_id}", id=str(node.pk))
    for day in range(DAYS, 0, -1):
        for actor in actors:
            if dice.random() < 0.6:
                at = now - timedelta(days=day, hours=dice.uniform(-3, 3))
                past.note(at, Action.LOGIN_SUCCEEDED, actor, f"user:{actor.name}", via="page")
    reporting = [(node, host) for node, host in fleet[: len(HOSTS)] if not host.is_new]
    _ordinary_days(past, reporting, actors, dice, now)
    _update_of_a_group(past, reporting, operators[0], dice, now)
    _this_moment(past, {host.node_id: (node, host) for node, host in reporting}, operators, now)
    return past


def _ordinary_days(
    past: Past, fleet: list[tuple[Node, Host]], actors: list[Actor], dice: random.Random, now: datetime
) -> None:
    presets, weights = [(name, given) for name, _, given in USUAL], [weight for _, weight, _ in USUAL]
    names = [name for name, _ in ENDINGS]
    # Each once whatever the dice say, so that the rare ones are there to be looked at.
    endings = names + dice.choices(names, [weight for _, weight in ENDINGS], k=JOBS - len(names))
    for ending in endings:
        node, host = dice.choice(fleet)
        preset, variables = dice.choices(presets, weights)[0]
        at = now - (host.silent or timedelta(0)) - timedelta(hours=dice.expovariate(1 / 150) % (DAYS * 24 - 30) + 1)
        past.add_job(node, host, preset, variables, dice.choice(actors), at, ending)


def _update_of_a_group(
    past: Past, fleet: list[tuple[Node, Host]], by: Actor, dice: random.Random, now: datetime
) -> None:
    """One batch that went well but on one server."""
    at = now - timedelta(hours=2, minutes=14)
    title = catalogue.builtin()["system-update"].title
    batch = Batch(id=past._uuid(), preset="system-update", preset_title=title, created_by=by.name, created_at=at)
    past.batches.append(batch)
    chosen = [(node, host) for node, host in fleet if host.group == "nordwind"]
    past.note(at, Action.BATCH_QUEUED, by, f"batch:{batch.pk}", preset=batch.preset, nodes=len(chosen))
    for node, host in chosen:
        ending = "exit" if host.node_id == "search-1" else "changed"
        past.add_job(
            node, host, "system-update", {}, by, at + timedelta(milliseconds=dice.randrange(300)), ending, batch=batch
        )


def _this_moment(past: Past, fleet: dict[str, tuple[Node, Host]], operators: list[Actor], now: datetime) -> None:
    jonas, elif_ = operators
    site = {"SERVER_NAME": "status.nordwind.example"}
    past.add_job(*fleet["edge-2"], "nginx-static-site", site, elif_, now - timedelta(minutes=19), "changed")
    past.add_job(*fleet["files-1"], "journald-limit", {}, jonas, now - timedelta(minutes=52), "verify_failed")
    past.add_job(*fleet["cms-db"], "system-report", {}, elif_, now - timedelta(minutes=7), "changed")
    past.add_job(*fleet["mail-1"], "system-update", {}, jonas, now - timedelta(seconds=48), "running")
    past.add_job(*fleet["staging-1"], "time-sync", {}, elif_, now - timedelta(minutes=35), "queued")
    past.add_job(*fleet["staging-1"], "system-report", {}, jonas, now - timedelta(days=3), "expired")
