"""`--target=local`: the agent's own runner, without a server."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent import secretrefs
from agent.cli import local
from agent.tests.cli_plane import ROOT
from agent.tests.conftest import living
from presets import catalogue, params


@pytest.fixture
def preset(monkeypatch):
    """Puts a preset of these parts into the catalogue, under the name of a real one."""
    real = catalogue.find("system-report")

    def make(**over: Any) -> Any:
        parts = {name: None for name in ("check", "apply", "verify", "rollback")}
        made = dataclasses.replace(real, variables=(), **{**parts, **over})
        monkeypatch.setattr(catalogue, "find", lambda name: made if name == "system-report" else None)
        return made

    return make


HERE = ("preset", "apply", "system-report", "--target=local")


@pytest.mark.parametrize("flags", [(), ("--allow-background",)])
def test_what_the_script_leaves_running_goes_on_where_it_may(run, preset, flags):
    mark = f"7{os.getpid()}"  # a sleep that only this test starts
    preset(apply=f"setsid sleep {mark} >/dev/null 2>&1 &")
    assert run(*HERE, *flags).code == 0
    left = living(f"sleep\0{mark}")
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(left) == len(flags)


def phases(done: Any) -> list[tuple[str, int | None]]:
    [job] = done.json["jobs"]
    return [(phase["name"], phase["exit_code"]) for phase in job["phases"] if not phase["skipped"]]


@pytest.mark.parametrize(
    ("parts", "code", "ran"),
    [
        ({"check": "exit 0", "apply": "exit 9"}, 0, ["check"]),
        ({"check": "exit 1", "apply": "true", "verify": "true"}, 0, ["check", "apply", "verify"]),
        ({"check": "exit 5", "apply": "true"}, 5, ["check"]),
        ({"apply": "exit 3", "rollback": "echo back"}, 3, ["apply", "rollback"]),
        ({"apply": "true", "verify": "exit 4", "rollback": "exit 8"}, 4, ["apply", "verify", "rollback"]),
        ({"apply": "kill -9 $$"}, 137, ["apply"]),
    ],
)  # fmt: skip
def test_the_phases_are_the_contracts(run, preset, parts, code, ran):
    preset(**parts)
    done = run(*HERE, "--json")
    assert done.code == code
    assert [name for name, _ in phases(done)] == ran
    plain = run(*HERE)
    assert plain.code == code and (code == 0 or plain.err.startswith("hyprbox: local: failed"))


def test_a_dry_run_applies_nothing(run, preset, tmp_path):
    preset(check="exit 1", apply=f"touch {tmp_path}/applied")
    done = run(*HERE, "--check", "--json")
    assert (done.code, done.json["jobs"][0]["changed"]) == (1, True)
    assert not (tmp_path / "applied").exists()
    preset(apply="true")
    assert run(*HERE, "--check").code == 2


def test_the_output_is_byte_for_byte_and_nothing_is_left(run, preset, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    preset(
        apply=r"""for i in $(seq 0 255); do printf "\\x$(printf %x "$i")"; done; head -c 300000 /dev/zero; echo no >&2"""
    )
    done = run(*HERE)
    assert (done.code, done.out, done.err) == (0, bytes(range(256)) + bytes(300000), "no\n")
    assert list(tmp_path.glob("hyprbox-local-*")) == []


def test_the_environment_is_built_from_nothing(run, preset):
    run.shell.more["SECRET_OF_MINE"] = "x"
    preset(apply="env; umask; pwd")
    out = run(*HERE).out.decode()
    assert "SECRET_OF_MINE" not in out and "HYPRBOX_API" not in out
    assert "HOME=/root" in out and out.endswith("0077\n/\n")


def test_secrets_follow_the_agents_rules(run, preset, tmp_path, monkeypatch):
    variable = params.Variable("PASSWORD", "secret_ref", required=True)
    preset(apply='[[ "$PASSWORD" == tops3cret ]] && echo "right: $PASSWORD"')
    made = dataclasses.replace(catalogue.find("system-report"), variables=(variable,))
    monkeypatch.setattr(catalogue, "find", lambda name: made)
    run.shell.more["HYPRBOX_SECRET_DB"] = "tops3cret"
    done = run(*HERE, "--set", "PASSWORD=env:HYPRBOX_SECRET_DB")
    assert done.code == 0 and done.out.startswith(b"right: ") and b"tops3cret" not in done.out
    for pointer in ("env:HYPRBOX_SECRET_NONE", "file:/etc/hyprbox/secrets/none"):
        done = run(*HERE, "--set", f"PASSWORD={pointer}", "--json")
        assert (done.code, done.error["code"]) == (121, "secret_unresolved")
    done = run(*HERE, "--set", "PASSWORD=tops3cret")
    assert done.code == 2 and "tops3cret" not in done.err
    assert Path("/etc/hyprbox/secrets") == secretrefs.SECRETS_DIR


def test_a_bad_variable_is_told_before_anything_runs(run):
    done = run("preset", "apply", "system-report", "--target=local", "--set", "DETAIL=x", "--set", "NOPE=1")
    assert done.code == 2
    assert 'DETAIL cannot be "x"' in done.err and "no variable NOPE" in done.err


def test_it_takes_no_longer_than_allowed(run, preset):
    preset(apply="sleep 60")
    began = time.monotonic()
    done = run(*HERE, "--timeout", "1s")
    assert done.code == 124 and time.monotonic() - began < 15


def test_who_is_not_root_is_told_politely(run, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run("preset", "apply", "swap-file", "--target=local", "--yes")
    assert done.code == 4 and "sudo" in done.err
    local.prepare(catalogue.find("system-report"), {}, mode="apply")  # reads only: anyone may


def test_local_goes_with_no_other_target(run):
    assert run("preset", "apply", "system-report", "-t", "local", "-t", "web-1").code == 2
    assert run.shell.plane.seen == []


def test_no_server_is_asked(run):
    run.shell.saved.unlink()
    assert run("preset", "list", "--local").code == 0
    assert b"hb_apply" in run("preset", "preview", "system-report", "--local").out
    assert "DETAIL" in run("preset", "show", "system-report", "--local", "--source").out.decode()
    assert run.shell.plane.seen == []


def start_with(apply: str, shell: Any) -> subprocess.Popen[bytes]:
    """The program itself, in a process of its own, with a preset that does this."""
    code = f"""
import dataclasses, sys
from presets import catalogue
real = catalogue.find("system-report")
made = dataclasses.replace(real, variables=(), apply={apply!r})
catalogue.find = lambda name: made
from agent.cli import main
sys.exit(main({list(HERE)!r}))
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_ctrl_c_cancels_it_and_ends_what_it_started(shell, tmp_path):
    process = start_with(f"sleep 300 & echo $! > {tmp_path}/pid; echo begun; wait", shell)
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (123, b"hyprbox: local: cancelled.\n")
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1]


def test_it_runs_to_its_end_when_nobody_reads_its_output_any_more(shell, tmp_path):
    steps = f"echo begun; until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo more; sleep 1; touch {tmp_path}/done"
    with start_with(steps, shell) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"begun\n"
        process.stdout.close()
        (tmp_path / "go").touch()
        assert (process.wait(timeout=30), process.stderr.read()) == (141, b"")
    assert (tmp_path / "done").exists()
