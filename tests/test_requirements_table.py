"""docs/contribute/requirements.md names only what exists, and every row that it has to."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.house import ROOT

TABLE = ROOT / "docs/contribute/requirements.md"
ROWS = {
    "JOB": [*range(1, 12), 13, 14],
    "AGT": range(1, 14),
    "OUT": range(1, 12),
    "SRV": [*range(1, 10), 11, 12],
    "REN": range(1, 10),
    "TOK": range(1, 8),
    "USR": range(1, 14),
    "AZ": range(1, 9),
    "SEC": range(1, 7),
    "WEB": [*range(1, 6), *range(7, 14)],
    "AUD": range(1, 9),
    "SIG": [*range(1, 9), 10],
}
EXPECTED = [f"R-{kind}-{number}" for kind, numbers in ROWS.items() for number in numbers]


def rows(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """By row: the files in which it is kept, and its tests as `file::function`."""
    found = {}
    for name, where, tests in re.findall(r"^\| (R-\w+-\d+) \|[^|]+\|([^|]+)\|([^|]+)\|$", text, re.MULTILINE):
        assert name not in found, f"{name} stands there twice"
        found[name] = (re.findall(r"`([^`]+)`", where), re.findall(r"`([^`]+)`", tests))
    return found


@cache
def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def exists(test: str) -> bool:
    path, _, name = test.partition("::")
    return (ROOT / path).is_file() and name.startswith("test_") and name in functions(ROOT / path)


FOUND = rows(TABLE.read_text())


def test_no_row_is_left_out() -> None:
    assert list(FOUND) == EXPECTED


@pytest.mark.parametrize("row", EXPECTED)
def test_what_a_row_names_exists(row: str) -> None:
    where, tests = FOUND[row]
    assert where and tests
    assert [path for path in where if not (ROOT / path).is_file()] == []
    assert [test for test in tests if not exists(test)] == []


def test_what_the_kinds_of_tests_name_exists() -> None:
    kinds = re.findall(r"^\| T-[^|]+\|[^|]+\|([^|]+)\|$", TABLE.read_text(), re.MULTILINE)
    assert len(kinds) > 20
    assert [path for named in kinds for path in re.findall(r"`([^`]+)`", named) if not (ROOT / path).is_file()] == []


def test_a_test_that_is_gone_would_be_noticed() -> None:
    assert exists("tests/test_requirements_table.py::test_no_row_is_left_out")
    assert not exists("tests/test_requirements_table.py::test_that_is_gone")
    assert not exists("tests/test_that_is_gone.py::test_no_row_is_left_out")
    assert not exists("tests/test_requirements_table.py::functions")
