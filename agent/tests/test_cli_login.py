"""Logins: saved whole and private, refreshed once however many ask, sent to nobody else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
import time

import pytest

from agent.cli import logins
from agent.tests.cli_plane import EMAIL, PASSWORD, Plane, Refusal


def test_a_login_is_saved_for_its_owner_alone(run):
    shutil.rmtree(run.shell.home / "config")
    before = os.umask(0)
    try:
        done = run("login", run.shell.plane.url + "/", "--email", EMAIL, "--json", stdin=PASSWORD + "\n")
    finally:
        os.umask(before)
    assert (done.code, done.json["user"]["email"]) == (0, EMAIL)
    assert stat.S_IMODE(run.shell.saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.shell.saved.parent.stat().st_mode) == 0o700
    assert PASSWORD not in run.shell.saved.read_text()
    assert run("status").code == 0
    assert sorted(os.listdir(run.shell.saved.parent)) == ["lock", "login.json"]


def test_a_wrong_password_changes_nothing(run):
    before = run.shell.saved.read_text()
    done = run("login", run.shell.plane.url, "--email", EMAIL, stdin="wrong\n")
    assert (done.code, done.err) == (3, "hyprbox: The e-mail address or the password is not right.\n")
    assert run.shell.saved.read_text() == before


@pytest.mark.parametrize("code", ["otp_required", "wrong_credentials"])
@pytest.mark.parametrize("more", [[], ["--otp"]])
def test_a_second_factor_is_asked_for_when_it_may_be_needed(run, more, code):
    """A server need not tell a missing code from a wrong password."""
    run.shell.plane.needs_otp = code
    done = run("login", run.shell.plane.url, "--email", EMAIL, *more, stdin=f"{PASSWORD}\n123456\n")
    assert done.code == 0
    sent = run.shell.plane.bodies("POST", "/api/auth/login")
    assert [body.get("otp") for body in sent] == ([None, "123456"] if not more else ["123456"])
    assert run("login", run.shell.plane.url, "--email", EMAIL, stdin=f"{PASSWORD}\n").code == 3


@pytest.mark.parametrize("more", [[], ["--otp"]])
def test_a_wrong_code_is_spoken_of_as_well(run, more):
    run.shell.plane.needs_otp = "wrong_credentials"
    done = run("login", run.shell.plane.url, "--email", EMAIL, *more, stdin=f"{PASSWORD}\n000000\n")
    assert done.code == 3
    said = "hyprbox: The e-mail address, the password or the one-time code is not right. A code works only once.\n"
    assert done.err == said


def test_without_a_login_it_says_what_to_do(run):
    run.shell.saved.unlink()
    done = run("status")
    assert done.code == 3 and "hyprbox login" in done.err


def test_a_token_that_ran_out_is_refreshed_without_a_word(run):
    run.shell.save_login(seconds=-1)
    old = run.shell.tokens()
    assert run("nodes", "show", "web-1").code == 0
    assert run("nodes", "show", "web-1").code == 0
    assert run.shell.plane.refreshes == 1
    assert not set(old) & set(run.shell.tokens())


def test_a_token_that_is_refused_is_refreshed_and_the_call_repeated(run):
    run.shell.plane.access.clear()
    assert run("preset", "apply", "motd", "-t", "web-1").code == 0
    assert (run.shell.plane.refreshes, len(run.shell.plane.bodies("POST", "/api/jobs"))) == (1, 1)


def test_a_login_that_ended_is_one_sentence(run):
    run.shell.plane.access.clear()
    run.shell.plane.family_is_dead = True
    done = run("status")
    assert done.code == 3 and "has ended" in done.err and "hyprbox login" in done.err


def test_many_processes_refresh_once(shell):
    """A refresh token works once: its second use would end the login everywhere."""
    shell.save_login(seconds=-1)
    shell.plane.access.clear()
    processes = [shell.start("nodes", "show", "web-1", "--json") for _ in range(4)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    assert (shell.plane.refreshes, shell.plane.family_is_dead) == (1, False)


def test_ctrl_c_does_not_lose_a_pair_that_is_on_its_way(shell):
    shell.save_login(seconds=-1)
    asked = threading.Event()

    def slow(method: str, path: str) -> None:
        if path == "/api/auth/refresh":
            asked.set()
            time.sleep(0.5)

    shell.plane.before = slow
    process = shell.start("nodes", "list")
    assert asked.wait(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert shell.tokens()[1] == shell.plane.refresh


def test_a_saved_login_is_sent_to_no_other_control_plane(run):
    other = Plane()
    try:
        done = run("--url", other.url, "status")
        assert done.code == 3
        run.shell.more["HYPRBOX_API_URL"] = other.url
        assert run("status").code == 3
        assert other.seen == []
    finally:
        other.stop()


def test_flags_come_before_the_environment_and_that_before_the_saved_login(run):
    other = Plane()
    run.shell.plane.nodes = {}
    run.shell.more.update(HYPRBOX_API_URL=other.url, HYPRBOX_API_TOKEN="from-the-environment")
    other.access = {"from-the-environment", "from-a-file"}
    (run.shell.home / "token").write_text("from-a-file\n")
    try:
        assert len(run("nodes", "list", "--json").json) == 2
        assert other.seen[-1][3]["Authorization"] == "Bearer from-the-environment"
        run("--token-file", str(run.shell.home / "token"), "nodes", "list")
        assert other.seen[-1][3]["Authorization"] == "Bearer from-a-file"
        run.shell.plane.access.add("from-the-environment")
        assert run("nodes", "list", "--json", "--url", run.shell.plane.url).json == []
    finally:
        other.stop()


def test_logging_out_ends_the_login_here_and_there(run):
    [_, refresh] = run.shell.tokens()
    assert run("logout").code == 0
    assert run.shell.plane.bodies("POST", "/api/auth/logout") == [{"refresh": refresh}]
    assert run.shell.tokens() == [] and run("status").code == 3


def test_logging_out_works_without_the_server_and_says_so(run):
    def away(method: str, path: str) -> None:
        raise Refusal(503, "unavailable", "Not now.")

    run.shell.plane.before = away
    done = run("logout")
    assert done.code == 6 and "could not be told" in done.err
    assert run.shell.tokens() == []


def test_one_file_keeps_logins_for_several_control_planes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    one, two = (logins.Login(f"https://{name}.example", EMAIL, "a", "r", 0.0) for name in ("one", "two"))
    logins.save(one)
    logins.save(two)
    assert logins.find() == two and logins.find(one.url) == one
    logins.forget(two.url)
    assert logins.find() == one and logins.find(two.url) is None
    assert "hidden" in repr(one)


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "hyprbox").mkdir()
    target = tmp_path / "elsewhere"
    target.write_text(json.dumps({"current": "", "logins": {}}))
    (tmp_path / "hyprbox" / "login.json").symlink_to(target)
    logins.save(logins.Login("https://one.example", EMAIL, "a", "r", 0.0))
    assert "one.example" not in target.read_text() and not logins.path().is_symlink()
