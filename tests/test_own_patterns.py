"""Every regular expression of ours, against 50 KiB of what it likes least: 50 ms of CPU each. None comes from anybody else.

They are collected from the source: the literals of `re` calls, patterns of serializers and validators, and all compiled
patterns that modules hold. What to attack a pattern with is read off its own parse tree.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from hyprbox import fragments
from presets import strictyaml
from tests.house import ROOT

PACKAGES = ("accounts", "agent", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens")
LIMIT_SECONDS = 0.05
SMALL, WHOLE = 4 * 1024, 50 * 1024
WORST = 5  # of the small attacks are made with 50 KiB
CALLS = ("compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")
TAKERS = {"RegexField": 0, "RegexValidator": 0, "re_path": 0, "Meta": "pattern"}
# Whose pattern is not written where it is used, and where it comes from instead.
FROM_TABLES = {
    "hyprbox/fragments.py": "the table of topics in the same file",
    "presets/strictyaml.py": "the forms of YAML's own values in the same file",
    "nodes/names.py": "the constant PATTERN in the same file",
}


@dataclass(frozen=True)
class Use:
    where: str
    pattern: re.Pattern[str]
    methods: tuple[str, ...]


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not {"tests", "migrations", "__main__.py"} & set(path.parts):
                yield path


@cache
def texts() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in sources()}


@cache
def tree(where: str) -> ast.Module:
    return ast.parse(texts()[where])


def calls() -> Iterator[tuple[str, ast.Call, str, ast.expr | None]]:
    """(file, the call, what is called, the pattern it is given)."""
    for where, text in texts().items():
        if not any(name in text for name in ("re.", *TAKERS)):
            continue  # parsing is what takes long
        for node in ast.walk(tree(where)):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            is_re = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "re"
            if is_re and name in CALLS:
                yield where, node, name, node.args[0]
            elif name in TAKERS:
                place = TAKERS[name]
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                found = node.args[place] if isinstance(place, int) and node.args else given.get(str(place))
                if found is not None:
                    yield where, node, name, found


def literals() -> Iterator[Use]:
    for where, node, name, given in calls():
        if name != "compile" and isinstance(given, ast.Constant) and isinstance(given.value, str):
            flags = re.DOTALL if "DOTALL" in ast.dump(node) else 0
            yield Use(f"{where}:{node.lineno}", re.compile(given.value, flags), (_method(name),))


def _method(name: str) -> str:
    return name if name in CALLS else "search"


def held() -> Iterator[Use]:
    """The compiled patterns of modules, with the methods by which anybody uses a pattern of that name."""
    used = _methods_by_name()
    seen = set()
    for where in texts():
        module = importlib.import_module(where.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and isinstance(value.pattern, str) and (name, value) not in seen:
                seen.add((name, value))
                yield Use(f"{where} {name}", value, tuple(sorted(used.get(name, {"search", "fullmatch"}))))


def _methods_by_name() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for where in texts():
        for node in ast.walk(tree(where)):
            if isinstance(node, ast.Attribute) and node.attr in CALLS:
                name = getattr(node.value, "attr", getattr(node.value, "id", ""))
                found.setdefault(name, set()).add(node.attr)
    return found


def uses() -> list[Use]:
    resolvers = itertools.chain.from_iterable(strictyaml._Loader.yaml_implicit_resolvers.values())
    topics = [Use("hyprbox/fragments.py", re.compile(pattern), ("fullmatch",)) for pattern, _ in fragments._SOURCES]
    yaml = {Use(f"presets/strictyaml.py {tag}", pattern, ("match",)) for tag, pattern in resolvers}
    return [*literals(), *held(), *topics, *sorted(yaml, key=lambda use: use.where)]


def pieces(parsed: Any) -> Iterator[str]:
    """For each place of a pattern a character that fits there."""
    for op, value in parsed:
        match op:
            case sre.LITERAL:
                yield chr(value)
            case sre.NOT_LITERAL:
                yield "a" if value != ord("a") else "b"
            case sre.ANY:
                yield "a"
            case sre.IN:
                yield from _of_class(value)
            case sre.BRANCH:
                for branch in value[1]:
                    yield from pieces(branch)
            case sre.SUBPATTERN:
                yield from pieces(value[3])
            case sre.MAX_REPEAT | sre.MIN_REPEAT | sre.POSSESSIVE_REPEAT:
                yield from pieces(value[2])
            case sre.ASSERT | sre.ASSERT_NOT:
                yield from pieces(value[1])


_CATEGORIES = {sre.CATEGORY_DIGIT: "7", sre.CATEGORY_SPACE: " ", sre.CATEGORY_WORD: "w", sre.CATEGORY_NOT_SPACE: "w"}


def _of_class(members: Any) -> Iterator[str]:
    if members[0][0] is sre.NEGATE:
        refused = {chr(value) for op, value in members[1:] if op is sre.LITERAL}
        yield from [each for each in "a0 .-" if each not in refused][:2]
        return
    for op, value in members:
        if op is sre.LITERAL:
            yield chr(value)
        elif op is sre.RANGE:
            yield chr(value[0])
        elif op is sre.CATEGORY:
            yield _CATEGORIES.get(value, "w")


def attacks(pattern: re.Pattern[str], size: int) -> Iterator[str]:
    """Long runs of what fits, after what makes the pattern begin and before what makes it fail."""
    whole = list(pieces(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)))
    distinct = list(dict.fromkeys(whole))[:12]
    start = "".join(whole)
    pumps = [*distinct, start, *("".join(pair) for pair in itertools.permutations(distinct[:5], 2))]
    starts = ["", *("".join(whole[:length]) for length in range(1, min(len(whole), 4) + 1))]
    for pump in filter(None, pumps):
        run = pump * (size // len(pump))
        for before in starts:
            yield before + run + "\x00"
    yield start * (size // max(1, len(start)) + 1)


class TooLong(Exception):
    pass


def _give_up(*_: object) -> None:
    raise TooLong


def seconds(use: Use, method: str, text: str) -> float:
    """CPU of this thread, the best of three where the first is too slow: a machine is never quiet."""
    run = getattr(use.pattern, method)
    given = ("x", text) if method in ("sub", "subn") else (text,)
    best = 1e9
    for _ in range(3):
        began = time.thread_time()
        found = run(*given)
        if method == "finditer":
            deque(found, maxlen=0)  # a list of matches would have the time of the garbage collector counted
        best = min(best, time.thread_time() - began)
        if best < LIMIT_SECONDS:
            break
    return best


def slow(use: Use) -> list[str]:
    """The attack under which a use is too slow. All are tried small, where a bad pattern shows early; the worst of them whole."""
    for method in use.methods:
        tried: list[tuple[float, int]] = []
        for at, text in enumerate(attacks(use.pattern, SMALL)):
            if (took := measured(use, method, text)) >= LIMIT_SECONDS / 5:
                return [f"{use.where}: {method} takes {took:.3f} s for {SMALL} characters"]
            tried.append((took, at))
        worst = [at for _, at in sorted(tried, reverse=True)[:WORST]]
        for at, text in enumerate(attacks(use.pattern, WHOLE)):
            if at in worst and (took := measured(use, method, text)) >= LIMIT_SECONDS:
                return [f"{use.where}: {method} takes {took:.3f} s for {text[:24]!r}..."]
    return []


def measured(use: Use, method: str, text: str) -> float:
    signal.setitimer(signal.ITIMER_VIRTUAL, 1)
    try:
        return seconds(use, method, text)
    except TooLong:
        return 1.0
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGVTALRM, _give_up)
    yield
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.slow
def test_none_of_them_can_be_made_slow() -> None:
    found = uses()
    assert len(found) > 70
    assert [line for use in found for line in slow(use)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "method"),
    [(r"(a+)+$", "match"), (r"\{\{(\w+)[^{}\n]*\}\}", "search"), (r"(\d+\.?)*x", "search"), (r" +$", "search")],
)
def test_a_slow_one_is_found(pattern: str, method: str) -> None:
    assert slow(Use("planted", re.compile(pattern), (method,)))


def test_none_comes_from_anybody_else() -> None:
    """A pattern is written where it is used, or made of constants in the files above; and the database matches none."""
    unwritten = {
        where for where, _, _, given in calls() if not isinstance(given, ast.Constant) and not _is_constant_text(given)
    }
    assert unwritten == set(FROM_TABLES)
    for where, text in texts().items():
        assert not re.search(r"__i?regex\b|SIMILAR TO|regexp_|\s!?~\*?\s+%s", text), where


def _is_constant_text(given: ast.expr) -> bool:
    """`names.PATTERN`, or an f-string whose parts are constants by their names."""
    if isinstance(given, ast.Attribute):
        return given.attr.isupper()
    if isinstance(given, ast.JoinedStr):
        return all(
            isinstance(part, ast.Constant) or (isinstance(part, ast.FormattedValue) and _is_name(part.value))
            for part in given.values
        )
    return False


def _is_name(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id.isupper()
