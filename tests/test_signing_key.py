"""The signing key, replaced: what an agent accepts before, meanwhile and after, and what the old key once signed."""

from __future__ import annotations

import base64
import io
import json
import stat
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from agent.keys import KeyRing, KeysUntrusted, Refused
from agent.wire import parse_offer
from audit import sequencer, services
from audit.models import Checkpoint, Event
from hyprbox import integrity
from hyprbox.lib import signing
from jobs.models import Job
from jobs.services import request_cancel as cancel
from nodes.models import Node
from tests import factories
from tests.client import ApiClient

pytestmark = pytest.mark.django_db
Later = Callable[[timedelta], None]


@pytest.fixture
def path(settings: Any, tmp_path: Path) -> Path:
    made = settings.HYPRBOX_SIGNING_KEY_FILE = tmp_path / "signing.key"
    run("create")
    return Path(made)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    began = datetime.now(UTC)

    def go(passed: timedelta) -> None:
        monkeypatch.setattr(signing, "_now", lambda: began + passed)

    return go


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("signing_key", *words, stdout=out, stderr=out)
    return out.getvalue()


def agent(folder: Path, name: str, sha256: str = "") -> KeyRing:
    """One that has looked at the keys."""
    state = folder / name
    state.mkdir()
    ring = KeyRing(state, sha256)
    look(ring)
    return ring


def look(ring: KeyRing) -> bool:
    return ring.offer(json.loads(json.dumps(signing.key_set().as_answer())))


def takes(ring: KeyRing, job: Job) -> bool:
    row = Job.objects.get(pk=job.pk)
    told = {
        "id": str(row.pk),
        "claim_id": str(uuid.uuid4()),
        "payload": base64.b64encode(bytes(row.payload)).decode(),
        "signature": row.signature,
        "key_id": row.key_id,
    }
    try:
        return ring.check(parse_offer(told), node_id="web-1", clock_offset=0.0).job_id == str(row.pk)
    except Refused as error:
        assert error.reason == "signature_invalid"
        return False


def test_agents_learn_of_the_new_key_from_the_old_one(path: Path, later: Later, web_1: Node, tmp_path: Path) -> None:
    first = signing.key_set_sha256()
    online, away = agent(tmp_path, "online", first), agent(tmp_path, "away", first)
    old = factories.make_job(web_1)
    private = path.read_text().strip()
    said = run("rotate")
    new = factories.make_job(web_1)
    assert old.key_id != new.key_id and f"replaced             {old.key_id}  good until 20" in said
    assert private not in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o400

    later(timedelta(days=6, hours=23))
    assert (takes(online, new), look(online)) == (False, True)
    assert (takes(online, old), takes(online, new), look(online)) == (True, True, False)
    meanwhile = agent(tmp_path, "enrolled meanwhile", signing.key_set_sha256())
    assert (takes(meanwhile, old), takes(meanwhile, new)) == (True, True)

    later(timedelta(days=7, hours=1))
    assert signing.next_change() is None and f"{old.key_id}  retired" in run("show")
    after = agent(tmp_path, "enrolled after", signing.key_set_sha256())
    for ring in (online, away, meanwhile):
        assert look(ring)
    for ring in (online, away, meanwhile, after):
        assert (takes(ring, old), takes(ring, new)) == (False, True)
        assert ring.has_signed(old.key_id, base64.b64decode(old.signature), signing.JOB_CONTEXT + bytes(old.payload))
    with pytest.raises(KeysUntrusted):
        agent(tmp_path, "with the first hash", first)


def test_a_stolen_key_is_worth_nothing_from_the_next_look_on(path: Path, web_1: Node, tmp_path: Path) -> None:
    ring, stolen = agent(tmp_path, "online"), factories.make_job(web_1)
    run("rotate", "--now")
    good = factories.make_job(web_1)
    assert look(ring) and signing.next_change() is None
    assert (takes(ring, stolen), takes(ring, good)) == (False, True)


def test_a_second_rotation_waits_for_the_first_unless_it_must_not(
    path: Path, later: Later, web_1: Node, tmp_path: Path
) -> None:
    ring, first = agent(tmp_path, "online"), factories.make_job(web_1)
    run("rotate")
    second, before = factories.make_job(web_1), path.read_text()
    with pytest.raises(CommandError, match="rotate --now.* It ends at 20"):
        run("rotate")
    assert path.read_text() == before and look(ring)
    run("rotate", "--now")
    third = factories.make_job(web_1)
    assert look(ring)
    assert [takes(ring, job) for job in (first, second, third)] == [False, False, True]
    later(timedelta(days=8))
    run("rotate")
    assert look(ring) and takes(ring, factories.make_job(web_1)) and takes(ring, third)
    assert [key["retired"] for key in signing.key_set().keys] == [True, True, False, False]


def test_what_the_old_key_signed_is_still_ours(path: Path, later: Later, web_1: Node) -> None:
    waiting, ended = factories.make_job(web_1), factories.make_job(web_1)
    cancel(by=factories.SYSTEM, job_id=ended.pk)
    sequencer.sequence()
    assert Checkpoint.objects.get().key_id == waiting.key_id
    run("rotate")
    assert services.verify_log(by=factories.SYSTEM).intact is True
    assert integrity.verify(by=factories.SYSTEM).bad == []
    later(timedelta(days=8))
    assert services.verify_log(by=factories.SYSTEM).intact is True
    assert integrity.verify(by=factories.SYSTEM).bad == [
        (f"jobs_job:{waiting.pk}", "it is signed with a key that was retired")
    ]
    [entry] = Event.objects.filter(action="signing_key.rotated")
    assert entry.detail == {"replaced": waiting.key_id, "now": False, "key_id": signing.signer().key_id}


def test_what_an_earlier_key_signed_can_be_run_again_what_an_unknown_one_signed_cannot(
    path: Path, later: Later, api: ApiClient, otto: User, web_1: Node
) -> None:
    job = factories.make_job(web_1)
    cancel(by=factories.SYSTEM, job_id=job.pk)

    def again() -> Any:
        return api.by(otto).post(f"/api/jobs/{job.pk}/retry", {})

    run("rotate")
    assert again().json()["key_id"] == signing.signer().key_id != job.key_id
    later(timedelta(days=8))
    run("rotate", "--now")  # retired twice over
    assert again().status_code == 201
    path.unlink()
    run("create")
    assert (again().status_code, again().json()["error"]["code"]) == (409, "job_key_unknown")
    assert not Event.objects.filter(action="row.tampered").exists()
    # What says that it is signed with yet another key is not as it was signed, known or not.
    Job.objects.filter(pk=job.pk).update(key_id="0123456789abcdef")
    assert again().json()["error"]["code"] == "row_tampered"
    assert Job.objects.filter(retry_of=job).count() == 2


@pytest.mark.parametrize("line", ["set {}", "set x", "retired 00", 'set {"since": "2026-01-01"}'])
def test_a_damaged_file_is_no_key(path: Path, line: str) -> None:
    path.chmod(0o600)
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(signing.SigningKeyUnusable):
        signing.signer()


def test_sets_of_another_key_are_refused(path: Path, tmp_path: Path) -> None:
    run("rotate")
    _, *sets = path.read_text().splitlines()
    path.chmod(0o600)
    path.write_text("\n".join(["ab" * 32, *sets]))
    with pytest.raises(signing.SigningKeyUnusable, match="not those of its key"):
        signing.signer()
