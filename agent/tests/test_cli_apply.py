"""`preset apply` on servers: which ones, in what waves, what is asked and warned of first; and whole batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli import record
from agent.tests.cli_plane import Refusal, node

MOTD = ("preset", "apply", "motd")
FAILED = {"status": "FAILED", "reason": "exit", "exit_code": 7}


@pytest.fixture
def person(monkeypatch):
    """Somebody who can be asked."""
    for module in ("confirming", "base"):
        monkeypatch.setattr(f"agent.cli.{module}.is_tty", lambda stream: True)


def queued(run) -> list[dict]:
    return run.shell.plane.bodies("POST", "/api/jobs") + run.shell.plane.bodies("POST", "/api/jobs/batches")


def fleet(run, count: int) -> None:
    run.shell.plane.nodes = {f"n-{i:02}": node(f"n-{i:02}", tags=["edge"]) for i in range(count)}


def test_a_tag_finds_its_servers(run):
    run.shell.plane.nodes["web-2"] = node("web-2", tags=["web"])
    done = run(*MOTD, "--tag", "web", "--set", "TEXT=a=b", "--check", "--timeout", "15m", "--json").json
    assert [each["node_id"] for each in done["jobs"]] == ["web-1", "web-2"] and done["batch"]
    [body] = run.shell.plane.bodies("POST", "/api/jobs/batches")
    assert body == {
        "preset": "motd", "variables": {"TEXT": "a=b"}, "mode": "check", "confirm": "", "timeout_seconds": 900,
        "node_ids": ["web-1", "web-2"],
    }  # fmt: skip


def test_what_a_script_leaves_running_may_go_on(run):
    assert run(*MOTD, "--target", "web-1", "--allow-background").code == 0
    assert run(*MOTD, "--target", "web-1").code == 0
    assert [body.get("allow_background") for body in queued(run)] == [True, None]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["--tag", "web", "--tag", "db"], ["web-1", "both"]),
        (["--group", "acme"], ["db-1", "both"]),
        (["--group", "acme", "--tag", "web", "--tag", "db"], ["both"]),
        (["--status", "online,offline"], ["web-1", "db-1", "both"]),
        (["--status", "Offline", "--group", "acme"], ["db-1"]),
    ],
)
def test_tags_groups_and_statuses_choose_servers(run, where, found):
    run.shell.plane.nodes["both"] = node("both", tags=["web", "db"], group="acme")
    assert run(*MOTD, *where).code == 0
    assert [body.get("node_ids") or [body["node_id"]] for body in queued(run)] == [found]


def test_nothing_that_fits_is_told_with_all_that_was_asked(run):
    done = run(*MOTD, "--tag", "x", "--tag", "y", "--group", "acme")
    assert (done.code, done.err) == (5, "hyprbox: No server has the tag “x” or “y” and the group “acme”.\n")


def test_servers_that_never_reported_are_left_out_with_a_warning(run):
    run.shell.plane.nodes["awaited"] = node("awaited", tags=["web", "new"], status="UNKNOWN", last_seen_at=None)
    done = run(*MOTD, "--tag", "web")
    assert (done.code, [body["node_id"] for body in queued(run)]) == (0, ["web-1"])
    assert "hyprbox: warning: 1 server has never reported and will not get a job.\n" in done.err
    done = run(*MOTD, "--tag", "new")
    assert (done.code, done.err) == (5, "hyprbox: No server with the tag “new” has ever reported.\n")


def test_waves_and_when_they_stop_are_passed_on(run):
    fleet(run, 4)
    assert run(*MOTD, "--tag", "edge", "--wave-size", "2", "--stop-after", "1").code == 0
    [body] = queued(run)
    assert (body["wave_size"], body["stop_after_failures"]) == (2, 1)


def test_a_dangerous_preset_wants_its_name(run):
    run.shell.plane.presets["wipe"] = {"name": "wipe", "risk": "dangerous"}
    for more in ([], ["--yes"], ["--confirm", "wip"]):
        done = run("preset", "apply", "wipe", "-t", "web-1", *more)
        assert done.code == 2 and "--confirm wipe" in done.err
    assert queued(run) == []
    assert run("preset", "apply", "wipe", "-t", "web-1", "--confirm", "wipe").code == 0
    assert queued(run)[0]["confirm"] == "wipe"


def test_more_than_ten_servers_are_not_changed_by_mistake(run):
    fleet(run, 11)
    done = run(*MOTD, "--tag", "edge")
    assert (done.code, queued(run)) == (2, [])
    assert done.err == (
        "hyprbox: motd would run on 11 servers (n-00, n-01, n-02, ...), and nobody can be asked here: "
        "add --yes, or --check for a dry run.\n"
    )
    assert run(*MOTD, "--tag", "edge", "--json").error["code"] == "confirm"
    assert run(*MOTD, "--tag", "edge", "--check").code == 0  # changes nothing
    assert run(*MOTD, "--tag", "edge", "--yes").code == 0
    assert [body["confirm"] for body in queued(run)] == ["", "motd"]


@pytest.mark.parametrize(("answer", "code"), [("11\n", 0), ("12\n", 2), ("motd\n", 2), ("y\n", 2), ("", 130)])
def test_a_person_types_how_many(run, person, answer, code):
    fleet(run, 11)
    done = run(*MOTD, "--tag", "edge", stdin=answer)
    assert done.code == code and "Type how many servers that are" in done.err
    assert [body["confirm"] for body in queued(run)] == (["motd"] if code == 0 else [])


def test_warnings_come_before_anything_runs(run, person):
    run.shell.plane.warnings = ["TEXT looks like a secret."]
    done = run(*MOTD, "-t", "web-1", stdin="n\n")
    assert (done.code, queued(run)) == (1, [])
    assert "hyprbox: warning: TEXT looks like a secret.\n" in done.err and "Run motd on web-1?" in done.err
    assert run(*MOTD, "-t", "web-1", "--yes").code == 0


def test_a_program_gets_the_warnings_with_the_answer(run):
    run.shell.plane.warnings = ["TEXT looks like a secret."]
    done = run(*MOTD, "-t", "web-1", "--json")
    assert (done.code, done.json["warnings"], done.err) == (0, ["TEXT looks like a secret."], "")
    assert "warning" in run(*MOTD, "-t", "web-1").err  # a log keeps it


def test_what_is_sensitive_asks_a_person_for_the_second_factor(run, monkeypatch):
    monkeypatch.setattr("agent.cli.api.ask_code", lambda question: "123456")
    shown = {"code": ""}

    def ask(method: str, path: str) -> None:
        if path == "/api/auth/step-up":
            shown["code"] = run.shell.plane.seen[-1][2]["otp"]
        elif method == "POST" and path == "/api/jobs" and shown["code"] != "123456":
            raise Refusal(403, "step_up_required", "Show your second factor first.")

    run.shell.plane.before = ask
    assert run(*MOTD, "-t", "web-1").code == 0
    assert len(run.shell.plane.bodies("POST", "/api/auth/step-up")) == 1


def test_a_wrong_code_is_told_in_words(run, monkeypatch):
    monkeypatch.setattr("agent.cli.api.ask_code", lambda question: "000000")

    def refuse(method: str, path: str) -> None:
        if path == "/api/auth/step-up":
            wrong = {"otp": ["This code is not right, or was used before."]}
            raise Refusal(400, "invalid_input", "Some of it cannot be used.", fields=wrong)
        if path == "/api/jobs":
            raise Refusal(403, "step_up_required", "Show your second factor first.")

    run.shell.plane.before = refuse
    done = run(*MOTD, "-t", "web-1")
    assert (done.code, done.err) == (2, "hyprbox: This code is not right, or was used before.\n")


def test_a_script_is_told_how_to_show_a_second_factor(run):
    def ask(method: str, path: str) -> None:
        if path == "/api/jobs":
            raise Refusal(403, "step_up_required", "Show your second factor first.")

    run.shell.plane.before = ask
    done = run(*MOTD, "-t", "web-1")
    assert done.code == 4 and "hyprbox login --otp" in done.err


def test_waiting_for_several_ends_with_a_line_for_each(run):
    plane = run.shell.plane
    queue = plane.add_job
    plane.add_job = lambda pieces, **over: queue(pieces, **over, **(FAILED if over["node_id"] == "db-1" else {}))
    plane.stopped = "1 of 2 failed, more than 10 %."
    done = run(*MOTD, "-t", "db-1", "-t", "web-1", "--wait")
    assert done.code == 1
    assert done.err.splitlines() == [
        "hyprbox: web-1: succeeded in 2.0 s.",
        "hyprbox: db-1: failed, the script ended with an error (exit code 7).",
        "hyprbox: 1 of 2 succeeded, 1 failed.",
        "hyprbox: The rest was cancelled: 1 of 2 failed, more than 10 %.",
    ]


def test_a_batch_is_followed_cancelled_and_retried_as_one(run):
    batch = run(*MOTD, "-t", "web-1", "-t", "db-1", "--json").json["batch"]
    done = run("jobs", "follow", "--batch", batch)
    assert (done.code, sorted(done.out.splitlines())) == (0, [b"db-1  | on db-1", b"web-1 | on web-1"])
    assert run("jobs", "cancel", "--batch", batch).out == b"2 jobs cancelled.\n"
    again = run("jobs", "retry", "--batch", batch, "--wait", "--json").json
    assert [each["node_id"] for each in again["jobs"]] == ["web-1"] and again["batch"] != batch
    run.shell.plane.failed = 11
    assert run("jobs", "retry", "--batch", batch).code == 2
    assert run("jobs", "retry", "--batch", batch, "--yes").code == 0
    assert run.shell.plane.bodies("POST", f"/api/jobs/batches/{batch}/retry") == [{"confirm": ""}, {"confirm": "motd"}]


@pytest.mark.slow
def test_what_ran_here_is_noted_without_its_values(run, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "ann")
    assert run("preset", "apply", "system-report", "-t", "local", "--set", "DETAIL=brief").code == 0
    file = Path(run.shell.home) / "state" / "jobs" / "local.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600 and "brief" not in file.read_text()
    [noted] = run("jobs", "list", "--local", "--json").json
    assert (noted["preset"], noted["mode"], noted["status"], noted["created_by"]) == (
        "system-report", "apply", "SUCCEEDED", "ann",
    )  # fmt: skip
    with file.open("a") as lines:  # killed while it ran, and a line that a full disk cut
        lines.write(
            '{"id":"x","preset":"swap-file","mode":"check","created_by":"ann","started_at":"2026-01-01T00:00:00Z"}\n{"i'
        )
    table = run("jobs", "list", "--local").out.decode().splitlines()
    assert table[1].split()[-2:] == ["(check)", "ann"] and "UNKNOWN" in table[1]
    monkeypatch.setattr(record, "MAX_BYTES", file.stat().st_size - 1)
    assert run("preset", "apply", "system-report", "-t", "local").code == 0
    assert len(run("jobs", "list", "--local", "--json").json) == 3
