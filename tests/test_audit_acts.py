"""Every act is one entry, and every action of the catalogue is some act's."""

from __future__ import annotations

import ast
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pyotp
import pytest
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from accounts import factors, keys, logins, passwords, people
from accounts import services as accounts
from accounts.models import Passkey, RateCounter, RefreshFamily, User
from audit import checkpoints, sealed, witnesses
from audit import services as audit
from audit.actions import Action
from audit.models import Event
from hyprbox import integrity, known_settings
from hyprbox.lib import mackey, secretbox, signing
from hyprbox.lib.actors import Actor, Role
from hyprbox.lib.errors import HyprBoxError
from hyprbox.management.commands import mac_key
from jobs import batches, deadlines, drift, reports, services, stops
from jobs.models import Job, Pin
from nodes import clones
from nodes import services as nodes
from nodes.identity import Sighting
from nodes.models import Node
from presets import services as presets
from presets.tests.test_custom import SECOND, TEXT
from tests.factories import (
    PASSWORD,
    SYSTEM,
    agent_of,
    as_actor,
    claim,
    make_job,
    make_seen_node,
    make_token,
    make_user,
    token_row,
)
from tests.test_canaries import dump
from tokens import services as tokens

ROOT = Path(__file__).parents[1]
APPS = ("accounts", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens")
ORDER = services.Order("system-report", {})
SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
NEW_PASSWORD = "another long enough one"
# Not `Action.X` where it is written: migrations write this one, with the text they had.
AS_TEXT = {"ROW_SEALED": "row.sealed"}


def writers() -> Iterator[tuple[Path, ast.Module]]:
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            inside = path.relative_to(ROOT)
            if "tests" in inside.parts or inside.parts[:2] == ("hyprbox", "demo"):
                continue
            if inside.as_posix() not in ("audit/actions.py", "audit/selectors.py"):
                yield inside, ast.parse(path.read_text())


def test_every_action_is_written_somewhere() -> None:
    named, texts = set(), set()
    for _, tree in writers():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Action":
                named.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    written = named | {name for name, text in AS_TEXT.items() if text in texts}
    assert {action.name for action in Action} - written == set()
    assert not named & set(AS_TEXT), "named by now: take it out of AS_TEXT"


# Their acts need more than a line or two of preparation: some other test names them.
ELSEWHERE = {
    "audit.sealed",
    "row.kept",
    "access.denied",
    "row.tampered",
    "recovery.used",
    "job.force_cancelled",
    "job.result_late",
    "job.refused",
    "job.output_conflicted",
}


MADE_BY_BROWSERS = {"passkey.created"}


def test_every_action_has_an_act_here_or_a_test_elsewhere() -> None:
    here = {Action[name.upper()].value for name in NAMES if not name.startswith("nothing")}
    here |= {action for more in MORE.values() for action in more}
    assert here | ELSEWHERE | MADE_BY_BROWSERS == set(Action.values)
    assert not here & ELSEWHERE
    others = [path for root in ("tests", *APPS) for path in (ROOT / root).rglob("*.py") if path != Path(__file__)]
    tests = "".join(path.read_text() for path in others if "tests" in path.parts)
    assert [action for action in ELSEWHERE if f'"{action}"' not in tests] == []


class Acts:
    """One method for each act: it prepares what the act needs, and returns the act."""

    def __init__(self, new_folder: Path) -> None:
        self.new_folder = new_folder
        self.user = make_user("ada", Role.ADMIN)
        make_user("zoe", Role.ADMIN)
        self.by = as_actor(self.user)
        self.node = make_seen_node("web-1")
        self.agent = agent_of(self.node)
        self.stranger = Actor.anonymous(ip="10.1.1.1")

    def login_succeeded(self) -> Any:
        return lambda: accounts.log_in(email=self.user.email, password=PASSWORD, by=self.stranger)

    def login_failed(self) -> Any:
        return lambda: accounts.log_in(email=self.user.email, password="wrong", by=self.stranger)

    def logout_done(self) -> Any:
        return lambda: accounts.log_out(by=self.by, everywhere=True)

    def refresh_reused(self) -> Any:
        first = self._session()
        second = accounts.refresh(token=first, by=self.stranger)
        accounts.refresh(token=second.refresh, by=self.stranger)
        return lambda: accounts.refresh(token=first, by=self.stranger)

    def settings_changed(self) -> Any:
        return known_settings.note

    def session_ended(self) -> Any:
        self._session()
        family = RefreshFamily.objects.get()
        return lambda: logins.end_session(by=self.by, session_id=family.pk)

    def password_changed(self) -> Any:
        return lambda: passwords.change_password(by=self.by, current=PASSWORD, new=NEW_PASSWORD)

    def password_not_confirmed(self) -> Any:
        return lambda: passwords.change_password(by=self.by, current="wrong", new=NEW_PASSWORD)

    def password_reset_requested(self) -> Any:
        return lambda: passwords.issue_reset(email=self.user.email, by=self.stranger)

    def password_reset(self) -> Any:
        found = passwords.issue_reset(email=self.user.email, by=self.stranger)
        assert found
        return lambda: passwords.confirm_reset(secret=found[1], new=NEW_PASSWORD, by=self.stranger)

    def key_created(self) -> Any:
        return lambda: keys.create_key(by=self.by, name="ci", scopes=["read"])

    def key_revoked(self) -> Any:
        key, _ = keys.create_key(by=self.by, name="ci", scopes=["read"])
        return lambda: keys.revoke_key(by=self.by, key_id=key.pk)

    def factor_added(self) -> Any:
        return lambda: factors.add_totp(by=self.by, seed=SEED, code=pyotp.TOTP(SEED).now())

    def factor_reset(self) -> Any:
        vera = make_user("vera")
        factors.add_totp(by=as_actor(vera), seed=SEED, code=pyotp.TOTP(SEED).now())
        return lambda: factors.reset(by=self.by, user_id=vera.pk)

    def factor_encrypted(self) -> Any:
        settings.HYPRBOX_SECRETS_KEY_FILE = self.new_folder / "secrets.key"
        secretbox.create_key(settings.HYPRBOX_SECRETS_KEY_FILE)
        self.factor_added()()
        return lambda: call_command("secrets_key", "rotate", stdout=StringIO())

    def passkey_removed(self) -> Any:
        row = sealed.create(Passkey(user=self.user, name="laptop", credential_id=b"id", public_key=b"key"))
        audit.record(Action.ROW_SEALED, by=SYSTEM, row=row)
        by = replace(self.by, fresh_until=timezone.now() + timedelta(minutes=5))
        return lambda: factors.remove_passkey(by=by, passkey_id=row.pk, password=PASSWORD)

    def secrets_key_created(self) -> Any:
        settings.HYPRBOX_SECRETS_KEY_FILE = self.new_folder / "secrets.key"
        return lambda: call_command("secrets_key", "create", stdout=StringIO())

    def step_up_done(self) -> Any:
        self._session()
        self.factor_added()()
        by = replace(as_actor(self.user), session=str(RefreshFamily.objects.get().pk))
        code = pyotp.TOTP(SEED).at(int(time.time()) + 30)
        return lambda: factors.step_up(by=by, proof=factors.Proof(otp=code))

    def step_up_failed(self) -> Any:
        self._session()
        self.factor_added()()
        by = replace(as_actor(self.user), session=str(RefreshFamily.objects.get().pk))
        return lambda: factors.step_up(by=by, proof=factors.Proof(otp="000000"))

    def recovery_renewed(self) -> Any:
        self.factor_added()()
        by = replace(self.by, fresh_until=timezone.now() + timedelta(minutes=5))
        return lambda: factors.renew_codes(by=by)

    def user_invited(self) -> Any:
        return lambda: people.invite(by=self.by, email="new@example.com", role=Role.VIEWER)

    def invitation_revoked(self) -> Any:
        invitation, _ = people.invite(by=self.by, email="new@example.com", role=Role.VIEWER)
        return lambda: people.revoke_invitation(by=self.by, invitation_id=invitation.pk)

    def user_created(self) -> Any:
        _, secret = people.invite(by=self.by, email="new@example.com", role=Role.VIEWER)
        return lambda: people.accept_invitation(secret=secret, name="N", password=NEW_PASSWORD, by=self.stranger)

    def user_changed(self) -> Any:
        vera = make_user("vera")
        accounts.log_in(email=vera.email, password=PASSWORD, by=self.stranger)
        return lambda: people.change_user(by=self.by, user_id=vera.pk, is_active=False)

    def user_removed(self) -> Any:
        vera = make_user("vera")
        return lambda: people.remove_user(by=self.by, user_id=vera.pk)

    def token_created(self) -> Any:
        return lambda: tokens.issue_token(by=self.by, name="t")

    def token_pinned(self) -> Any:
        token = token_row(make_token())
        return lambda: nodes.enrol(by=self.agent, token_id=token.pk, node_id="web-1")

    def token_rotated(self) -> Any:
        token = token_row(make_token(self.node))
        return lambda: tokens.rotate_token(by=self.by, token_id=token.pk)

    def token_revoked(self) -> Any:
        token = token_row(make_token(self.node))
        return lambda: tokens.revoke_token(by=self.by, token_id=token.pk)

    def node_created(self) -> Any:
        return lambda: nodes.ensure_node(by=self.by, node_id="new-1")

    def node_changed(self) -> Any:
        return lambda: nodes.update_node(by=self.by, node_id="web-1", changes=nodes.NodeChanges(notes="x"))

    def node_clone_suspected(self) -> Any:
        Node.objects.filter(pk=self.node.pk).update(machine_id="m1", instance_id="i1", beat=1)
        return lambda: clones.note(self.node.pk, Sighting("machine", "m2", "i2", 1))

    def node_machine_confirmed(self) -> Any:
        Node.objects.filter(pk=self.node.pk).update(clone_suspected_at=timezone.now())
        return lambda: clones.confirm_machine(by=self.by, node_id="web-1")

    def audit_forked(self) -> Any:
        kept, refused = (
            checkpoints.as_dict(checkpoints.sign(n=7, digest=letter * 32, at=timezone.now(), signer=signing.signer()))
            for letter in (b"a", b"b")
        )
        return lambda: witnesses.note_fork(kept, refused, by=self.agent)

    def node_removed(self) -> Any:
        return lambda: nodes.remove_node(by=self.by, node_id="web-1")

    def job_queued(self) -> Any:
        return lambda: services.queue_job(by=self.by, order=ORDER, node_id="web-1")

    def job_cancelled(self) -> Any:
        job = make_job(self.node)
        return lambda: services.request_cancel(by=self.by, job_id=job.pk)

    def job_cancel_requested(self) -> Any:
        job = self._running()
        return lambda: services.request_cancel(by=self.by, job_id=job.pk)

    def job_expired(self) -> Any:
        self._past(make_job(self.node), "expires_at")
        return deadlines.expire_queued

    def job_lost(self) -> Any:
        self._past(self._running(), "deadline_at", "lease_expires_at")
        return deadlines.give_up_lost

    def batch_queued(self) -> Any:
        make_seen_node("web-2")
        return lambda: batches.queue(by=self.by, order=ORDER, node_ids=["web-1", "web-2"])

    def batch_cancelled(self) -> Any:
        batch, _, _ = batches.queue(by=self.by, order=ORDER, node_ids=["web-1"])
        return lambda: batches.cancel_rest(by=self.by, batch_id=batch.pk)

    def batch_stopped(self) -> Any:
        pace = batches.Pace(1, 1)
        make_seen_node("web-2")
        batch, jobs, _ = batches.queue(by=SYSTEM, order=ORDER, node_ids=["web-1", "web-2"], pace=pace)
        Job.objects.filter(pk=jobs[0].pk).update(status="RUNNING", started_at=timezone.now(), claim_id=uuid.uuid4())
        Job.objects.filter(pk=jobs[0].pk).update(status="FAILED", reason="exit", finished_at=timezone.now())
        return lambda: batches.advance(batch.pk)

    def jobs_stopped(self) -> Any:
        return lambda: stops.stop(by=self.by, reason="x")

    def jobs_resumed(self) -> Any:
        stops.stop(by=self.by)
        return lambda: stops.resume(by=self.by)

    def preset_created(self) -> Any:
        return lambda: presets.create_preset(by=self.by, text=TEXT)

    def preset_restored(self) -> Any:
        presets.create_preset(by=self.by, text=TEXT)
        presets.archive_preset(by=self.by, name="motd")
        return lambda: presets.restore_preset(by=self.by, name="motd")

    def preset_revised(self) -> Any:
        presets.create_preset(by=self.by, text=TEXT)
        return lambda: presets.save_revision(by=self.by, name="motd", text=SECOND)

    def preset_archived(self) -> Any:
        presets.create_preset(by=self.by, text=TEXT)
        return lambda: presets.archive_preset(by=self.by, name="motd")

    def pin_created(self) -> Any:
        return lambda: drift.create_pin(by=self.by, preset="time-sync", variables={}, node_id="web-1")

    def pin_changed(self) -> Any:
        pin = drift.create_pin(by=self.by, preset="time-sync", variables={}, node_id="web-1")
        Pin.objects.filter(pk=pin.pk).update(paused_because="x")
        return lambda: drift.resume_pin(by=self.by, pin_id=pin.pk)

    def pin_paused(self) -> Any:
        drift.create_pin(by=as_actor(make_user("zack", Role.ADMIN)), preset="time-sync", variables={}, node_id="web-1")
        zack = User.objects.get(email="zack@example.com")
        people.change_user(by=self.by, user_id=zack.pk, is_active=False)
        end_of_day = timezone.now().replace(hour=23, minute=59)
        return lambda: drift.queue_due(end_of_day)

    def row_sealed(self) -> Any:
        User.objects.filter(pk=self.user.pk).update(row_version=0, mac=b"")
        return lambda: sealed.seal_existing(User, User.SEALED, Event)

    def pin_removed(self) -> Any:
        pin = drift.create_pin(by=self.by, preset="time-sync", variables={}, node_id="web-1")
        return lambda: drift.remove_pin(by=self.by, pin_id=pin.pk)

    def audit_verified(self) -> Any:
        return lambda: audit.verify_log(by=self.by)

    def audit_exported(self) -> Any:
        return lambda: audit.export_log(by=self.by, kind="csv", wanted={})

    def integrity_verified(self) -> Any:
        return lambda: integrity.verify(by=self.by)

    def nothing_when_a_job_starts_and_ends(self) -> Any:
        job = make_job(self.node)
        claim_id = claim(job)

        def act() -> None:
            reports.start(by=self.agent, job_id=job.pk, claim_id=claim_id)

        return act

    def signing_key_created(self) -> Any:
        settings.HYPRBOX_SIGNING_KEY_FILE = self.new_folder / "signing.key"
        return lambda: call_command("signing_key", "create", stdout=StringIO())

    def signing_key_rotated(self) -> Any:
        settings.HYPRBOX_SIGNING_KEY_FILE = self.new_folder / "signing.key"
        signing.create_key(settings.HYPRBOX_SIGNING_KEY_FILE)
        return lambda: call_command("signing_key", "rotate", stdout=StringIO())

    def mac_key_created(self) -> Any:
        settings.HYPRBOX_MAC_KEY_FILE = self.new_folder / "mac.key"
        return lambda: call_command("mac_key", "create", stdout=StringIO())

    def mac_key_rotated(self) -> Any:
        settings.HYPRBOX_MAC_KEY_FILE = self.new_folder / "mac.key"
        mackey.create_key(settings.HYPRBOX_MAC_KEY_FILE)
        return lambda: call_command("mac_key", "rotate", stdout=StringIO(), stderr=StringIO())

    def _running(self) -> Job:
        job = make_job(self.node)
        reports.start(by=self.agent, job_id=job.pk, claim_id=claim(job))
        job.refresh_from_db()
        return job

    def _past(self, job: Job, *names: str) -> None:
        Job.objects.filter(pk=job.pk).update(**dict.fromkeys(names, timezone.now() - timedelta(hours=1)))

    def _session(self) -> str:
        return accounts.log_in(email=self.user.email, password=PASSWORD, by=self.stranger).tokens.refresh


# What an act writes besides the action that it is called after.
MORE: dict[str, list[str]] = {
    "factor_encrypted": ["secrets_key.rotated"],
    "passkey_removed": ["factor.removed"],
    "user_created": ["invitation.accepted"],
    "token_rotated": ["token.created"],
    "batch_queued": ["job.queued", "job.queued"],
    "batch_cancelled": ["job.cancelled"],
    "preset_created": ["preset.revised"],
    "preset_revised": ["preset.changed"],
    "nothing_when_a_job_starts_and_ends": [],
}
NAMES = [name for name in vars(Acts) if not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_an_act_is_one_entry(
    db: None, name: str, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mac_key, "WAIT_SECONDS", 0.0)
    settings.HYPRBOX_SIGNING_KEY_FILE = settings.HYPRBOX_SIGNING_KEY_FILE  # so that they are as before in the end
    settings.HYPRBOX_MAC_KEY_FILE = settings.HYPRBOX_MAC_KEY_FILE
    settings.HYPRBOX_SECRETS_KEY_FILE = settings.HYPRBOX_SECRETS_KEY_FILE
    act: Callable[[], Any] = getattr(Acts(tmp_path), name)()
    before = Event.objects.count()
    try:
        act()
    except HyprBoxError:
        assert name in ("login_failed", "refresh_reused", "password_not_confirmed", "step_up_failed")
    written = list(Event.objects.order_by("id").values_list("action", flat=True))[before:]
    expected = [] if name.startswith("nothing") else [Action[name.upper()].value]
    assert sorted(written) == sorted([*expected, *MORE.get(name, [])])


class EntryLost(Exception):
    """The database took no entry."""


UNDONE = (
    "job_queued", "job_cancelled", "job_cancel_requested", "job_expired", "job_lost", "batch_queued", "batch_cancelled",
    "jobs_stopped", "jobs_resumed", "pin_created", "pin_changed", "pin_removed", "preset_created", "preset_revised",
    "preset_archived", "preset_restored", "token_created", "token_pinned", "token_rotated", "token_revoked",
    "node_created", "node_changed", "node_removed", "user_created", "user_changed", "user_removed", "user_invited",
    "invitation_revoked", "key_created", "key_revoked", "factor_added", "factor_reset", "session_ended", "logout_done",
)  # fmt: skip


@pytest.mark.parametrize("name", UNDONE)
def test_an_act_whose_entry_cannot_be_written_has_not_happened(
    db: None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of its entries fails, when all else of the act is done."""
    act: Callable[[], Any] = getattr(Acts(tmp_path), name)()
    left, record = 1 + len(MORE.get(name, [])), audit.record

    def failing(*args: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise EntryLost
        return record(*args, **more)

    before = rows()
    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", failing)
        with pytest.raises(EntryLost):
            act()
    assert rows() == before
    act()
    assert rows() != before


def rows() -> list[str]:
    """All there are, but for how often somebody tried: an attempt counts, whatever becomes of it."""
    RateCounter.objects.all().delete()
    return sorted(dump().splitlines())
