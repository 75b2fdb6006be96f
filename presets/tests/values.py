"""Random values that try to get out of their quotes, and the proof that bash gets exactly these and runs none of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from presets import rendering
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
    """Commands that leave a file in the folder, should one of them ever run."""
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
    """The values as bash has them, having gone through `render()`. Fails if bash says anything else."""
    names = [f"V{number}" for number in range(len(values))]
    body = "printf '%s\\0' " + " ".join(f'"${name}"' for name in names) + "\n"
    preset = make_preset(variables=strings(len(values)), apply=body)
    done = run(folder, rendering.render(preset, dict(zip(names, values, strict=True))).script, "apply")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split("\0")[:-1]


def drive(folder: Path, count: int, seed: int, *, stopped: Callable[[], bool] = lambda: False) -> tuple[int, list[str]]:
    """`count` random values through `render()` and bash, in a folder of their own: how many, and every violation."""
    chance = random.Random(seed)
    violations: list[str] = []
    driven = 0
    while driven < count and not stopped():
        batch = [random_value(chance, folder) for _ in range(min(PER_SCRIPT, count - driven))]
        came_back = read_back(folder, batch)
        violations += [
            f"{sent!r} came back as {got!r}" for sent, got in zip(batch, came_back, strict=False) if sent != got
        ]
        if len(came_back) != len(batch):
            violations.append(f"{len(batch)} values went in and {len(came_back)} came back")
        driven += len(batch)
        left = sorted(each.name for each in folder.iterdir() if each.name != "script.sh")
        if left:
            violations.append(f"a value ran as a command and left {left[:5]}")
            break
    return driven, violations
