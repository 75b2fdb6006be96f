"""What a scan finds: commands, words and the places of variables."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Use:
    """A variable at a place.

    place: bare, quoted, heredoc, arithmetic, pattern, backtick; or single and literal_heredoc, where bash
    does not expand it; or safe, where an unquoted value is neither split nor read again. `guarded`: `${NAME:-...}` and the like.
    """

    name: str
    offset: int
    place: str
    guarded: bool = False


@dataclass(frozen=True)
class Word:
    offset: int
    raw: str
    literal: str | None
    """What bash makes of it, when that is known without running anything."""
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Command:
    """A simple command, its assignments apart, or a `[[ ]]` test (whose first word is `[[`)."""

    words: tuple[Word, ...]

    @property
    def name(self) -> str:
        return (self.words[0].literal or "") if self.words else ""


@dataclass(frozen=True)
class Problem:
    offset: int
    message: str


@dataclass(frozen=True)
class Assignment:
    """A name that gets a value, and the variables which that value is made of."""

    name: str
    offset: int
    uses: tuple[Use, ...] = ()


@dataclass
class Scan:
    commands: list[Command] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    assigned: list[Assignment] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class HereDocument:
    offset: int
    delimiter: str
    expands: bool
    strips_tabs: bool


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
