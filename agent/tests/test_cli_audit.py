"""`hyprbox audit`: the verdict as words and as an exit code, the export whole or not at all."""

from __future__ import annotations

import json

import pytest

HEAD = {"n": 1200, "hash": "ab" * 32}
WHOLE = {"intact": True, "checked": 1200, "head": HEAD, "first_bad": None, "checkpoints": 3, "signed_to": 1190, "pending": 2,
         "seconds": 0.1, "why": ""}  # fmt: skip
BAD = {"n": 7, "kind": "edit", "why": "its columns do not say what was signed"}


@pytest.mark.parametrize(
    ("verdict", "code", "words"),
    [
        (WHOLE, 0, "The record is intact: 1,200 entries were read, up to number 1,200."),
        ({**WHOLE, "intact": False, "first_bad": BAD}, 1, "entry 7 on (edit): its columns do not say what was signed."),
        ({**WHOLE, "intact": None, "why": "no key"}, 2, "cannot be told: no key. 1,200 entries were read."),
    ],
)
def test_the_record_is_intact_or_the_exit_code_says_so(run, verdict, code, words):
    run.shell.plane.verdict = verdict
    done = run("audit", "verify")
    assert done.code == code and words in (done.err if code else done.out.decode())
    assert ("ab" * 32 in done.out.decode()) is (code == 0)
    told = run("audit", "verify", "--json")
    assert (told.code, told.json, told.err) == (code, verdict, "")


LINES = [{"n": 2, "action": "job.queued", "detail": {"x": "\u202e\x1b[2J"}}, {"n": 1, "action": "login.succeeded"}]
LOG = "".join(json.dumps(line) + "\n" for line in LINES).encode()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_export_is_lines_or_one_array(run, size):
    run.shell.plane.log = [LOG[at : at + size] for at in range(0, len(LOG), size)]
    assert run("audit", "export").out == LOG
    assert run("audit", "export", "--json").json == LINES
    run.shell.plane.log = []
    assert run("audit", "export", "--json").json == []
    assert run("audit", "export", "--json", "--format", "csv").code == 2


def test_an_export_into_a_file_is_whole_or_not_there(run, tmp_path):
    run.shell.plane.log = [LOG]
    file = tmp_path / "log.jsonl"
    assert run("audit", "export", "-o", str(file), "--json").json == {
        "file": str(file), "format": "jsonl", "bytes": len(LOG),
    }  # fmt: skip
    assert file.read_bytes() == LOG and file.stat().st_mode & 0o777 == 0o600
    run.shell.plane.log = [b"other", b"cut"]
    run.shell.plane.cut = lambda number: number == 1
    assert run("audit", "export", "-o", str(file)).code == 6
    assert file.read_bytes() == LOG and list(tmp_path.glob(".log*")) == []
    assert run("audit", "export", "-o", str(tmp_path / "none" / "log")).code == 1
