"""`manage.py preset list|lint|sync`: what it says and how it exits."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from presets import selectors
from presets.tests.test_custom import SECOND, TEXT, UNQUOTED


def run(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    out, err = StringIO(), StringIO()
    try:
        call_command("preset", *arguments, stdout=out, stderr=err)
    except SystemExit as stop:
        return int(str(stop.code)), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def sync(folder: Path, *options: str) -> dict[str, str]:
    _, out, _ = run("sync", str(folder), "--json", *options)
    return {each["preset"]: each["result"] for each in json.loads(out)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "motd.yaml").write_text(TEXT)
    return tmp_path


def test_a_good_file_exits_with_0(folder: Path) -> None:
    code, out, _ = run("lint", str(folder / "motd.yaml"))
    assert (code, out.strip().endswith("motd is fine.")) == (0, True)


def test_a_bad_one_exits_with_1_and_is_placed_in_its_file(folder: Path) -> None:
    (folder / "motd.yaml").write_text(UNQUOTED)
    code, out, _ = run("lint", str(folder))
    assert code == 1
    assert f"{folder / 'motd.yaml'}:15:8: error: apply: TEXT is unquoted" in out


def test_warnings_fail_only_when_strict(folder: Path) -> None:
    (folder / "motd.yaml").write_text(TEXT.replace("\n", "\r\n"))
    assert run("lint", str(folder))[0] == 0
    assert run("lint", "--strict", str(folder))[0] == 1


def test_json_has_every_finding(folder: Path) -> None:
    (folder / "motd.yaml").write_text(UNQUOTED)
    code, out, _ = run("lint", "--json", str(folder))
    (report,) = json.loads(out)
    assert (code, report["preset"]) == (1, "motd")
    assert "unquoted" in [finding["code"] for finding in report["findings"]]


@pytest.mark.parametrize("path", ["nothing.yaml", "empty"])
def test_what_cannot_be_read_exits_with_2(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError) as caught:
        call_command("preset", "lint", str(tmp_path / path))
    assert caught.value.returncode == 2


def test_a_folder_becomes_presets_and_revisions(db: Any, folder: Path) -> None:
    assert sync(folder, "--dry-run") == {"motd": "created"}
    assert sync(folder) == {"motd": "created"}
    assert sync(folder) == {"motd": "unchanged"}
    (folder / "motd.yaml").write_text(SECOND)
    assert sync(folder) == {"motd": "changed"}
    assert selectors.find_entry("motd").number == 2
    (folder / "motd.yaml").rename(folder / "other.yaml")
    (folder / "other.yaml").write_text(TEXT.replace("name: motd", "name: other"))
    assert sync(folder, "--archive") == {"other": "created", "motd": "archived"}
    (folder / "motd.yaml").write_text(TEXT)
    assert sync(folder) == {"other": "unchanged", "motd": "changed"}


def test_a_refused_file_is_named_and_the_others_are_written(db: Any, folder: Path) -> None:
    (folder / "bad.yaml").write_text(UNQUOTED.replace("name: motd", "name: bad"))
    (folder / "mine.yaml").write_text(TEXT.replace("name: motd", "name: swap-file"))
    code, out, err = run("sync", str(folder))
    assert code == 1
    assert "TEXT is unquoted" in err and "“swap-file” comes with HyprBox" in err
    assert "motd: created" in out


def test_the_list_names_all_and_their_origin(db: Any, folder: Path) -> None:
    sync(folder)
    _, out, _ = run("list")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "built in" in rows["system-report"] and "revision 1" in rows["motd"]
    listed = {each["name"]: each for each in json.loads(run("list", "--json")[1])}
    assert (listed["motd"]["builtin"], listed["motd"]["number"]) == (False, 1)
