"""T-REN-1: whatever a value is, bash gets exactly that, and nothing of it runs."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presets import rendering
from presets.params import MAX_VALUE_BYTES
from presets.tests.helpers import make_preset, run

PER_SCRIPT = 250
ANY_CHARACTER = [chr(code) for code in (*range(1, 0xD800), *range(0xE000, 0x11000))]
NASTY = [
    "'", '"', "`", "$", "\\", "!", "\n", "\r", "\t", "-", "--", ";", "&", "|", "<", ">", "(", ")", "{", "}", "[", "]",
    "*", "?", "~", "#", "=", "%", " ", "  ", "\x01", "\x7f", "\x1b[31m", "\u202e", "ğ", "é", "日本", "🙂", "\ufeff",
    "'\\''", "$'", '$"', "''", "\\\n", "EOF\n", "\nEOF\n", "${x}", "$(id)", "{{x}}", "a[$(id)]", "\n}\n", "'; id; '",
    "readonly", "#!/bin/sh", "\u2028", "\x85", "!!", "^a^b", "a", "B", "0", "7",
]  # fmt: skip


def canaries(folder: Path) -> list[str]:
    touch = f"touch {folder}/canary-$RANDOM"
    return [
        f"$({touch})",
        f"`{touch}`",
        f"'; {touch}; '",
        f'"; {touch}; "',
        f"\n{touch}\n",
        f"a[$({touch})]",
        f"| {touch}",
    ]


def random_value(chance: random.Random, folder: Path) -> str:
    pieces = [chance.choice(NASTY) for _ in range(chance.randint(0, 12))]
    if chance.random() < 0.3:
        pieces.insert(chance.randint(0, len(pieces)), chance.choice(canaries(folder)))
    if chance.random() < 0.2:
        pieces.extend(chance.choices(ANY_CHARACTER, k=3))
    return "".join(pieces)


def strings(count: int) -> list[dict[str, object]]:
    return [{"name": f"V{number}", "type": "string"} for number in range(count)]


def read_back(folder: Path, values: list[str]) -> list[str]:
    names = [f"V{number}" for number in range(len(values))]
    body = "printf '%s\\0' " + " ".join(f'"${name}"' for name in names) + "\n"
    preset = make_preset(variables=strings(len(values)), apply=body)
    done = run(folder, rendering.render(preset, dict(zip(names, values, strict=True))).script, "apply")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split("\0")[:-1]


def test_ten_thousand_random_values_arrive_byte_for_byte_and_none_of_them_runs(tmp_path: Path) -> None:
    chance = random.Random(20240607)
    values = [random_value(chance, tmp_path) for _ in range(10_000)]
    assert sum("canary" in value for value in values) > 2_000

    for start in range(0, len(values), PER_SCRIPT):
        batch = values[start : start + PER_SCRIPT]
        assert read_back(tmp_path, batch) == batch

    assert list(tmp_path.glob("canary*")) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=40))
def test_any_text_survives_rendering_and_bash(tmp_path: Path, values: list[str]) -> None:
    assert read_back(tmp_path, values) == values


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
