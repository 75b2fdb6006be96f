"""Puts hostile text into a running house, by the verbs that every door uses. Run beside it: `python -m tests.browser.planting`.

Prints what the tests have to know as JSON: the plain tokens of the nodes, and the ids of what was made.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import django

django.setup()

import yaml
from django.contrib.auth.hashers import BCryptSHA256PasswordHasher
from django.db import transaction
from django.utils import timezone

from accounts import keys, people, services
from accounts.models import Passkey, User
from accounts.selectors import actor_for
from audit import sealed
from audit import services as audit
from audit.actions import Action
from hyprbox import enrolment
from hyprbox.lib.actors import Actor, Role
from jobs import batches, drift
from jobs.services import Order
from nodes import services as nodes
from nodes.models import Node
from nodes.services import NodeChanges
from presets import services as presets
from presets import shelltools
from tests.browser.hostile import CORPUS, bundles, local_part
from tests.house import EMAIL, PASSWORD

NAMES = bundles(120)
HERE = Actor.anonymous(ip="127.0.0.1")


def node_id(number: int) -> str:
    return f"h-{number}"


def preset_name(number: int) -> str:
    return f"hostile-{number}"


def address(number: int) -> str:
    """An e-mail address whose part before the @ is the text, as far as one may be."""
    return f'"{local_part(NAMES[number])}"@h{number}.example'


def document(number: int, more: str = "") -> str:
    """A preset whose title, description and help are hostile; the first one's variables hold all texts."""
    variables: list[dict[str, Any]] = []
    if number == 0:
        variables = [
            {"name": f"V{each.number}", "type": "string", "default": each.text, "help": each.text} for each in CORPUS
        ]
        choices = [each.text for each in CORPUS]
        variables.append(
            {"name": "CHOICE", "type": "enum", "choices": choices, "default": choices[0], "no_leading_dash": False}
        )
        variables.append({"name": "SHAPED", "type": "string", "max_length": 200, "help": "Short."})
    return yaml.safe_dump(
        {
            "name": preset_name(number),
            "title": NAMES[number],
            "description": f"{NAMES[number]} {more}".strip(),
            "category": "hostile",
            "risk": "safe",
            "variables": variables,
            "check": "false",
            "apply": f"# {NAMES[number]}\ntrue",
        },
        allow_unicode=True,
        sort_keys=False,
        width=10_000,
    )


@transaction.atomic
def plant_people(ada: Actor) -> list[User]:
    made = []
    for number, name in enumerate(NAMES):
        email = address(number)
        made.append(people.create_user(by=ada, email=email, password=PASSWORD, name=name, role=Role.ADMIN))
        people.invite(by=ada, email=email.replace("@h", "@i"), role=Role.VIEWER)
        services.note_failure(by=HERE, email=email)
    return made


@transaction.atomic
def plant_own(ada: User) -> None:
    """What ada's profile shows: keys, passkeys, and where she is signed in."""
    by = actor_for(ada)
    for name in NAMES:
        keys.create_key(by=by, name=name, scopes=["read"])
    for each in CORPUS:
        services.start_family(ada, by=by, user_agent=each.word)
        key = sealed.create(
            Passkey(user=ada, name=each.text, credential_id=secrets.token_bytes(32), public_key=b"none")
        )
        audit.record(Action.ROW_SEALED, by=by, target="passkey", detail={"name": each.text}, row=key)


@transaction.atomic
def plant_nodes(users: list[User]) -> dict[str, str]:
    tokens = {}
    for each in CORPUS:
        by = actor_for(users[each.number % len(users)])
        made = enrolment.enrol(by=by, name=each.text, node_id=node_id(each.number))
        tokens[node_id(each.number)] = made.plaintext
        name = NAMES[each.number - 1] if each.number <= len(NAMES) else each.text
        tags = [other.word for other in CORPUS[each.number - 1 :: len(NAMES)]]
        said = NodeChanges(display_name=name, group=each.text, tags=tags, notes=f"{name}\n{each.text}")
        nodes.update_node(by=by, node_id=node_id(each.number), changes=said)
    Node.objects.update(first_seen_at=timezone.now(), last_seen_at=timezone.now())  # so that they get jobs
    for number, name in enumerate(NAMES):
        enrolment.enrol(by=actor_for(users[number]), name=f"spare {name}"[:120])
    return tokens


@transaction.atomic
def plant_presets(users: list[User]) -> tuple[list[str], list[str]]:
    """Presets, and of each a batch of two jobs and a pin."""
    shelltools.check = lambda preset: ()  # what bash says of them is not what is looked at
    queued, grouped = [], []
    for number, name in enumerate(NAMES):
        by = actor_for(users[number])
        first = presets.create_preset(by=by, text=document(number, "first"), note=name, waive=True)
        text = document(number, name)
        presets.save_revision(by=by, name=preset_name(number), text=text, base=first.sha256, note=name, waive=True)
        order = Order(preset=preset_name(number), variables={})
        batch, made, _ = batches.queue(by=by, order=order, node_ids=[node_id(1), node_id(2 + number)])
        grouped.append(str(batch.pk))
        queued.append(str(made[0].pk))
        drift.create_pin(by=by, preset=preset_name(number), variables={}, tag=CORPUS[number].word)
    return queued, grouped


def main() -> None:
    BCryptSHA256PasswordHasher.rounds = 4  # the real cost would take longer than all the rest
    ada = User.objects.get(email=EMAIL)
    users = plant_people(actor_for(ada))
    tokens = plant_nodes(users)
    queued, grouped = plant_presets(users)
    plant_own(ada)
    people_made = [str(user.pk) for user in users]
    print(json.dumps({"tokens": tokens, "jobs": queued, "batches": grouped, "people": people_made}))


if __name__ == "__main__":
    main()
