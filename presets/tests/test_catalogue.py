"""Every built-in preset: well-formed, quoted, honest about itself; and the report, run for real."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from presets import catalogue, documents, lint, rendering, shelltools
from presets.documents import PresetError
from presets.tests.helpers import run

FIRST_SIX = {"system-report", "system-update", "time-sync", "swap-file", "journald-limit", "nginx-static-site"}
EVERY = [pytest.param(preset, id=name) for name, preset in catalogue.builtin().items()]
ONLY_READS = {"system-report"}
NO_ROLLBACK = {
    "system-report": "it changes nothing",
    "system-update": "packages are not downgraded",
    "disk-cleanup": "what is deleted does not come back",
}
UNTRIED: dict[str, str] = {}
"""Presets that no test beside this one runs, with the reason."""
NEWER_ONLY = {
    "caddy-reverse-proxy": "Debian 11 and Ubuntu 22.04 have no package of Caddy",
}
SAMPLES: dict[str, str] = {
    "ADDRESS": "10.8.0.7",
    "ACCOUNT": "ada",
    "PASSWORD": "env:HYPRBOX_SECRET_SAMPLE",
    "PEER_NETWORKS": "10.8.0.0/24",
    "PEER_PUBLIC_KEY": "A" * 43 + "=",
    "PUBLIC_KEY": "ssh-ed25519 AAAA ada@laptop",
    "REPOSITORY": "/mnt/backup",
}
"""Values for required variables that have no default and are not host names."""


def calls_that_run() -> Iterator[str]:
    """The name of every preset that a test beside this one runs, as it stands in the call."""
    for file in Path(__file__).parent.glob("test_catalogue*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if name in ("play", "life"):
                    yield from (word.value for word in node.args if isinstance(word, ast.Constant))


def test_every_preset_is_run_for_real_or_there_is_a_reason() -> None:
    tried = {*calls_that_run(), "system-report"} & set(catalogue.builtin())
    assert tried | set(UNTRIED) == set(catalogue.builtin()), "a preset has neither a test that runs it nor a reason"
    assert not tried & set(UNTRIED), "a reason is out of date"


@pytest.mark.parametrize("preset", EVERY)
def test_it_says_where_it_was_tested_and_where_it_should_work(preset: documents.Preset) -> None:
    assert preset.tested == ("debian-12",), "rooms, and the machines that run these tests, are Debian 12"
    debian = [system for system in preset.systems if system.startswith("debian")]
    ubuntu = [system for system in preset.systems if system.startswith("ubuntu")]
    if preset.name in NEWER_ONLY:
        assert preset.systems == ("debian-12", "debian-13", "ubuntu-24.04", "ubuntu-26.04")
    elif preset.systems:
        assert debian == ["debian-11", "debian-12", "debian-13"]
        assert ubuntu == ["ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04"]


def test_the_first_six_are_there() -> None:
    assert set(catalogue.builtin()) >= FIRST_SIX
    assert catalogue.find("nothing") is None


@pytest.mark.parametrize("preset", EVERY)
def test_its_parts_are_sound_bash_without_any_finding(preset: documents.Preset) -> None:
    assert lint.lint(preset) == ()
    assert shelltools.bash_syntax(preset) == ()


@pytest.mark.parametrize("preset", EVERY)
def test_shellcheck_has_nothing_to_say(preset: documents.Preset) -> None:
    try:
        assert shelltools.shellcheck(preset) == ()
    except shelltools.ToolMissing:
        pytest.skip("ShellCheck is not installed")


@pytest.mark.parametrize("preset", EVERY)
def test_it_has_check_verify_and_rollback_or_a_reason(preset: documents.Preset) -> None:
    assert preset.warnings == ()
    if preset.name not in ONLY_READS:
        assert preset.check
        assert preset.verify
    assert (preset.rollback is None) == (preset.name in NO_ROLLBACK)


@pytest.mark.parametrize("preset", EVERY)
def test_its_variables_help_and_its_defaults_render(preset: documents.Preset) -> None:
    assert all(variable.help for variable in preset.variables)
    missing = {
        variable.name: SAMPLES.get(variable.name, "web-1.example.org")
        for variable in preset.variables
        if variable.required and variable.default is None
    }
    rendered = rendering.render(preset, missing)
    assert rendered.parts == tuple(preset.parts)
    assert rendered.warnings == ()
    assert documents.parse(documents.to_document(preset)) == preset


@pytest.mark.parametrize("preset", EVERY)
def test_its_parts_set_a_umask_before_they_write_for_others(preset: documents.Preset) -> None:
    """The agent runs scripts with umask 077: packages and web roots made under it would be unreadable."""
    for part, text in preset.parts.items():
        if "apt-get -y" in text:
            assert "umask 022" in text, part


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: broken\n")
    with pytest.raises(PresetError) as caught:
        catalogue._read(tmp_path / "broken.yaml")
    assert "broken.yaml title" in caught.value.fields


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    original = catalogue.FOLDER / "system-report.yaml"
    (tmp_path / "other.yaml").write_bytes(original.read_bytes())
    with pytest.raises(PresetError) as caught:
        catalogue._read(tmp_path / "other.yaml")
    assert "system-report" in caught.value.fields["other.yaml"][0]


@pytest.mark.slow
@pytest.mark.parametrize("detail", ["brief", "full"])
def test_the_report_runs_here_and_says_what_it_sees(tmp_path: Path, detail: str) -> None:
    preset = catalogue.builtin()["system-report"]
    done = run(tmp_path, rendering.render(preset, {"DETAIL": detail}).script, "apply")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    for title in (
        "System",
        "Processor and memory",
        "Disks, space used",
        "Services",
        "Listening ports",
        "Logged in",
        "Updates",
    ):
        assert f"== {title} ==" in text
    assert ("== Addresses ==" in text or "== Block devices ==" in text) == (detail == "full")
    assert text.endswith("Nothing was changed.\n")


def test_the_report_leaves_out_what_was_not_asked_for(tmp_path: Path) -> None:
    preset = catalogue.builtin()["system-report"]
    done = run(tmp_path, rendering.render(preset, {"SHOW_NETWORK": False, "SHOW_UPDATES": False}).script, "apply")
    assert b"Listening ports" not in done.stdout
    assert b"Updates" not in done.stdout


def test_the_report_survives_a_server_with_hardly_any_tools(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("uname", "date", "cut", "awk", "sed", "df", "timeout", "sort", "wc"):
        target = next(Path(folder, name) for folder in ("/usr/bin", "/bin") if Path(folder, name).exists())
        (tools / name).symlink_to(target)
    preset = catalogue.builtin()["system-report"]
    done = run(tmp_path, rendering.render(preset, {"DETAIL": "full"}).script, "apply", env={"PATH": str(tools)})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"Nothing was changed.\n")
