"""Following jobs: no byte lost or doubled over cut connections, and how the end is told."""

from __future__ import annotations

import io
import random
import signal
import threading
import time

import pytest

from agent.cli import follow, printing
from agent.cli.events import Event, read_events
from agent.cli.printing import Column
from agent.cli.sinks import Sieve, Sink
from agent.tests.cli_plane import Refusal, token

ALL_BYTES = bytes(range(256))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(follow, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(follow, "MAX_PAUSE_SECONDS", 0.01)


def pieces(seed: int) -> list[tuple[str, bytes]]:
    """Text of several bytes a character, and bytes that are none, on both streams."""
    random_ = random.Random(seed)
    kinds = [
        lambda: "zäh ✓ \ufffd\n".encode(),
        lambda: random_.randbytes(40),
        lambda: ALL_BYTES,
        lambda: b"line\n" * 30,
    ]
    return [(random_.choice(["stdout", "stderr"]), random_.choice(kinds)()) for _ in range(40)]


@pytest.mark.parametrize("seed", range(6))
def test_cut_connections_lose_and_double_nothing(run, seed):
    plane, random_ = run.shell.plane, random.Random(seed)
    job_id = plane.add_job(pieces(seed), exit_code=0)
    plane.cut = lambda sent: random_.random() < 0.08
    done = run("jobs", "follow", job_id)
    assert done.code == 0
    assert done.out == plane.whole(job_id, "stdout")


def test_both_streams_stay_apart_byte_for_byte(shell):
    job_id = shell.plane.add_job(pieces(99))
    process = shell.start("jobs", "follow", job_id)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (
        0,
        shell.plane.whole(job_id, "stdout"),
        shell.plane.whole(job_id, "stderr"),
    )


def test_what_is_no_longer_kept_is_said(run):
    run.shell.plane.first["stdout"] = 10
    job_id = run.shell.plane.add_job([("stdout", b"0123456789abc\xff\n")])
    done = run("jobs", "follow", job_id)
    assert done.out == b"abc\xff\n"
    assert "10 bytes of stdout are no longer kept" in done.err
    assert run("jobs", "output", job_id).out == b"abc\xff\n"


def test_bytes_that_fall_out_of_the_kept_tail_meanwhile_are_a_gap_and_never_others(run):
    """The true bytes of what is no text are asked for, and by then the tail may have moved on, once or to its end."""
    plane = run.shell.plane
    job_id = plane.add_job([("stdout", b"\xff0123456789"), ("stdout", b"text\n"), ("stdout", b"\xfe!")])
    moves = iter([4, 6])

    def move(method: str, path: str) -> None:
        if path.endswith("/output"):
            plane.first["stdout"] = next(moves, plane.first["stdout"])

    plane.before = move
    done = run("jobs", "follow", job_id)
    assert done.out == b"56789text\n\xfe!"
    assert "6 bytes of stdout are no longer kept" in done.err


def test_a_credential_that_died_in_the_middle_is_refreshed(run):
    plane = run.shell.plane
    job_id = plane.add_job([("stdout", b"one\n"), ("stdout", b"two\n")])

    def cut(sent: int) -> bool:
        if sent > 300 and not plane.refreshes:
            plane.access.clear()
            return True
        return False

    plane.cut = cut
    assert run("jobs", "follow", job_id).out == b"one\ntwo\n"
    assert plane.refreshes == 1


def test_a_server_that_stays_away_is_given_up(run, monkeypatch):
    monkeypatch.setattr(follow, "GIVE_UP_SECONDS", 0.1)
    job_id = run.shell.plane.add_job([("stdout", b"x")])
    run.shell.plane.cut = lambda sent: True
    done = run("jobs", "follow", job_id)
    assert done.code == 6 and "job goes on" in done.err


def test_someone_who_may_not_see_output_is_told_so_at_once(run):
    job_id = run.shell.plane.add_job([])

    def refuse(method: str, path: str) -> None:
        if path.endswith("/stream"):
            raise Refusal(403, "forbidden", "Your role does not allow this.")

    run.shell.plane.before = refuse
    assert run("jobs", "follow", job_id).code == 4


@pytest.mark.parametrize(
    ("over", "code", "words"),
    [
        ({"status": "FAILED", "reason": "exit", "exit_code": 42}, 42, "exit code 42"),
        ({"status": "FAILED", "reason": "timeout", "exit_code": None, "signal": 15}, 124, "longer than it was allowed"),
        ({"status": "CANCELLED", "exit_code": None}, 123, "cancelled"),
        ({"status": "FAILED", "reason": "lost", "exit_code": None, "outcome_unknown": True}, 122, "not known"),
    ],
)  # fmt: skip
def test_the_end_is_the_exit_code_and_a_sentence(run, over, code, words):
    job_id = run.shell.plane.add_job([("stdout", b"out")], **over)
    done = run("jobs", "follow", job_id)
    assert (done.code, done.out) == (code, b"out")
    assert done.err.startswith("hyprbox: web-1: ") and words in done.err
    told = run("jobs", "follow", job_id, "--json")
    assert (told.code, told.json["stdout"], told.err) == (code, "out", "")


def test_our_sentence_does_not_continue_a_line_of_the_jobs(run):
    failed = {"status": "FAILED", "reason": "exit", "exit_code": 2}
    done = run("jobs", "follow", run.shell.plane.add_job([("stderr", b"half a line")], **failed))
    assert done.err.startswith("half a line\nhyprbox: web-1: failed")
    assert run("jobs", "follow", run.shell.plane.add_job([("stderr", b"half a line")])).err == "half a line"


def test_a_rollback_is_told(run):
    phases = [{"name": name, "exit_code": code, "skipped": False} for name, code in [("verify", 1), ("rollback", 2)]]
    over = {"status": "FAILED", "reason": "verify_failed", "exit_code": 1, "phases": phases}
    assert "the rollback failed too" in run("jobs", "follow", run.shell.plane.add_job([], **over)).err


def test_apply_waits_for_one_and_passes_its_output_on(run):
    done = run("preset", "apply", "motd", "-t", "web-1", "--wait")
    assert (done.code, done.out, done.err) == (0, b"on web-1\n", "")


def test_apply_waits_for_several_and_names_each(run):
    plane = run.shell.plane
    done = run("preset", "apply", "motd", "-t", "web-1", "-t", "db-1", "--wait")
    assert (done.code, sorted(done.out.splitlines())) == (0, [b"db-1  | on db-1", b"web-1 | on web-1"])
    queue = plane.add_job

    def failing(pieces, **over):
        return queue(
            pieces,
            **over,
            **({"status": "FAILED", "reason": "exit", "exit_code": 7} if over["node_id"] == "db-1" else {}),
        )

    plane.add_job = failing
    done = run("preset", "apply", "motd", "-t", "web-1", "-t", "db-1", "--wait", "--json")
    assert done.code == 1
    assert [(each["node_id"], each["status"], each["stdout"]) for each in done.json["jobs"]] == [
        ("web-1", "SUCCEEDED", "on web-1\n"), ("db-1", "FAILED", "on db-1\n"),
    ]  # fmt: skip


def test_ctrl_c_says_that_the_job_goes_on(shell):
    silent = threading.Event()
    job_id = shell.plane.add_job([("stdout", b"begun\n"), ("stdout", b"never seen")])
    halves = iter([False] * 4)  # of the status and of the first event; then the line is silent
    shell.plane.cut = lambda sent: next(halves, True) and silent.wait(30)
    process = shell.start("jobs", "follow", job_id)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    silent.set()
    assert process.returncode == 130
    assert err.decode() == f"hyprbox: The job goes on. Cancel it with: hyprbox jobs cancel {job_id}\n"


def test_events_come_out_of_whatever_pieces():
    raw = b': comment\r\n\r\nevent: a\ndata: {"x":\ndata: 1}\n\nid: 3\ndata: "\xc3\xa9"\n\nevent: cut\ndata: 1\n'
    wanted = [Event("a", {"x": 1}), Event("message", "é")]
    for size in range(1, len(raw)):
        assert list(read_events(raw[i : i + size] for i in range(0, len(raw), size))) == wanted


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain\ttext\r\n", "plain\ttext\r\n"), (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        (b"a\x1b]0;title\x07b", "ab"), (b"a\x1b]52;c;Zm9v\x1b\\b", "ab"), (b"a\x1b[2J\x1b[Hb", "ab"), (b"a\x1bcb", "ab"),
        (b"a\xc2\x9b2Jb\x07\x00\x7f", "a2Jb"), ("zäh ✓".encode(), "zäh ✓"), (b"\xff", "\ufffd"), (b"a\x1bP1$q\x1b\\b", "ab"),
    ],
)  # fmt: skip
def test_a_node_cannot_command_an_operators_terminal(raw, shown):
    whole, bytewise = Sieve(), Sieve()
    assert whole.pass_on(raw) + whole.pass_on(b"", is_final=True) == shown
    single = "".join(bytewise.pass_on(raw[i : i + 1]) for i in range(len(raw)))
    assert single + bytewise.pass_on(b"", is_final=True) == shown


class Screen(io.TextIOWrapper):
    """What is written as to a terminal."""

    def __init__(self):
        super().__init__(io.BytesIO(), "utf-8")

    def isatty(self):
        return True

    def shown(self):
        self.flush()
        return self.buffer.getvalue()


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_who_refuses_colours_gets_none_on_a_terminal(monkeypatch, environment, colours):
    """Neither ours nor those of a script."""
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "", **environment}.items():
        monkeypatch.setenv(name, value)
    sink = Sink()
    for piece in (b"\x1b[1;3", b"1mred\x1b[0m\x1b[38;5;9m!\x1b[m\x1b[2J\n"):
        sink.write("stdout", piece)
    sink.close()
    printing.table([Column("STATUS", coloured=True)], [["FAILED"], ["UNKNOWN"]], empty="")
    printing.facts({"Status": "FAILED"})
    shown = screen.shown()
    assert b"red" in shown and b"FAILED" in shown and b"[2J" not in shown
    assert (b"\x1b[1;31mred\x1b[0m" in shown) is (b"\x1b[31m" in shown) is colours
    assert (b"\x1b" in shown) is colours


def test_a_pipe_gets_a_scripts_colours_as_they_are(monkeypatch, capfdbinary):
    monkeypatch.setenv("NO_COLOR", "1")
    sink = Sink()
    sink.write("stdout", b"\x1b[31mred\x1b[0m\n")
    sink.close()
    assert capfdbinary.readouterr().out == b"\x1b[31mred\x1b[0m\n"


def test_a_sequence_without_end_does_not_hold_the_output_for_ever():
    sieve = Sieve()
    shown = "".join(sieve.pass_on(b"\x1b]" + b"x" * 5000) for _ in range(3)) + sieve.pass_on(b"end", is_final=True)
    assert shown.endswith("end") and "\x1b" not in shown


def test_tokens_look_like_what_they_stand_for():
    from agent.cli.logins import access_until

    assert access_until(token("a", seconds=900)) - time.time() == pytest.approx(900, abs=2)
    assert access_until("no token") - time.time() == pytest.approx(60, abs=2)
