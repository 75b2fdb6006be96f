"""The journal, the spool, the wire and the secrets: small parts, one at a time."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import threading
import time

import pytest

from agent import secretrefs, wire
from agent.client import Backoff, CallFailed
from agent.journal import KEEP_SECONDS, Journal
from agent.spool import BLOCK, SpoolReader, SpoolWriter
from agent.tests.plane import CAP, encode, make_payload, render

JOB = "11111111-2222-4333-8444-55555555cafe"


def test_a_record_cut_at_any_byte_counts_as_absent(tmp_path):
    folder = Journal(tmp_path).folder(JOB)
    folder.create()
    folder.write("intent", {"claim_id": "c", "n": 1})
    whole = (folder.path / "intent").read_bytes()
    for length in range(len(whole)):
        (folder.path / "intent").write_bytes(whole[:length])
        assert folder.read("intent") is None, length
    for at in range(len(whole)):
        (folder.path / "intent").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert folder.read("intent") is None, at


def test_exec_is_claimed_once_and_not_replaced(tmp_path):
    folder = Journal(tmp_path).folder(JOB)
    folder.create()
    assert folder.claim_exec({"pid": 1})
    assert not folder.claim_exec({"pid": 2})
    assert folder.read("exec") == {"pid": 1}


@pytest.mark.parametrize("name", ["../x", "", ".", JOB.upper(), JOB + "/..", JOB[:-1], "a" * 36])
def test_only_a_job_id_becomes_a_folder(tmp_path, name):
    with pytest.raises(ValueError, match="not a job id"):
        Journal(tmp_path).folder(name)


def test_closed_jobs_are_kept_thirty_days_or_a_week_past_their_expiry(tmp_path):
    journal = Journal(tmp_path)
    for job_id, expires in ((JOB, 0.0), (JOB.replace("1", "a"), KEEP_SECONDS * 2.0)):
        folder = journal.folder(job_id)
        folder.create()
        folder.write("intent", {})
        folder.write("closed", {"at": 0.0, "expires_at": expires})
    assert journal.forget_old(KEEP_SECONDS - 1.0) == 0
    assert journal.forget_old(KEEP_SECONDS + 1.0) == 1
    assert journal.forget_old(KEEP_SECONDS * 2.0 + 7 * 86400 + 1) == 1


def test_a_folder_is_for_root_alone(tmp_path):
    folder = Journal(tmp_path).folder(JOB)
    folder.create()
    folder.write("intent", {})
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / "intent").stat().st_mode & 0o777 == 0o600


def test_the_spool_keeps_true_offsets(tmp_path):
    writer, reader = SpoolWriter(tmp_path), SpoolReader(tmp_path)
    whole, rng = b"", random.Random(7)
    while len(whole) < CAP + 3 * BLOCK:
        data = rng.randbytes(rng.randint(1, BLOCK))
        writer.write(0, data)
        whole += data
    assert reader.progress()[0] == (len(whole), 0)
    start, data = reader.read(0, 0, 1000)
    assert start == len(whole) - CAP and data == whole[start : start + 1000]
    assert reader.read(0, len(whole) - 5, 100) == (len(whole) - 5, whole[-5:])
    assert reader.read(1, 0, 100) == (0, b"")
    assert writer.digests()[0] == hashlib.sha256(whole).hexdigest()
    assert reader.digests()[0] == wire.UNKNOWN_SHA256


def test_a_reader_gets_on_while_a_writer_runs_at_full_speed(tmp_path):
    """Each block tells its own number, so that a torn or misplaced read shows."""
    writer, reader = SpoolWriter(tmp_path), SpoolReader(tmp_path)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            writer.write(0, number.to_bytes(8, "big") * (BLOCK // 8))
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        offset, reads, deadline = 0, 0, time.monotonic() + 2
        while time.monotonic() < deadline:
            start, data = reader.read(0, offset, 192 * 1024)
            assert start >= offset
            for at in range((-start) % 8, len(data) - 7, 8):
                assert int.from_bytes(data[at : at + 8], "big") == (start + at) // BLOCK
            offset, reads = start + len(data), reads + bool(data)
    finally:
        stop.set()
        thread.join()
    assert reads > 10


def test_after_a_power_cut_only_what_was_synced_counts(tmp_path):
    writer = SpoolWriter(tmp_path)
    writer.write(0, b"on disk")
    writer.sync()
    writer.write(0, b" and not")
    assert SpoolReader(tmp_path).progress()[0] == (15, 0)
    assert SpoolReader(tmp_path, after_reboot=True).progress()[0] == (7, 0)


def test_a_spool_that_was_never_made_is_empty(tmp_path):
    assert SpoolReader(tmp_path).progress() == ((0, 0), "")
    assert SpoolReader(tmp_path).read(0, 0, 10) == (0, b"")


def good() -> dict:
    return make_payload("web-1", "0" * 16, render({"apply": "true"}), ["apply"])


def test_a_good_payload_is_read():
    payload = wire.parse_payload(encode(good()))
    assert payload.parts == ("apply",) and payload.script.startswith(b"#")


@pytest.mark.parametrize("name", sorted(good()))
def test_each_key_of_the_payload_is_needed_and_typed(name):
    short = {key: value for key, value in good().items() if key != name}
    for bad in (short, {**good(), name: None}, {**good(), name: [1]}, {**good(), name: True}):
        with pytest.raises(wire.Malformed):
            wire.parse_payload(encode(bad))


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'"x"'])
def test_what_is_no_object_is_malformed(raw):
    with pytest.raises(wire.Malformed):
        wire.parse_payload(raw)


@pytest.mark.parametrize(
    "name",
    [
        "BASH_ENV",
        "ENV",
        "SHELLOPTS",
        "BASHOPTS",
        "IFS",
        "PS4",
        "PROMPT_COMMAND",
        "PATH",
        "LD_PRELOAD",
        "PYTHONPATH",
        "PERL5LIB",
        "lower",
        "A=B",
        "1A",
    ],
)
def test_names_that_bash_or_a_loader_would_act_on_are_refused(name):
    for place in ("environment", "secrets"):
        with pytest.raises(wire.Malformed):
            wire.parse_payload(encode({**good(), place: {name: "x"}}))


def test_secrets_come_from_below_the_folder_only(tmp_path):
    root = tmp_path / "secrets"
    (root / "sub").mkdir(parents=True)
    secret = root / "sub" / "db"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    outside = tmp_path / "outside"
    outside.write_text("no")
    outside.chmod(0o600)
    (root / "link").symlink_to(outside)
    (root / "dirlink").symlink_to(tmp_path)
    (root / "open").write_text("no")
    (root / "open").chmod(0o644)
    (root / "big").write_bytes(b"x" * 5000)
    (root / "big").chmod(0o600)
    os.mkfifo(root / "fifo", 0o600)

    def resolve(pointer: str) -> str:
        return secretrefs.resolve({"X": pointer}, {"HYPRBOX_SECRET_A": "a", "OTHER": "b"}, root)["X"]

    assert resolve(f"file:{secret}") == "s3cret"
    assert resolve("env:HYPRBOX_SECRET_A") == "a"
    names = ("link", "dirlink/outside", "open", "big", "fifo", "sub", "missing", "../outside", "sub/../../outside")
    for bad in [f"file:{root}/{name}" for name in names] + [
        f"file:{outside}",
        "env:OTHER",
        "env:HYPRBOX_SECRET_B",
        "x",
        "",
    ]:
        with pytest.raises(secretrefs.Unresolved) as caught:
            resolve(bad)
        assert "s3cret" not in str(caught.value)


def test_a_secret_of_the_settings_file_counts_only_while_the_file_is_roots_alone(tmp_path, monkeypatch):
    env_file = tmp_path / "hyprnode.env"
    env_file.write_text("HYPRBOX_SECRET_A=s3cret\n")

    def resolve(name, environ=()):
        return secretrefs.resolve({"X": f"env:{name}"}, dict(environ), env_file=env_file)["X"]

    env_file.chmod(0o600)
    assert resolve("HYPRBOX_SECRET_A") == "s3cret"
    for is_wrong in (
        lambda: env_file.chmod(0o640),
        lambda: env_file.chmod(0o604),
        lambda: _give_away(monkeypatch, env_file),
    ):
        env_file.chmod(0o600)
        is_wrong()
        # The unit hands the file's lines to the agent as its environment, so there they count as little.
        for environ in ({}, {"HYPRBOX_SECRET_A": "s3cret"}):
            with pytest.raises(
                secretrefs.Unresolved, match=r"env:HYPRBOX_SECRET_A: .*hyprnode.env must belong to root"
            ) as caught:
                resolve("HYPRBOX_SECRET_A", environ)
            assert "s3cret" not in str(caught.value)
        assert resolve("HYPRBOX_SECRET_B", {"HYPRBOX_SECRET_B": "from elsewhere"}) == "from elsewhere"
    assert secretrefs.resolve({"X": "env:HYPRBOX_SECRET_B"}, {"HYPRBOX_SECRET_B": "b"}, env_file=tmp_path / "none") == {
        "X": "b"
    }


def _give_away(monkeypatch, path):
    """To another user, whoever runs the tests."""
    facts = list(path.stat())
    facts[4] = os.geteuid() + 1000
    monkeypatch.setattr(type(path), "stat", lambda *_, **__: os.stat_result(facts))


def test_the_back_off_has_full_jitter_and_its_limits(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    backoff, away = Backoff(), CallFailed("x")
    assert [backoff.failed(away) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert Backoff().failed(CallFailed("x", status=503, retry_after=7)) == pytest.approx(7 * 1.2)
    refused = Backoff()
    assert [refused.failed(CallFailed("x", status=401)) for _ in range(9)][-1] == 300
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    assert Backoff().failed(CallFailed("x", status=401)) == 1.0  # never a tight loop


def test_a_minute_of_success_is_forgiven_and_less_is_not(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    backoff = Backoff()
    for _ in range(4):
        backoff.failed(CallFailed("x"))
    backoff.succeeded()
    clock[0] += 30
    backoff.succeeded()
    assert backoff.failed(CallFailed("x")) == 16
    backoff.succeeded()
    clock[0] += 61
    assert backoff.failed(CallFailed("x")) == 1


def test_only_polls_after_a_real_outage_are_spread(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    polls, others = Backoff(spread=True), Backoff()
    assert (polls.failed(CallFailed("x")), others.failed(CallFailed("x"))) == (1, 1)
    clock[0] += 6
    assert (polls.failed(CallFailed("x")), others.failed(CallFailed("x"))) == (30, 2)


def test_the_payload_survives_base64_and_json_exactly():
    raw = encode(good())
    assert wire.strict_base64(base64.b64encode(raw).decode()) == raw
    assert json.loads(raw)["v"] == 1
    for bad in ("ab c", "abc", "ab\n==", None, 7):
        with pytest.raises(wire.Malformed):
            wire.strict_base64(bad)
