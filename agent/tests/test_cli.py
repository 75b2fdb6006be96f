"""The command line: what it prints for whom, how it ends, and what it never tells."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import click
import pytest

from agent.cli import exits, printing, tokens
from agent.cli.addresses import check_url, page_of
from agent.cli.exits import UsageTrouble, exit_code_of, exit_code_of_all
from agent.cli.options import Duration, Moment
from agent.cli.root import COMMANDS, hyprbox
from agent.tests.cli_plane import EMAIL, ROOT, Refusal, job, node

HEAVY = ("requests", "rich", "yaml", "presets", "psutil", "nacl")


def leaves(command: click.Command = hyprbox, path: tuple[str, ...] = ()):
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


def test_help_loads_nothing_heavy():
    code = f"import sys; from agent.cli import main; main(['--help']); sys.exit(sum(m in sys.modules for m in {HEAVY}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in COMMANDS)


def test_the_agent_does_not_load_the_command_line():
    code = "import sys, agent.daemon; sys.exit(any(m in sys.modules for m in ('click', 'rich', 'agent.cli')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_short_help_of_each_command_is_its_own():
    context = click.Context(hyprbox)
    for name, (_, words) in COMMANDS.items():
        command = hyprbox.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(80) == words


@pytest.mark.parametrize(
    ("path", "command"), list(leaves()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_takes_the_common_options_and_its_help_is_whole(path, command):
    names = {name for parameter in command.params for name in parameter.opts}
    assert {"--json", "--url", "--token-file"} <= names
    assert "--token" not in names and "--password" not in names  # where `ps` would show it
    assert command.help and not command.get_short_help_str(80).endswith("...")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nodes", "list", "--nope"], 2), (["nope"], 2), (["jobs", "show", "not-an-id"], 2), (["nodes", "show"], 2),
        (["nodes", "show", "web-9"], 5), (["preset", "apply", "motd", "-t", "web-9"], 5),
        (["preset", "apply", "nope", "-t", "web-1"], 5), (["preset", "apply", "motd"], 2),
        (["preset", "apply", "motd", "-t", "web-1", "--tag", "web"], 2), (["preset", "apply", "motd", "--tag", "none"], 5),
        (["preset", "apply", "motd", "--status", "sleeping"], 2), (["preset", "apply", "motd", "--group", "none"], 5),
        (["preset", "apply", "motd", "-t", "web-1", "--confirm", "modt"], 2), (["jobs", "follow"], 2),
        (["preset", "apply", "motd", "-t", "local", "--wave-size", "2"], 2), (["jobs", "cancel"], 2),
        (["jobs", "follow", "--batch", "00000000-0000-0000-0000-000000000000"], 5), (["jobs", "retry"], 2),
        (["jobs", "list", "--local", "--node", "web-1"], 2),
        (["jobs", "output", "00000000-0000-0000-0000-000000000000", "-o", "out"], 2),
        (["preset", "apply", "motd", "-t", "web-1", "--set", "lower=1"], 2), (["nodes", "remove", "web-1"], 2),
        (["--url", "http://192.0.2.1", "status"], 2), (["jobs", "list", "--since", "soon"], 2),
        (["nodes", "list", "--status", "sleeping"], 2), (["open", "nowhere"], 2), (["jobs", "list", "--all", "--limit", "3"], 2),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_its_exit_code(run, arguments, code):
    plain = run(*arguments)
    assert (plain.code, plain.out) == (code, b"")
    assert plain.err.startswith("hyprbox: ") and plain.err.count("\n") == 1
    told = run(*arguments, "--json")
    assert (told.code, told.out) == (code, b"")
    assert set(told.error) == {"code", "message", "fields", "detail"} and told.error["message"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 3), (403, 4), (404, 5), (409, 1), (413, 2), (422, 2), (429, 6), (500, 6), (503, 6)],
)
def test_an_error_of_the_api_becomes_an_exit_code(run, status, code):
    def refuse(method: str, path: str) -> None:
        if path != "/api/auth/refresh":
            raise Refusal(status, "some_code", "It is so.")

    run.shell.plane.before = refuse
    done = run("jobs", "cancel", job()["id"], "--json")
    assert (done.code, done.error["code"]) == (code, "some_code")


@pytest.mark.parametrize("family", [[], ["nodes"]])
def test_a_family_without_a_command_is_wrong_usage_that_shows_what_there_is(run, family):
    done = run(*family)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(" ".join(["Usage: hyprbox", *family])) and "Commands:" in done.err
    done = run("--json", *family)
    assert (done.code, done.out, done.error["code"]) == (2, b"", "usage")


def test_bad_variables_are_all_named(run):
    def refuse(method: str, path: str) -> None:
        if method == "POST":
            fields = {"variables.PORT": ['PORT cannot be "x".'], "timeout_seconds": ["A whole number."]}
            raise Refusal(400, "invalid_input", "Some of what was sent cannot be used.", fields=fields)

    run.shell.plane.before = refuse
    done = run("preset", "apply", "motd", "-t", "web-1", "--set", "PORT=x")
    assert done.code == 2
    assert done.err == 'hyprbox: PORT cannot be "x".\nhyprbox: timeout_seconds: A whole number.\n'


def test_a_server_that_is_not_there_is_one_sentence(run):
    done = run("--url", "http://127.0.0.1:9", "--token-file", "/dev/stdin", "status")
    assert done.code == 2  # no token on stdin
    run.shell.saved.unlink()
    (run.shell.home / "token").write_text("abc\n")
    done = run("--url", "http://127.0.0.1:9", "--token-file", str(run.shell.home / "token"), "status")
    assert (done.code, done.err) == (6, "hyprbox: http://127.0.0.1:9 cannot be reached: Connection refused.\n")


def test_a_page_of_something_else_is_no_answer(run):
    def proxy(method: str, path: str) -> None:
        raise Refusal(302, "", "", Location="https://login.example/")

    run.shell.plane.before = proxy
    done = run("status")
    assert done.code == 6 and "login.example" in done.err


def test_a_call_whose_answer_got_lost_is_made_again_only_where_that_is_harmless(run, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    failures = {"left": 2}

    def busy(method: str, path: str) -> None:
        if failures["left"]:
            failures["left"] -= 1
            raise Refusal(503, "unavailable", "Not now.")

    run.shell.plane.before = busy
    assert run("nodes", "show", "web-1").code == 0
    failures["left"] = 0
    assert run("preset", "apply", "motd", "-t", "web-1").code == 0
    keys = [headers["Idempotency-Key"] for method, path, _, headers in run.shell.plane.seen if path == "/api/jobs"]
    assert len(keys) == 1
    failures["left"] = 1
    run.shell.plane.jobs["x"] = job()
    assert run("jobs", "retry", job()["id"]).code == 6  # a second one could be a second job


def test_somebody_who_asks_too_much_waits_as_long_as_the_server_says(run, monkeypatch):
    waited, left = [], [2]
    monkeypatch.setattr("time.sleep", waited.append)

    def hold(method: str, path: str) -> None:
        if left[0]:
            left[0] -= 1
            raise Refusal(429, "rate_limited", "Too many requests.", Retry_After="3")

    run.shell.plane.before = hold
    assert run("nodes", "show", "web-1").code == 0
    assert waited == [3.0, 3.0]
    left[0] = 1
    run.shell.plane.jobs["x"] = job()
    done = run("jobs", "retry", job()["id"])  # a second one could be a second job
    assert (done.code, done.err) == (6, "hyprbox: Too many requests. Try again in 3 s.\n")


def test_every_page_of_a_list_is_read(run):
    run.shell.plane.nodes = {f"n-{i:03}": node(f"n-{i:03}") for i in range(450)}
    done = run("nodes", "list", "--json")
    assert [each["node_id"] for each in done.json] == sorted(run.shell.plane.nodes)
    run.shell.plane.jobs = {str(i): job() for i in range(300)}
    assert len(run("jobs", "list", "--json").json) == 50
    assert len(run("jobs", "list", "--json", "--limit", "210").json) == 210
    assert len(run("jobs", "list", "--json", "--all").json) == 300


def test_a_piped_table_is_plain_and_whole(run):
    name = "a-very-long-name-of-a-server-that-no-narrow-terminal-would-show-whole"[:63]
    run.shell.plane.nodes = {name: node(name, tags=["web", "\x1b]0;title\x07"])}
    out = run("nodes", "list").out.decode()
    header, row = out.splitlines()
    assert header.split() == ["NODE", "STATUS", "CPU", "MEM", "DISK", "SEEN", "GROUP", "TAGS"]
    assert row.startswith(name) and "\x1b" not in out and "\x07" not in out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (7 * 86400 - 2, "7 d"), (86400 * 365 - 1, "1 y"), (86399, "1 d"), (3599.5, "1 h"), (5400, "2 h"), (61, "1 min"),
        (59.2, "59 s"), (0, "0 s"),
    ],
)  # fmt: skip
def test_what_remains_is_rounded(seconds, words):
    assert printing.left(seconds) == words


def test_a_token_is_as_new_as_it_is(run):
    until = (datetime.now(timezone.utc) + timedelta(days=7, seconds=-3)).isoformat()
    row = {
        "id": "1",
        "name": "n",
        "prefix": "p",
        "node_id": "",
        "revoked_at": None,
        "last_used_at": None,
        "created_by": "",
    }
    assert tokens._state({**row, "expires_at": until}) == "valid for 7 d"


def test_an_empty_list_is_an_empty_list(run):
    run.shell.plane.nodes = {}
    assert run("nodes", "list").out == b""
    assert run("nodes", "list", "--json").json == []


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_table_on_a_terminal_never_shortens_what_is_not_flexible(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    columns = [
        printing.Column("ID"), printing.Column("NAME", minor=2), printing.Column("WORDS", flexible="wrap"),
        printing.Column("REST", flexible="cut", minor=1),
    ]  # fmt: skip
    row = ["0123456789abcdef" * 3, "name", "some words that wrap where the room ends", "x" * 300]
    printing._rich_table(columns, [row])
    out = capsys.readouterr().out
    assert row[0] in out
    assert max(map(len, out.splitlines())) <= max(width, len(row[0]) + 16)
    assert ("name" in out) is (width >= 120)


def test_the_fleet_in_json_and_in_words(run):
    done = run("status", "--json").json
    assert done["nodes"] == {"total": 2, "online": 1, "warning": 0, "critical": 0, "offline": 1, "unknown": 0}
    assert [each["node_id"] for each in done["attention"]] == ["db-1"]
    assert "1 online, 1 offline" in run("status").out.decode()


def test_tags_are_added_and_taken_away(run):
    done = run("nodes", "tag", "web-1", "prod", "web", "--remove", "web", "--group", "acme", "--json")
    assert done.json == {"node_id": "web-1", "group": "acme", "tags": ["prod"]}
    assert run("nodes", "tag", "web-1").out == b"prod\n"
    assert len(run.shell.plane.bodies("PATCH", "/api/nodes/web-1")) == 1


def test_values_come_from_a_file_as_they_are_written(run, tmp_path):
    (tmp_path / "vars.yaml").write_text("A: no\nB: 010\nC: |\n  two\n  lines\nD: 12:30\n")
    run("preset", "apply", "motd", "-t", "web-1", "--vars-file", str(tmp_path / "vars.yaml"), "--set", "B=8")
    run("preset", "apply", "motd", "-t", "web-1", "--vars-file", "-", stdin='{"A": true, "B": 7}')
    bodies = [body["variables"] for body in run.shell.plane.bodies("POST", "/api/jobs")]
    assert bodies == [{"A": "no", "B": "8", "C": "two\nlines\n", "D": "12:30"}, {"A": True, "B": 7}]
    for bad in ("- a\n", "{", "a: [", "\x00"):
        assert run("preset", "apply", "motd", "-t", "web-1", "--vars-file", "-", stdin=bad).code == 2


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({}, 0), ({"mode": "check", "exit_code": 1}, 1), ({"status": "FAILED", "reason": "exit", "exit_code": 7}, 7),
        ({"status": "FAILED", "reason": "verify_failed", "exit_code": 3}, 3),
        ({"status": "FAILED", "reason": "signal", "exit_code": None, "signal": 9}, 137),
        ({"status": "FAILED", "reason": "timeout", "exit_code": None, "signal": 15}, 124),
        ({"status": "FAILED", "reason": "expired", "exit_code": None}, 121),
        ({"status": "FAILED", "reason": "secret_unresolved", "exit_code": None}, 121),
        ({"status": "FAILED", "reason": "lost", "exit_code": None, "outcome_unknown": True}, 122),
        ({"status": "FAILED", "reason": "agent_error", "exit_code": None}, 122),
        ({"status": "CANCELLED", "exit_code": None}, 123),
        ({"status": "CANCELLED", "exit_code": None, "outcome_unknown": True}, 122),
    ],
)  # fmt: skip
def test_a_jobs_end_is_an_exit_code(over, code):
    assert exit_code_of(job(**over)) == code
    assert exit_code_of_all([job(**over)]) == code
    assert exit_code_of_all([job(), job(**over)]) == (1 if code else 0)


def test_the_documentation_lists_every_exit_code():
    text = (ROOT / "docs/use/cli.md").read_text().partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    listed = {int(code) for code in re.findall(r"^\| ([0-9]+) \|", text, re.MULTILINE)}
    ours = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert listed == {0, *ours} - {exits.SIGNAL_BASE}
    assert f"| {exits.SIGNAL_BASE} + n |" in text


@pytest.mark.parametrize(
    "url", ["hyprbox.example", "ftp://x", "https://", "https://u:p@x", "https://x?y", "http://x.example", "http://[::"]
)
def test_an_address_that_cannot_be_used_is_refused(url):
    with pytest.raises(UsageTrouble):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["https://hyprbox.example/", "http://localhost:8000", "http://[::1]:1", "https://x.example/hyprbox"]
)
def test_a_good_address_loses_its_last_slash(url):
    assert check_url(url) == url.rstrip("/")


def test_pages_have_addresses(run):
    assert page_of("node", "a/b") == "/nodes/a%2Fb/"
    done = run("open", "job", "42", "--json")
    assert done.json == {"url": run.shell.plane.url + "/jobs/42/"}
    assert run("open").out.decode() == run.shell.plane.url + "/\n"


def test_times_are_ago_or_dates():
    assert Moment().convert("2026-01-31T12:00:00+01:00", None, None) == "2026-01-31T11:00:00Z"
    assert Moment().convert("2h", None, None) < Moment(forward=True).convert("2h", None, None)
    assert Duration().convert("90", None, None) == 90 and Duration().convert("2h", None, None) == 7200


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_a_shell_learns_to_complete(run, shell_name, tmp_path):
    script = run("completion", shell_name).out
    assert b"_HYPRBOX_COMPLETE" in script
    assert run("completion", shell_name, "--json").json == {"shell": shell_name, "script": script.decode()[:-1]}
    if shutil.which(shell_name):
        (tmp_path / "script").write_bytes(script)
        reads = [shell_name, "-n", str(tmp_path / "script")]
        assert subprocess.run(reads, capture_output=True, check=False).returncode == 0


def test_bash_completes_with_it(shell, tmp_path):
    """The script in a real bash, which calls the program as at a press of Tab."""
    program = tmp_path / "bin" / "hyprbox"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m agent.cli "$@"\n')
    program.chmod(0o755)
    story = """
    eval "$(hyprbox completion bash)"
    COMP_WORDS=(hyprbox nodes show w) COMP_CWORD=3
    "$(complete -p hyprbox | sed 's/.*-F \\([^ ]*\\).*/\\1/')" hyprbox w show
    printf '%s\n' "${COMPREPLY[@]}"
    """
    environment = {**shell.environment, "PATH": f"{program.parent}:{shell.environment['PATH']}"}
    done = subprocess.run(["bash", "-c", story], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["web-1"], "")


def complete(words: str, shell) -> list[str]:
    environment = {
        **shell.environment,
        "_HYPRBOX_COMPLETE": "zsh_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-c", "import sys; from agent.cli import main; sys.exit(main())"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()[1::3]


def test_names_are_completed_and_a_second_time_without_the_server(shell):
    assert complete("hyprbox no", shell) == ["nodes"]
    assert complete("hyprbox nodes show w", shell) == ["web-1"]
    calls = len(shell.plane.seen)
    assert complete("hyprbox preset apply motd --target ", shell) == ["local", "web-1", "db-1"]
    assert len(shell.plane.seen) == calls
    assert complete("hyprbox preset show mo", shell) == ["motd"]
    assert complete("hyprbox preset apply motd --tag ", shell) == ["web"]
    assert complete("hyprbox nodes list --group a", shell) == ["acme"]
    shell.saved.unlink()
    assert "system-report" in complete("hyprbox preset show sys", shell)  # nobody is logged in: the built-in ones


def test_what_a_server_says_cannot_command_the_terminal(run):
    def hostile(method: str, path: str) -> None:
        raise Refusal(409, "conflict", "No.\x1b]52;c;Zm9v\x07\nhyprbox: all is well.")

    run.shell.plane.before = hostile
    assert run("nodes", "list").err == "hyprbox: No.?]52;c;Zm9v? hyprbox: all is well.\n"


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("y\n", 0), ("", 130)])
def test_a_person_is_asked_and_a_no_does_nothing(run, monkeypatch, answer, code):
    monkeypatch.setattr("agent.cli.nodes.is_tty", lambda stream: True)
    assert run("nodes", "remove", "web-1", stdin=answer).code == code
    assert len(run.shell.plane.bodies("DELETE", "/api/nodes/web-1")) == (code == 0)


def test_nothing_of_a_damaged_file_becomes_a_trace(run):
    run.shell.saved.write_text("{")
    done = run("status", "--json")
    assert (done.code, done.error["code"]) == (1, "config_unusable")


def test_a_reader_who_has_seen_enough_ends_it_quietly(shell):
    shell.plane.nodes = {f"n-{i}": node(f"n-{i}" + "x" * 40) for i in range(3000)}
    process = shell.start("nodes", "list")
    process.stdout.read(10)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(20) == 141


def test_json_is_what_the_api_says(run):
    assert run("nodes", "show", "web-1", "--json").json == json.loads(json.dumps(run.shell.plane.nodes["web-1"]))
    assert EMAIL not in run("logout").out.decode()
