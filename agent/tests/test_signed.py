"""A control plane that lies, against a real agent: forty ways to have something run that nobody signed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from agent.journal import Journal
from agent.tests.plane import Job, Plane, Signer, encode, iso, key_set, make_payload, render

Case = Callable[[Plane, str], Job]
OTHER_ID = "00000000-0000-4000-8000-000000000000"


def good(plane: Plane, ran: str, **over: Any) -> dict[str, Any]:
    script = render({"apply": f"echo RAN >> {ran}"})
    return {**make_payload(plane.node_id, plane.signer.key_id, script, ["apply"]), **over}


def signed(**over: Any) -> Case:
    """A bad payload under a good signature: the control plane's key signs what it should not."""
    return lambda plane, ran: plane.queue_payload(good(plane, ran, **over))


def shown_as_another(plane: Plane, ran: str) -> Job:
    payload = good(plane, ran)
    return plane.queue_payload({**payload, "job_id": OTHER_ID}, job_id=payload["job_id"])


def without(name: str) -> Case:
    def make(plane: Plane, ran: str) -> Job:
        payload = good(plane, ran)
        del payload[name]
        return plane.queue_payload({"job_id": "", **payload}, job_id=good(plane, ran)["job_id"])

    return make


def changed(
    change: Callable[[Job, Plane], None], signer: Callable[[Plane], Signer] = lambda plane: plane.signer
) -> Case:
    """A good payload, and something done to it after it was signed."""

    def make(plane: Plane, ran: str) -> Job:
        payload, key = good(plane, ran), signer(plane)
        raw = encode(payload)
        job = Job(payload["job_id"], raw, key.sign(b"hyprbox-job-v1\0" + raw), key.key_id)
        change(job, plane)
        return plane.put(job)

    return make


def replaced(old: bytes, new: bytes) -> Case:
    def change(job: Job, _: Plane) -> None:
        assert old in job.payload
        job.payload = job.payload.replace(old, new, 1)

    return changed(change)


def with_other_script(job: Job, _: Plane) -> None:
    data = json.loads(job.payload)
    script = base64.b64decode(data["script"]).replace(b"echo RAN", b"echo BAD")
    data["script"], data["script_sha256"] = base64.b64encode(script).decode(), hashlib.sha256(script).hexdigest()
    job.payload = encode(data)


def set_signature(make: Callable[[Job, Plane], str]) -> Case:
    def change(job: Job, plane: Plane) -> None:
        job.signature = make(job, plane)

    return changed(change)


def flipped_bit(job: Job, _: Plane) -> str:
    raw = bytearray(base64.b64decode(job.signature))
    raw[17] ^= 1
    return base64.b64encode(raw).decode()


def under_our_name(job: Job, plane: Plane) -> None:
    job.key_id = plane.signer.key_id


def now(**shift: float) -> str:
    return iso(datetime.now(timezone.utc) + timedelta(**shift))


CASES: dict[str, Case] = {
    # good signature, bad payload
    "another node's": signed(node_id="db-1"),
    "expired": lambda p, r: signed(expires_at=now(minutes=-6))(p, r),
    "from the future": lambda p, r: signed(created_at=now(minutes=6))(p, r),
    "local time": signed(created_at="2025-01-01T00:00:00"),
    "wrong hash of the script": signed(script_sha256="0" * 64),
    "sloppy base64": signed(script="ZWNobyBoaQ"),
    "unknown version": signed(v=2),
    "version as truth": signed(v=True),
    "unknown key": signed(sudo=True),
    "a key is missing": without("nonce"),
    "unknown mode": signed(mode="force"),
    "no apply": signed(parts=["check"]),
    "a part twice": signed(parts=["apply", "apply"]),
    "an unknown part": signed(parts=["apply", "destroy"]),
    "check without a check": signed(mode="check"),
    "no time-out": signed(timeout_seconds=0),
    "time-out as text": signed(timeout_seconds="60"),
    "time-out as truth": signed(timeout_seconds=True),
    "time-out of years": signed(timeout_seconds=10**9),
    "background as text": signed(allow_background="true"),
    "background as a number": signed(allow_background=1),
    "bash's own variable": signed(environment={"BASH_ENV": "/tmp/x"}),
    "the loader's variable": signed(environment={"LD_PRELOAD": "/tmp/x"}),
    "an exported function": signed(environment={"BASH_FUNC_echo%%": "() { :; }"}),
    "a secret as the path": signed(secrets={"PATH": "env:HYPRBOX_SECRET_A"}),
    "shown as another job": shown_as_another,
    "names another key": signed(key_id="0" * 16),
    # bad signature
    "a field changed": replaced(b'"timeout_seconds":60', b'"timeout_seconds":61'),
    "the node changed": replaced(b'"node_id":"web-1"', b'"node_id":"web-2"'),
    "the script changed": changed(with_other_script),
    "truncated": changed(lambda job, _: setattr(job, "payload", job.payload[:-1])),
    "extra bytes": changed(lambda job, _: setattr(job, "payload", job.payload + b" ")),
    "empty payload": changed(lambda job, _: setattr(job, "payload", b"")),
    "a huge payload": changed(lambda job, _: setattr(job, "payload", job.payload + b" " * 3_000_000)),
    "a bit of the signature": set_signature(flipped_bit),
    "no signature": set_signature(lambda *_: ""),
    "half a signature": set_signature(lambda job, _: base64.b64encode(base64.b64decode(job.signature)[:32]).decode()),
    "another algorithm": set_signature(lambda job, _: base64.b64encode(hashlib.sha512(job.payload).digest()).decode()),
    "signed as a key set": set_signature(lambda job, plane: plane.signer.sign(b"hyprbox-keys-v1\0" + job.payload)),
    "signed without its context": set_signature(lambda job, plane: plane.signer.sign(job.payload)),
    "a stranger's key": changed(lambda *_: None, lambda _: Signer()),
    "a stranger under our name": changed(under_our_name, lambda _: Signer()),
}


def refusal(plane: Plane, job: Job) -> str:
    plane.finished(job)
    assert (job.status, job.result["phases"], job.streams["stdout"].total) == ("FAILED", [], 0)
    return job.result["reason"]


def test_forty_forgeries_are_refused_and_reported(plane, agent_process, tmp_path):
    assert len(CASES) >= 40
    ran = tmp_path / "ran"
    agent_process.start()
    plane.wait(lambda: plane.heartbeats)
    reasons = {name: refusal(plane, make(plane, str(ran))) for name, make in CASES.items()}
    assert {name: reason for name, reason in reasons.items() if reason != "signature_invalid"} == {}
    assert not ran.exists()
    # The simulator can also tell the truth: what was refused was refused for its fault.
    assert plane.finished(plane.queue_payload(good(plane, str(ran)))).status == "SUCCEEDED"
    assert ran.read_text() == "RAN\n"


# What is no base64, no text or not there: in an offer's three parts that have to be text.
NO_OFFERS: dict[str, dict[str, Any]] = {
    f"{name} is {value!r}": {name: value}
    for name in ("signature", "payload", "key_id")
    for value in ("!!! no base64 !!!", "YWJj\nZGVm", "YQ", "ä", None, 7, ["YWJj"], {"text": "YWJj"}, True)
}


def test_what_is_no_offer_is_refused_and_reported_as_well(plane, agent_process, tmp_path):
    ran = tmp_path / "ran"
    agent_process.start()
    plane.wait(lambda: plane.heartbeats)
    reasons = {}
    for name, over in NO_OFFERS.items():
        job = changed(lambda job, _, over=over: job.offer_over.update(over))(plane, str(ran))
        reasons[name] = refusal(plane, job)
        plane.wait(lambda: plane.calls.count(("complete", 200)) >= len(reasons))
        completed = [call for call in plane.calls if call == ("complete", 200)]
        assert len(completed) == len(reasons), "one refusal is enough"
    assert len(reasons) == 27 and set(reasons.values()) == {"signature_invalid"}
    assert not ran.exists()
    assert plane.finished(plane.queue_payload(good(plane, str(ran)))).status == "SUCCEEDED"


@pytest.mark.parametrize("over", [{"id": "../../x"}, {"id": None}, {"claim_id": "x"}, {"claim_id": None}])
def test_what_cannot_be_answered_is_let_alone(plane, agent_process, tmp_path, over):
    """The claim ends by itself; the next offer of the same job is judged as if there had been none."""
    plane.claim_lease = 1.0
    job = changed(lambda job, _: job.offer_over.update(over))(plane, str(tmp_path / "ran"))
    agent_process.start()
    plane.wait(lambda: "job.malformed" in agent_process.log)
    job.offer_over.clear()
    assert plane.finished(job).status == "SUCCEEDED"


def test_an_agent_that_dies_over_it_refuses_it_with_its_next_life(plane, agent_process, tmp_path):
    """Between the record of the claim and the one of the refusal."""
    job = changed(lambda job, _: job.offer_over.update(signature="!"))(plane, str(tmp_path / "ran"))
    offer = plane._claim("11111111-2222-4333-8444-555555555555")
    folder = Journal(agent_process.state_dir).folder(job.id)
    folder.create()
    folder.write("intent", {name: offer[name] for name in ("claim_id", "payload", "signature", "key_id")})
    agent_process.start()
    assert refusal(plane, job) == "signature_invalid"


def test_what_ran_is_not_run_again_as_a_replay_or_under_its_name(plane, agent_process, tmp_path):
    ran = tmp_path / "ran"
    plane.claim_lease = 1.0
    agent_process.start()
    first = plane.finished(plane.queue_payload(good(plane, str(ran))))
    for _ in range(2):
        assert (
            refusal(plane, plane.put(Job(first.id, first.payload, first.signature, first.key_id)))
            == "signature_invalid"
        )
    assert refusal(plane, plane.queue_payload(good(plane, str(ran), job_id=first.id))) == "signature_invalid"
    assert ran.read_text() == "RAN\n"


def test_an_older_key_set_and_a_changed_one_of_the_same_version_are_not_taken(plane, agent_process, tmp_path):
    ran = tmp_path / "ran"
    old, new, stranger = plane.signer, Signer(), Signer()
    first = key_set(1, [old.entry()], old)
    plane.keys = key_set(2, [old.entry(retired=True), new.entry()], new)
    plane.signer = new
    agent_process.start()
    assert plane.finished(plane.queue_payload(good(plane, str(ran)))).status == "SUCCEEDED"
    ran.unlink()
    for served in (
        first,
        key_set(1, [old.entry(), new.entry()], new),
        key_set(2, [new.entry(), stranger.entry()], new),
        key_set(3, [stranger.entry()], stranger),
        key_set(3, [old.entry()], old),  # signed by a key that is retired
        {**key_set(3, [new.entry(), stranger.entry()], new), "version": 4},
        {"version": 5, "keys": [], "signed_by": new.key_id, "signature": ""},
    ):
        plane.keys = served
        for signer in (stranger, old):
            payload = good(plane, str(ran), key_id=signer.key_id)
            assert refusal(plane, plane.queue_payload(payload, signer=signer)) == "signature_invalid"
    assert not ran.exists()
