"""Patterns for variable values, matched in time linear in the value.

Python's `re` backtracks: `(a+)+b` against forty letters never ends. A preset's author is trusted, but
an accident must not stop a web process, so patterns are compiled to a finite automaton whose states are
built as they are met, like RE2's. What an automaton cannot do (backreferences, lookaround) is refused.

The language: literals, `.`, escapes (`\\d \\w \\s`, ASCII only, and their negations), classes `[a-z]`,
groups `(...)` and `(?:...)`, `|`, `? * +`, `{m}`, `{m,}`, `{m,n}`. A pattern always covers the whole value; `^` first
and `$` last are allowed and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

MAX_PATTERN_LENGTH = 500
MAX_INPUT_LENGTH = 1024
MAX_REPEAT = 200
MAX_STATES = 2000
MAX_DEPTH = 20

_LAST = 0x10FFFF
_DIGIT = ((48, 57),)
_WORD = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE = ((9, 13), (32, 32))
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}

Ranges = tuple[tuple[int, int], ...]


class PatternError(ValueError):
    """The pattern cannot be used; the text says why and where."""


def _inverse(ranges: Ranges) -> Ranges:
    inverted: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            inverted.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        inverted.append((start, _LAST))
    return tuple(inverted)


_CLASSES: Mapping[str, Ranges] = {
    "d": _DIGIT,
    "w": _WORD,
    "s": _SPACE,
    "D": _inverse(_DIGIT),
    "W": _inverse(_WORD),
    "S": _inverse(_SPACE),
}
_DOT: Ranges = _inverse(((10, 10),))


@dataclass
class _Automaton:
    """States are numbers; state 0 is the start, `accept` the end."""

    steps: list[list[tuple[Ranges, int]]] = field(default_factory=list)
    jumps: list[list[int]] = field(default_factory=list)
    accept: int = 0

    def state(self) -> int:
        if len(self.steps) >= MAX_STATES:
            raise PatternError(f"the pattern needs more than {MAX_STATES} states: use smaller repeat counts")
        self.steps.append([])
        self.jumps.append([])
        return len(self.steps) - 1


# A fragment adds itself to the machine from one state on and answers the state it ends in.
_Fragment = Callable[[_Automaton, int], int]


def _one_of(ranges: Ranges) -> _Fragment:
    def build(machine: _Automaton, start: int) -> int:
        end = machine.state()
        machine.steps[start].append((ranges, end))
        return end

    return build


def _sequence(items: Sequence[_Fragment]) -> _Fragment:
    def build(machine: _Automaton, start: int) -> int:
        for item in items:
            start = item(machine, start)
        return start

    return build


def _choice(branches: Sequence[_Fragment]) -> _Fragment:
    def build(machine: _Automaton, start: int) -> int:
        end = machine.state()
        for branch in branches:
            entry = machine.state()
            machine.jumps[start].append(entry)
            machine.jumps[branch(machine, entry)].append(end)
        return end

    return build


def _repeat(item: _Fragment, low: int, high: int | None) -> _Fragment:
    def build(machine: _Automaton, start: int) -> int:
        for _ in range(low):
            start = item(machine, _entry(machine, start))
        end = machine.state()
        if high is None:
            loop = _entry(machine, start)
            machine.jumps[loop].append(end)
            machine.jumps[item(machine, loop)].append(loop)
            return end
        for _ in range(high - low):
            machine.jumps[start].append(end)
            start = item(machine, _entry(machine, start))
        machine.jumps[start].append(end)
        return end

    return build


def _entry(machine: _Automaton, start: int) -> int:
    """A fresh state per copy: a repeat inside a repeat then runs into MAX_STATES, even when what it repeats is empty."""
    entry = machine.state()
    machine.jumps[start].append(entry)
    return entry


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def fail(self, why: str) -> PatternError:
        return PatternError(f"{why} (at character {self.at + 1})")

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise self.fail("the pattern ends too early")
        self.at += 1
        return char

    def parse(self) -> _Fragment:
        if self.peek() == "^":
            self.at += 1
        node = self.alternatives()
        if self.at < len(self.text):
            raise self.fail("this ) closes nothing")
        return node

    def alternatives(self) -> _Fragment:
        branches = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            branches.append(self.sequence())
        return branches[0] if len(branches) == 1 else _choice(branches)

    def sequence(self) -> _Fragment:
        items: list[_Fragment] = []
        while self.peek() and self.peek() not in "|)":
            if self.peek() == "$" and self.at == len(self.text) - 1:
                self.at += 1
                break
            items.append(self.repeated(self.atom()))
        return _sequence(items)

    def atom(self) -> _Fragment:
        char = self.take()
        if char == "(":
            return self.group()
        if char == "[":
            return _one_of(self.klass())
        if char == ".":
            return _one_of(_DOT)
        if char == "\\":
            return _one_of(self.escape())
        if char in "*+?{":
            raise self.fail(f"{char} repeats nothing")
        if char in "^$":
            raise self.fail(f"{char} is only allowed at the very {'start' if char == '^' else 'end'}; write \\{char}")
        return _one_of(((ord(char), ord(char)),))

    def group(self) -> _Fragment:
        if self.peek() == "?":
            if self.text[self.at : self.at + 2] != "?:":
                raise self.fail("lookaround, flags and named groups are not supported; use (?:...)")
            self.at += 2
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail("groups are nested too deeply")
        node = self.alternatives()
        if self.peek() != ")":
            raise self.fail("a ( is never closed")
        self.at += 1
        self.depth -= 1
        return node

    def escape(self) -> Ranges:
        char = self.take()
        if char in _CLASSES:
            return _CLASSES[char]
        if char in _CONTROLS:
            char = _CONTROLS[char]
        elif char.isdigit():
            raise self.fail("backreferences are not supported")
        elif char.isalnum():
            raise self.fail(f"\\{char} is not supported")
        return ((ord(char), ord(char)),)

    def klass(self) -> Ranges:
        negated = self.peek() == "^"
        if negated:
            self.at += 1
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self.peek() != "]":
            first = False
            low = self.member()
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.member()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] < low[0][0]:
                    raise self.fail("a range in [...] runs backwards or has no single ends")
                low = ((low[0][0], high[0][0]),)
            ranges.extend(low)
        self.at += 1
        return _inverse(tuple(ranges)) if negated else tuple(ranges)

    def member(self) -> Ranges:
        char = self.take()
        if char == "[" and self.peek() in (":", ".", "="):
            raise self.fail("POSIX classes such as [:alpha:] are not supported")
        return self.escape() if char == "\\" else ((ord(char), ord(char)),)

    def repeated(self, item: _Fragment) -> _Fragment:
        bounds = self.bounds()
        if bounds is None:
            return item
        if self.peek() and self.peek() in "*+?{":
            raise self.fail("lazy and possessive repeats are not supported")
        return _repeat(item, bounds[0], bounds[1])

    def bounds(self) -> tuple[int, int | None] | None:
        char = self.peek()
        if char == "{":
            return self.braces()
        simple: Mapping[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if char not in simple:
            return None
        self.at += 1
        return simple[char]

    def braces(self) -> tuple[int, int | None]:
        end = self.text.find("}", self.at)
        low, comma, high = self.text[self.at + 1 : max(end, self.at + 1)].partition(",")
        if end < 0 or not _is_count(low) or (high and not _is_count(high)):
            raise self.fail("{ must be a repeat such as {2}, {2,} or {2,5}; write \\{ for a brace")
        self.at = end + 1
        bottom = int(low)
        top: int | None = (int(high) if high else None) if comma else bottom
        if bottom > MAX_REPEAT or (top is not None and (top > MAX_REPEAT or top < bottom)):
            raise self.fail(f"a repeat count must rise and stay at most {MAX_REPEAT}")
        return bottom, top


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4


class Pattern:
    """A compiled pattern. `matches` looks at the whole value and never backtracks."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN_LENGTH:
            raise PatternError(f"a pattern has at most {MAX_PATTERN_LENGTH} characters")
        self.text = text
        self._machine = _Automaton()
        start = self._machine.state()
        self._machine.accept = _Parser(text).parse()(self._machine, start)
        self._start = self._closure([start])

    def matches(self, value: str) -> bool:
        """True when the whole value fits. Values over MAX_INPUT_LENGTH never do."""
        if len(value) > MAX_INPUT_LENGTH:
            return False
        states = self._start
        seen: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        for char in value:
            key = (states, char)
            if key not in seen:
                seen[key] = self._step(states, ord(char))
            states = seen[key]
            if not states:
                return False
        return self._machine.accept in states

    def _step(self, states: frozenset[int], code: int) -> frozenset[int]:
        steps = self._machine.steps
        reached = [
            target
            for state in states
            for ranges, target in steps[state]
            if any(low <= code <= high for low, high in ranges)
        ]
        return self._closure(reached)

    def _closure(self, states: list[int]) -> frozenset[int]:
        found = set(states)
        todo = list(found)
        while todo:
            for target in self._machine.jumps[todo.pop()]:
                if target not in found:
                    found.add(target)
                    todo.append(target)
        return frozenset(found)
