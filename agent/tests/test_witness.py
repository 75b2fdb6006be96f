"""Checkpoints of the audit log: kept, bounded, and refused when they contradict."""

from __future__ import annotations

import json

import pytest

from agent import witness
from agent.keys import KeyRing
from agent.tests.plane import Signer, key_set
from agent.witness import Witness

SIGNER = Signer()


def checkpoint(signer, n, digest):
    said = {"at": "2026-01-02T03:04:05.000000Z", "hash": digest, "n": n}
    message = witness.CONTEXT + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return {**said, "key_id": signer.key_id, "signature": signer.sign(message)}


class Heard:
    def __init__(self):
        self.errors = []

    def warning(self, event, **facts):
        self.errors.append(event)

    error = warning


@pytest.fixture
def keys(tmp_path):
    ring = KeyRing(tmp_path)
    ring.offer(key_set(1, [SIGNER.entry()], SIGNER))
    return ring


def numbers(tmp_path, name="audit-checkpoints"):
    path = tmp_path / name
    return [json.loads(line)["n"] for line in path.read_text().splitlines()] if path.exists() else []


def test_what_is_signed_is_kept_once(tmp_path, keys):
    heard = Heard()
    one = Witness(tmp_path, keys, heard)
    for n in (5, 5, 9, 3):  # the last is of a process that is behind
        one.note(checkpoint(SIGNER, n, f"{n:064x}"))
    one.note(None)
    assert (numbers(tmp_path), heard.errors) == ([5, 9], [])
    again = Witness(tmp_path, keys, heard)
    again.note(checkpoint(SIGNER, 9, f"{9:064x}"))
    again.note(checkpoint(SIGNER, 12, f"{12:064x}"))
    assert (numbers(tmp_path), heard.errors) == ([5, 9, 12], [])


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 6},
        {"hash": "f" * 64},
        {"at": "2027-01-02T03:04:05.000000Z"},
        {"signature": "AAAA"},
        {"signature": "?"},
        {"key_id": "0" * 16},
        {"n": "5"},
        {"n": True},
        {"more": 1},
    ],
)
def test_what_is_not_signed_is_refused(tmp_path, keys, bad):
    heard = Heard()
    Witness(tmp_path, keys, heard).note({**checkpoint(SIGNER, 5, "a" * 64), **bad})
    assert (numbers(tmp_path), len(heard.errors)) == ([], 1)


def test_another_key_is_not_believed(tmp_path, keys):
    heard = Heard()
    Witness(tmp_path, keys, heard).note(checkpoint(Signer(), 5, "a" * 64))
    assert (numbers(tmp_path), heard.errors) == ([], ["audit.checkpoint_unsigned"])


def test_a_contradiction_is_told_and_kept_aside(tmp_path, keys):
    heard = Heard()
    one = Witness(tmp_path, keys, heard)
    one.note(checkpoint(SIGNER, 5, "a" * 64))
    one.note(checkpoint(SIGNER, 5, "b" * 64))
    assert heard.errors == ["audit.forked"]
    assert json.loads((tmp_path / "audit-checkpoints").read_text())["hash"] == "a" * 64
    assert json.loads((tmp_path / "audit-forks").read_text())["hash"] == "b" * 64


def test_a_contradiction_is_told_to_the_control_plane_once(tmp_path, keys):
    one = Witness(tmp_path, keys, Heard())
    assert one.untold() is None
    kept, other, third = (checkpoint(SIGNER, 5, letter * 64) for letter in "abc")
    for handed in (kept, other, other, third, kept):
        one.note(handed)
    assert numbers(tmp_path, "audit-forks") == [5, 5]
    again = Witness(tmp_path, keys, Heard())  # the agent was restarted before it was heard
    assert again.untold() == {"kept": kept, "refused": other}
    again.told()
    again.note(other)
    assert again.untold() == {"kept": kept, "refused": third}
    again.told()
    assert Witness(tmp_path, keys, Heard()).untold() is None


def test_a_server_that_makes_up_forks_does_not_fill_the_disk(tmp_path, keys, monkeypatch):
    monkeypatch.setattr(witness, "KEPT", 10)
    monkeypatch.setattr(witness, "UNTOLD", 3)
    heard = Heard()
    one = Witness(tmp_path, keys, heard)
    one.note(checkpoint(SIGNER, 5, "a" * 64))
    for n in range(30):
        one.note(checkpoint(SIGNER, 5, f"{n:064x}"))
    assert len(numbers(tmp_path, "audit-forks")) == 10
    assert len((tmp_path / "audit-forks-untold").read_text().splitlines()) == 3


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"kept": 1, "refused": 2}', "\xff"])
def test_a_torn_record_of_forks_counts_as_none(tmp_path, keys, torn):
    (tmp_path / "audit-forks-untold").write_bytes(torn.encode("latin-1") + b"\n")
    assert Witness(tmp_path, keys, Heard()).untold() is None


def test_a_thousand_are_kept(tmp_path, keys):
    heard, sent = Heard(), 3050
    one = Witness(tmp_path, keys, heard)
    for n in range(1, sent + 1):
        one.note(checkpoint(SIGNER, n, f"{n:064x}"))
        if n in (999, 1000, 1001, 2000, 2001):
            assert numbers(tmp_path)[-1000:] == list(range(max(1, n - 999), n + 1))
    assert 1000 <= len(numbers(tmp_path)) <= 2000  # it is written anew once in a thousand
    assert numbers(tmp_path)[-1000:] == list(range(sent - 999, sent + 1))
    again = Witness(tmp_path, keys, heard)
    again.note(checkpoint(SIGNER, sent + 1, f"{sent + 1:064x}"))
    assert numbers(tmp_path)[-1000:] == list(range(sent - 998, sent + 2))
    assert heard.errors == []
    # The oldest of the thousand still counts, before and after a restart.
    again.note(checkpoint(SIGNER, sent - 998, "f" * 64))
    Witness(tmp_path, keys, heard).note(checkpoint(SIGNER, sent - 998, "e" * 64))
    assert heard.errors == ["audit.forked"] * 2


def test_the_oldest_of_a_thousand_contradicts_before_any_restart(tmp_path, keys):
    heard = Heard()
    one = Witness(tmp_path, keys, heard)
    for n in range(1, 1102):
        one.note(checkpoint(SIGNER, n, f"{n:064x}"))
    one.note(checkpoint(SIGNER, 101, "f" * 64))  # forgotten: one of a process that is behind
    assert heard.errors == []
    one.note(checkpoint(SIGNER, 102, "f" * 64))
    assert heard.errors == ["audit.forked"]


def test_before_the_keys_are_pinned_nothing_is_kept(tmp_path):
    one = Witness(tmp_path, KeyRing(tmp_path), Heard())
    one.note(checkpoint(SIGNER, 5, "a" * 64))
    assert numbers(tmp_path) == []
