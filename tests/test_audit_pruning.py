"""Old entries leave the log in whole segments, and nobody can say so who has not the signing key."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import User
from agent.keys import KeyRing
from agent.log import Log
from agent.witness import Witness
from audit import checkpoints, pruning, sealed, segments, sequencer, verifying
from audit.models import Checkpoint, Event
from audit.tests.test_tampering import fill, guarded, sql, unguarded, witness
from hyprbox import integrity
from hyprbox.lib import signing
from tests import factories

OLD = 1500


@pytest.fixture
def log(db: None) -> User:
    """A user, then entries with checkpoints at 1001 and at the end, all of them of a month ago."""
    user = factories.make_user("vera")
    fill(OLD - 1)
    sql("SET CONSTRAINTS ALL IMMEDIATE")
    return user


def prune(path: Path, **over: Any) -> segments.Segment:
    long_from_now = timezone.now() + timedelta(days=30)
    return pruning.prune(by=factories.SYSTEM, path=path, **{"before": long_from_now, **over})


def ns() -> tuple[int, int]:
    found = Event.objects.filter(n__isnull=False).order_by("n").values_list("n", flat=True)
    return found[0] or 0, len(found)


def test_what_went_is_in_the_file_and_the_rest_verifies(log: User, tmp_path: Path) -> None:
    path = tmp_path / "segment"
    last = Checkpoint.objects.latest("n").n
    segment = prune(path)
    assert (segment.first, segment.last) == (1, last)
    assert not Event.objects.filter(n__lte=last).exists()
    sequencer.sequence()
    report = verifying.verify()
    assert (report.intact, report.sealed_to, report.head) == (True, last, Event.objects.count() + last)
    assert segments.check_file(path) == segment
    lines = path.read_text().splitlines()
    assert [json.loads(line)["n"] for line in (lines[0], lines[-1])] == [1, last]
    assert path.stat().st_mode & 0o777 == 0o400


def test_sealed_rows_stay_known(log: User, tmp_path: Path) -> None:
    prune(tmp_path / "segment")
    assert sealed.problem(User.objects.get(pk=log.pk)) == ""
    assert [subject for subject, _ in integrity.verify(by=factories.SYSTEM).bad] == []
    assert Event.objects.filter(action="row.kept", subject=f"accounts_user:{log.pk}").count() == 1


def test_only_whole_days_before_a_checkpoint_go(log: User, tmp_path: Path) -> None:
    at = Event.objects.get(n=1200).at
    assert prune(tmp_path / "one", before=at).last < 1200
    with pytest.raises(pruning.NothingToPrune):
        prune(tmp_path / "two", before=at)
    fill(1200)
    second = prune(tmp_path / "three")
    sequencer.sequence()
    assert second.first == segments.check_file(tmp_path / "one").last + 1
    assert segments.check_file(tmp_path / "three") == second
    assert verifying.verify().intact is True


def test_whoever_deletes_more_is_found(log: User, tmp_path: Path) -> None:
    kept = witness(tmp_path / "kept")
    prune(tmp_path / "one", before=Event.objects.get(n=1200).at)
    sequencer.sequence()
    first, _ = ns()
    unguarded()
    sql("DELETE FROM audit_event WHERE n = %s", first)
    guarded()
    assert verifying.verify().tampering is not None
    with pytest.raises(verifying.CannotTell):
        verifying.verify(first=first + 1)
    assert verifying.verify(outside=verifying.read_checkpoints(kept)).intact is False


def test_a_statement_of_ones_own_is_none(log: User) -> None:
    unguarded()
    sql("DELETE FROM audit_event WHERE n <= 1000")
    [digest] = Event.objects.filter(n=1001).values_list("hash", flat=True)
    said = {
        "first": 1,
        "last": 1000,
        "before": "00" * 32,
        "hash": bytes(digest).hex(),
        "sha256": "",
        "signature": "AAAA",
    }
    sql("INSERT INTO audit_event (action, actor_kind, actor_id, actor_name, target, detail, ip, request_id, subject, canonical)"
        " VALUES ('audit.sealed', '', '', 'eve', '', %s, '', '', '', '')", json.dumps(said))  # fmt: skip
    guarded()
    report = verifying.verify()
    assert report.tampering is not None and report.tampering.kind == "delete"


def test_a_file_that_was_changed_is_none(log: User, tmp_path: Path) -> None:
    path = tmp_path / "segment"
    prune(path)
    lines = path.read_text().splitlines(keepends=True)
    path.chmod(0o600)
    changes = {
        "an entry less": lines[:5] + lines[6:],
        "cut": lines[:-1],
        "another order": [lines[1], lines[0], *lines[2:]],
        "a space": [lines[0].replace(",", ", ", 1), *lines[1:]],
        "nothing": [],
        "no segment": ["hello\n"],
    }
    for name, text in changes.items():
        path.write_text("".join(text))
        with pytest.raises(segments.BadSegment):
            segments.check_file(path)
            pytest.fail(name)
    with pytest.raises(SystemExit) as ended:
        call_command("audit_verify", "--segment", str(path), stdout=io.StringIO(), stderr=io.StringIO())
    assert ended.value.code == 1


def test_a_log_that_is_not_intact_is_not_pruned(log: User, tmp_path: Path) -> None:
    unguarded()
    sql("UPDATE audit_event SET target = 'x' WHERE n = 700")
    guarded()
    with pytest.raises(segments.BadSegment, match="Entry 700"):
        prune(tmp_path / "segment")
    assert not (tmp_path / "segment").exists()
    assert Event.objects.filter(n=1).exists()


def test_the_command(log: User, tmp_path: Path) -> None:
    path, out = tmp_path / "segment", io.StringIO()
    with pytest.raises(CommandError, match="is not a day"):
        call_command("audit_prune", "--before", "yesterday", "--to", str(path))
    with pytest.raises(CommandError, match="no signed checkpoint"):
        call_command("audit_prune", "--before", "2020-01-01", "--to", str(path))
    path.write_text("mine")
    with pytest.raises(CommandError, match="File exists"):
        call_command("audit_prune", "--before", "2100-01-01", "--to", str(path))
    call_command("audit_prune", "--before", "2100-01-01", "--to", str(tmp_path / "other"), stdout=out)
    assert "entries  1 to" in out.getvalue()
    assert Event.objects.filter(action="audit.sealed").count() == 1


def test_the_log_verifies_after_the_command_against_its_file_and_what_an_agent_kept(
    log: User, tmp_path: Path, capsys: Any
) -> None:
    """With the agent's own witness, which was handed each checkpoint, those before the prune and those after it."""
    agent = KeyRing(tmp_path)
    agent.offer(signing.key_set().as_answer())
    kept = Witness(tmp_path, agent, Log("ERROR"))

    def hand_out() -> None:
        for made in Checkpoint.objects.order_by("n"):
            kept.note(checkpoints.as_dict(made))

    def verify(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            call_command("audit_verify", *arguments)
        return int(str(ended.value.code)), "".join(capsys.readouterr())

    hand_out()
    last, before = Checkpoint.objects.latest("n").n, Checkpoint.objects.count()
    assert before >= 1
    segment, witnessed = str(tmp_path / "segment"), str(tmp_path / "audit-checkpoints")
    call_command("audit_prune", "--before", "2100-01-01", "--to", segment)
    assert f"entries  1 to {last}\n" in capsys.readouterr().out
    fill(1200)
    hand_out()
    assert len((tmp_path / "audit-checkpoints").read_text().splitlines()) > before
    code, said = verify("--segment", segment, "--checkpoint", witnessed)
    assert code == 0, said
    assert f"entries 1 to {last} as they were written" in said and f"Entries up to {last} were pruned" in said

    # Each of the three is looked at: the file, what the agent kept, and the log itself.
    lines = Path(segment).read_bytes().splitlines(keepends=True)
    Path(segment).chmod(0o600)
    Path(segment).write_bytes(b"".join(lines[:700] + lines[701:]))
    assert verify("--segment", segment, "--checkpoint", witnessed)[0] == 1
    Path(segment).write_bytes(b"".join(lines))
    assert verify("--segment", segment, "--checkpoint", witnessed)[0] == 0
    handed = Path(witnessed).read_text()
    kept._keep({**checkpoints.as_dict(Checkpoint.objects.latest("n")), "hash": "0" * 64})  # nobody signed that
    assert verify("--segment", segment, "--checkpoint", witnessed)[0] != 0
    Path(witnessed).write_text(handed)
    first, _ = ns()
    unguarded()
    sql("UPDATE audit_event SET target = 'x' WHERE n = %s", first + 5)
    guarded()
    code, said = verify("--segment", segment, "--checkpoint", witnessed)
    assert code == 1 and f"TAMPERED at entry {first + 5} (edit)" in said
