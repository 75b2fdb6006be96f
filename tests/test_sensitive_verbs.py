"""What asks for a fresh second factor, verb by verb."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import factors, keys, logins, people
from accounts.models import User
from hyprbox import enrolment
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import HyprBoxError, SecondFactorRequired, StepUpRequired
from jobs import batches, drift
from jobs.services import Order
from nodes import clones
from nodes import services as nodes
from presets import services as presets
from tests import factories
from tokens import services as tokens

ID = uuid.uuid4()
ORDER = Order("system-report", {})
DOCUMENT = json.dumps({"name": "own-preset"})
ELEVEN = [f"node-{at}" for at in range(11)]
VERBS: dict[str, Callable[[Actor], Any]] = {
    "make a preset": lambda by: presets.create_preset(by=by, text=DOCUMENT, kind="json"),
    "revise a preset": lambda by: presets.save_revision(by=by, name="own-preset", text=DOCUMENT, kind="json"),
    "duplicate a preset": lambda by: presets.duplicate_preset(by=by, name="nothing", new_name="copied"),
    "archive a preset": lambda by: presets.archive_preset(by=by, name="own-preset"),
    "restore a preset": lambda by: presets.restore_preset(by=by, name="own-preset"),
    "pin": lambda by: drift.create_pin(by=by, preset="nothing", variables={}, tag="web"),
    "resume a pin": lambda by: drift.resume_pin(by=by, pin_id=ID),
    "remove a pin": lambda by: drift.remove_pin(by=by, pin_id=ID),
    "run on eleven nodes": lambda by: batches.queue(by=by, order=ORDER, node_ids=ELEVEN),
    "remove a node": lambda by: nodes.remove_node(by=by, node_id="nothing"),
    "confirm a machine": lambda by: clones.confirm_machine(by=by, node_id="nothing"),
    "enrol": lambda by: enrolment.enrol(by=by, name="new"),
    "make a token": lambda by: tokens.issue_token(by=by, name=""),
    "rotate a token": lambda by: tokens.rotate_token(by=by, token_id=ID),
    "revoke a token": lambda by: tokens.revoke_token(by=by, token_id=ID),
    "make a user": lambda by: people.create_user(by=by, email="x", password="x"),
    "invite": lambda by: people.invite(by=by, email="x", role="viewer"),
    "take an invitation back": lambda by: people.revoke_invitation(by=by, invitation_id=ID),
    "change a role": lambda by: people.change_user(by=by, user_id=ID, role="admin"),
    "remove a user": lambda by: people.remove_user(by=by, user_id=ID),
    "sign someone out": lambda by: logins.end_all_of(by=by, user_id=ID),
    "take a factor away": lambda by: factors.reset(by=by, user_id=ID),
    "make a key": lambda by: keys.create_key(by=by, name="", scopes=[]),
    "revoke a key": lambda by: keys.revoke_key(by=by, key_id=ID),
    "change one's address": lambda by: people.change_email(by=by, email="x@example.com", password="x"),
    "make recovery codes": lambda by: factors.renew_codes(by=by),
    "remove the app": lambda by: factors.remove_totp(by=by, password="x"),
    "remove a passkey": lambda by: factors.remove_passkey(by=by, passkey_id=ID, password="x"),
}


def outcome(verb: Callable[[Actor], Any], by: Actor) -> type[HyprBoxError] | None:
    try:
        verb(by)
    except HyprBoxError as error:
        return type(error)
    return None


@pytest.mark.parametrize("name", VERBS)
def test_it_asks_who_has_a_factor_until_that_is_fresh(ada: User, name: str) -> None:
    plain = factories.as_actor(ada)
    has = dataclasses.replace(plain, has_factor=True)
    now = timezone.now()
    stale = dataclasses.replace(has, fresh_until=now - timedelta(seconds=1))
    fresh = dataclasses.replace(has, fresh_until=now + timedelta(minutes=5))
    verb = VERBS[name]
    assert (outcome(verb, has), outcome(verb, stale)) == (StepUpRequired, StepUpRequired)
    assert outcome(verb, fresh) is not StepUpRequired
    assert outcome(verb, plain) is not StepUpRequired
    assert outcome(verb, dataclasses.replace(plain, needs_factor=True, capabilities=frozenset())) in (
        SecondFactorRequired,
    )


def test_ten_nodes_ask_nobody(ada: User) -> None:
    has = dataclasses.replace(factories.as_actor(ada), has_factor=True)
    for name in ELEVEN:
        factories.make_seen_node(name)
    assert len(batches.queue(by=has, order=ORDER, node_ids=ELEVEN[:10])[1]) == 10
