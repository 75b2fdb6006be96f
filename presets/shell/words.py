"""Words: quotes, expansions, arithmetic and here-documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from presets.shell.model import HereDocument, Problem, Scan, Use, Word

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BLANK = " \t"
BREAKS = " \t\n;&|()<>"
MAX_DEPTH = 60


class Scanner:
    """A place in a text, and what was found up to there."""

    def __init__(self, text: str, run: Callable[[Scanner, bool], None]) -> None:
        self.text = text
        self.run = run
        self.at = 0
        self.depth = 0
        self.found = Scan()
        self.waiting: list[HereDocument] = []
        self.mismatched = False
        self.subshells: set[int] = set()

    def problem(self, offset: int, message: str) -> None:
        self.found.problems.append(Problem(offset, message))

    def see(self, length: int = 1) -> str:
        return self.text[self.at : self.at + length]

    # Commands

    def commands(self, *, nested: bool) -> None:
        """Scan commands to the end of the text, or of the substitution that this is inside of."""
        self.depth += 1
        if self.is_shallow():
            self.run(self, nested)
        self.depth -= 1

    def skip_blanks(self) -> None:
        while self.see() and (self.see() in BLANK or self.see(2) == "\\\n"):
            self.at += 2 if self.see() == "\\" else 1

    def skip_comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def newline(self) -> None:
        self.at += 1
        for document in self.waiting:
            self.here_document(document)
        self.waiting = []

    def here_document(self, document: HereDocument) -> None:
        start = self.at
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end
            line = self.text[self.at : end]
            if (line.lstrip("\t") if document.strips_tabs else line) == document.delimiter:
                self.here_body(start, self.at, document.expands)
                self.at = min(end + 1, len(self.text))
                return
            self.at = end + 1
        self.at = len(self.text)
        self.problem(document.offset, f"This here-document never ends: no line is exactly {document.delimiter}.")

    def here_body(self, start: int, end: int, expands: bool) -> None:
        inner = Scanner(self.text[:end], self.run)
        inner.at, inner.found, inner.depth = start, self.found, self.depth
        if not expands:
            inner.mentions(start, end, "literal_heredoc")
            return
        while inner.at < end:
            if inner.see() == "\\":
                inner.at += 2
            elif inner.see() == "$":
                self.found.uses.extend(inner.dollar("heredoc"))
            elif inner.see() == "`":
                self.found.uses.extend(inner.backtick())
            else:
                inner.at += 1

    def mentions(self, start: int, end: int, where: str) -> list[Use]:
        """Where $NAME is written in a text that this scanner does not take apart."""
        uses = [
            Use(match[1], start + match.start(), where)
            for match in re.finditer(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", self.text[start:end])
        ]
        if where == "literal_heredoc":
            self.found.uses.extend(uses)
        return uses

    # Words

    def word(self, where: str = "bare", stop: str = BREAKS) -> Word:
        """One word, up to a blank or an operator. `where` is what an unquoted variable in it is."""
        start = self.at
        uses: list[Use] = []
        literal: list[str] | None = []
        while self.see() and self.see() not in stop:
            piece, more = self.piece(where)
            uses.extend(more)
            literal = _and_then(literal, piece)
            if self.see() == "(" and self.text[self.at - 1] in "?*+@!" and where == "pattern":
                self.balanced(uses, where)
                literal = None
        self.found.uses.extend(uses)
        text = "".join(literal) if literal is not None else None
        return Word(start, self.text[start : self.at], text, tuple(uses))

    def balanced(self, uses: list[Use], where: str) -> None:
        """Parentheses inside a pattern or a regular expression."""
        depth = 0
        while self.see():
            if self.see() in "()":
                depth += 1 if self.see() == "(" else -1
                self.at += 1
                if depth == 0:
                    return
            else:
                uses.extend(self.piece(where)[1])

    def piece(self, where: str) -> tuple[str | None, list[Use]]:
        """One quoted or unquoted stretch: its literal text if it has one, and the variables in it."""
        char = self.see()
        if char == "\\":
            self.at += 2
            escaped = self.text[self.at - 1 : self.at]
            return ("" if escaped == "\n" else escaped), []
        if char == "'":
            return self.single(self.at + 1)
        if char == '"':
            return self.double()
        if char == "`":
            return None, self.backtick()
        if char == "$":
            if self.see(2) == "$'":
                self.dollar_single()
                return None, []
            if self.see(2) == '$"':
                self.at += 1
                return self.double()
            before = self.at
            uses = self.dollar(where)
            return (None if self.at > before + 1 else "$"), uses
        self.at += 1
        return char, []

    def single(self, start: int) -> tuple[str | None, list[Use]]:
        end = self.text.find("'", start)
        if end < 0:
            self.problem(start - 1, "This single quote never closes.")
            end = len(self.text)
        self.at = end + 1
        return self.text[start:end], self.mentions(start, end, "single")

    def dollar_single(self) -> None:
        start = self.at
        self.at += 2
        while self.see() and self.see() != "'":
            self.at += 2 if self.see() == "\\" else 1
        if not self.see():
            self.problem(start, "This $' never closes.")
        self.at += 1

    def double(self) -> tuple[str | None, list[Use]]:
        start = self.at
        self.at += 1
        uses: list[Use] = []
        literal: list[str] | None = []
        while self.see() and self.see() != '"':
            char = self.see()
            before = self.at
            if char == "\\":
                self.at += 2
            elif char == "`":
                uses.extend(self.backtick())
            elif char == "$" and self.see(2) not in ("$'", '$"'):
                uses.extend(self.dollar("quoted"))
            else:
                self.at += 1
            literal = _and_then(literal, char if self.at == before + 1 else None)
        if not self.see():
            self.problem(start, "This double quote never closes.")
        self.at += 1
        return ("".join(literal) if literal is not None else None), uses

    def backtick(self) -> list[Use]:
        start = self.at
        self.at += 1
        while self.see() and self.see() != "`":
            self.at += 2 if self.see() == "\\" else 1
        if not self.see():
            self.problem(start, "This backtick never closes.")
        uses = self.mentions(start, self.at, "backtick")
        self.at += 1
        return uses

    # Expansions

    def dollar(self, where: str) -> list[Use]:
        self.depth += 1
        uses = self.expansion(where) if self.is_shallow() else []
        self.depth -= 1
        return uses

    def is_shallow(self) -> bool:
        if self.depth > MAX_DEPTH and self.see():
            self.problem(self.at, "This is nested too deeply to be checked.")
            self.at = len(self.text)
        return self.depth <= MAX_DEPTH

    def expansion(self, where: str) -> list[Use]:
        start = self.at
        if self.see(3) == "$((":
            self.at += 1
            uses = self.double_parentheses()
            if uses is not None:
                return uses
            self.at = start
        if self.see(2) == "$[":
            self.at += 2
            return self.arithmetic("]", start)
        if self.see(2) == "$(":
            self.at += 2
            self.commands(nested=True)
            return []
        if self.see(2) == "${":
            self.at += 2
            return self.braced(where, start)
        self.at += 1
        match = NAME.match(self.text, self.at)
        if match:
            self.at = match.end()
            return [Use(match[0], start, where)]
        if self.see() and self.see() in "0123456789@*#?$!-":
            self.at += 1
        return []

    def braced(self, where: str, start: int) -> list[Use]:
        """`${...}`: the name, what a subscript or an offset reads again, and what stands in the word after it."""
        indirect = self.see() == "!"
        if self.see() in ("!", "#") and self.see(2)[1:2] not in ("}", ""):
            self.at += 1
        uses: list[Use] = []
        match = NAME.match(self.text, self.at)
        self.at = match.end() if match else self.at + 1
        if match and self.see() == "[":
            self.at += 1
            uses.extend(self.arithmetic("]", start) if self.see(2) not in ("@]", "*]") else [])
            self.at += 2 if self.see(2) in ("@]", "*]") else 0
        operator = self.see(2)
        guarded = operator[:1] in ("-", "=", "+", "?") or operator in (":-", ":=", ":+", ":?")
        if match:
            uses.insert(0, Use(match[0], start, "arithmetic" if indirect else where, guarded))
        if operator[:1] == ":" and not guarded:
            self.at += 1
            return uses + self.arithmetic("}", start)
        inner = where if guarded else "pattern" if operator[:1] in ("#", "%", "/") else where
        return uses + self.until_brace(inner, start)

    def until_brace(self, where: str, start: int) -> list[Use]:
        uses: list[Use] = []
        while self.see() and self.see() != "}":
            # Inside double quotes a single quote is a plain character here.
            if self.see() == "'" and where in ("quoted", "heredoc"):
                self.at += 1
            else:
                uses.extend(self.piece(where)[1])
        if not self.see():
            self.problem(start, "This ${ never closes.")
        self.at += 1
        return uses

    def double_parentheses(self) -> list[Use] | None:
        """`((...))` as arithmetic. None, and nothing scanned, when it is a ( inside a ( instead."""
        start = self.at
        if start in self.subshells:
            return None
        found = self.found
        lists: list[list[Any]] = [found.commands, found.uses, found.assigned, found.problems]
        before = [(each, len(each)) for each in lists]
        self.at += 2
        uses = self.arithmetic("))", start)
        if not self.mismatched:
            return uses
        self.mismatched = False
        self.subshells.add(start)
        self.at = start
        for each, length in before:
            del each[length:]
        return None

    def arithmetic(self, close: str, start: int) -> list[Use]:
        """Up to `close`; a bare name counts, because bash evaluates what its value says."""
        uses: list[Use] = []
        depth = 0
        while self.see():
            if depth == 0 and self.see(len(close)) == close:
                self.at += len(close)
                return uses
            char = self.see()
            match = NAME.match(self.text, self.at)
            if match:
                uses.append(Use(match[0], self.at, "arithmetic"))
                self.at = match.end()
            elif char == "$":
                uses.extend(self.dollar("arithmetic"))
            elif char in "'\"`":
                uses.extend(Use(use.name, use.offset, "arithmetic") for use in self.piece("arithmetic")[1])
            elif char == ")" and depth == 0 and close == "))":
                self.mismatched = True
                return uses
            else:
                depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(char, 0)
                self.at += 1
        self.problem(start, f"This never closes: {close} is missing.")
        return uses


def _and_then(literal: list[str] | None, piece: str | None) -> list[str] | None:
    if literal is None or piece is None:
        return None
    literal.append(piece)
    return literal
