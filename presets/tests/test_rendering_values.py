"""T-REN-1: whatever a value is, bash gets exactly that, and nothing of it runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presets import rendering
from presets.params import MAX_VALUE_BYTES
from presets.tests import values as driver
from presets.tests.helpers import make_preset, run
from presets.tests.values import PER_SCRIPT, drive, random_value, read_back


def test_ten_thousand_random_values_arrive_byte_for_byte_and_none_of_them_runs(tmp_path: Path) -> None:
    assert drive(tmp_path, 10_000, seed=20240607) == (10_000, [])


def test_many_of_the_random_values_are_commands_that_would_leave_a_trace(tmp_path: Path) -> None:
    chance = random.Random(20240607)
    assert sum("canary" in random_value(chance, tmp_path) for _ in range(10_000)) > 2_000


def test_a_quoting_that_lets_values_out_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "quote", lambda value: '"' + value.replace('"', "'") + '"')
    monkeypatch.setattr(driver, "NASTY", ["a", " "])
    monkeypatch.setattr(driver, "ANY_CHARACTER", ["b"])
    monkeypatch.setattr(driver, "canaries", lambda folder: [f"$(touch {folder}/canary)"])
    driven, violations = drive(tmp_path, 2_000, seed=1)
    assert driven == PER_SCRIPT, "it ends at the first trace"
    assert any("left ['canary']" in sentence for sentence in violations)
    assert any("came back as" in sentence for sentence in violations)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=40))
def test_any_text_survives_rendering_and_bash(tmp_path: Path, values: list[str]) -> None:
    assert read_back(tmp_path, values) == values


PIECES = st.sampled_from(["'", "\\", "\n", "=", "readonly A='", "'\\''", "\n\nhb_apply() {\n", "ğ"]) | st.characters(
    exclude_characters="\0", exclude_categories=["Cs"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), TEXTS, max_size=8), st.booleans())
def test_the_values_of_a_script_are_read_back_from_it(values: dict[str, str], has_secret: bool) -> None:
    variables = [{"name": f"V_{name}", "type": "string"} for name in values]
    secret = [{"name": "SECRET", "type": "secret_ref"}] if has_secret else []
    given_values = {f"V_{name}": value for name, value in values.items()}
    rendered = rendering.render(make_preset(variables=variables + secret), given_values)
    assert rendering.values_in(rendered.script) == rendered.variables == given_values


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("set -euo pipefail", "set -eu"),
        ("readonly A='1'", 'readonly A="1"'),
        ("readonly A='1'", "readonly A='1'; id"),
        ("readonly A='1'", "readonly A='1"),
        ("readonly A='1'\n", "readonly A='1'\nreadonly A='1'\n"),
        ("readonly A='1'\n", "readonly A\n"),
        ("\n\n", "\n"),
    ],
)
def test_a_script_that_nobody_rendered_has_no_values(there: str, instead: str) -> None:
    text = rendering.render(make_preset(variables=[{"name": "A", "type": "string"}]), {"A": "1"}).text
    assert there in text
    with pytest.raises(ValueError):
        rendering.values_in(text.replace(there, instead).encode())


@pytest.mark.parametrize("script", [b"", b"\xff", b"#!/bin/sh\nid\n", b"\n" * 9])
def test_what_is_no_script_of_ours_has_no_values(script: bytes) -> None:
    with pytest.raises(ValueError):
        rendering.values_in(script)


def test_the_longest_value_survives(tmp_path: Path) -> None:
    values = ["'" * MAX_VALUE_BYTES, "ğ" * (MAX_VALUE_BYTES // 2)]
    # Quotes grow fourfold when quoted; both still fit into one script.
    assert read_back(tmp_path, values) == values


def test_two_thousand_int_values_pass_through_arithmetic(tmp_path: Path) -> None:
    chance = random.Random(7)
    numbers = [chance.randint(-(10**17), 10**17) for _ in range(2_000)]
    for start in range(0, len(numbers), PER_SCRIPT):
        batch = numbers[start : start + PER_SCRIPT]
        names = [f"V{number}" for number in range(len(batch))]
        preset = make_preset(
            variables=[{"name": name, "type": "int"} for name in names],
            apply="".join(f"echo $(({name} + 1))\n" for name in names),
        )
        done = run(tmp_path, rendering.render(preset, dict(zip(names, batch, strict=True))).script, "apply")
        assert [int(line) for line in done.stdout.split()] == [number + 1 for number in batch]
