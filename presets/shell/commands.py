"""Commands: blocks, redirections, assignments, `case` and `[[ ]]`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from presets.shell.model import Assignment, Command, HereDocument, Scan, Use, Word
from presets.shell.words import BREAKS, Scanner

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^\]]*\])?\+?=")
_EMPTY = re.compile(r"\(\s*\)")
_OPENS: Mapping[str, str] = {"{": "}", "if": "fi", "do": "done", "case": "esac"}
_CLOSES: Mapping[str, str] = {"}": "{", "fi": "if", "done": "do", "esac": "case"}
_GO_ON = frozenset({"then", "else", "elif", "while", "until", "!", "time", "coproc"})
_ARITHMETIC_TESTS = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge"})
_PATTERN_TESTS = frozenset({"=", "==", "!=", "=~"})


def scan(text: str) -> Scan:
    """Scan a whole text. What never closes, or closes what was not opened, is in `problems`."""
    scanner = Scanner(text, _run)
    scanner.commands(nested=False)
    return scanner.found


def _run(scanner: Scanner, nested: bool) -> None:
    _Commands(scanner, nested).run()


class _Commands:
    """One run over a list of commands: the blocks that are open and the words of the command at hand."""

    def __init__(self, scanner: Scanner, nested: bool) -> None:
        self.scanner = scanner
        self.nested = nested
        self.blocks: list[tuple[str, int]] = []
        self.words: list[Word] = []
        self.patterns_next = False
        self.start = scanner.at

    def run(self) -> None:
        s = self.scanner
        while True:
            s.skip_blanks()
            char = s.see()
            if not char:
                break
            if self.patterns_next and char not in "\n#":
                self.case_patterns()
            elif char == "\n":
                self.end_command()
                s.newline()
            elif char == "#":
                s.skip_comment()
            elif char in "<>" or self.is_numbered_redirect():
                self.redirect()
            elif char in ";&|":
                self.separator()
            elif char == "(":
                self.open_parenthesis()
            elif char == ")":
                if self.close_parenthesis():
                    return
            else:
                self.next_word()
        self.end_command()
        self.finish()

    def finish(self) -> None:
        for name, offset in self.blocks:
            self.scanner.problem(offset, f"This {name} never closes.")
        if self.nested:
            self.scanner.problem(self.start - 2, "This $( never closes.")

    def end_command(self) -> None:
        if self.words:
            self.scanner.found.commands.append(Command(tuple(self.words)))
        self.words = []

    def separator(self) -> None:
        s = self.scanner
        self.end_command()
        in_case = bool(self.blocks) and self.blocks[-1][0] == "case"
        if in_case and s.see(2) in (";;", ";&"):
            s.at += 3 if s.see(3) == ";;&" else 2
            self.patterns_next = True
            return
        if s.see(3) == "&>>" or s.see(2) == "&>":
            self.redirect()
            return
        s.at += 1

    def open_parenthesis(self) -> None:
        s = self.scanner
        if s.see(2) == "((" and not self.words:
            uses = s.double_parentheses()
            if uses is not None:
                s.found.uses.extend(uses)
                return
        if len(self.words) == 1 and _EMPTY.match(s.text, s.at):
            s.at = s.text.index(")", s.at) + 1
            self.words = []
            return
        self.end_command()
        self.blocks.append(("(", s.at))
        s.at += 1

    def close_parenthesis(self) -> bool:
        """True when this ends the substitution that we are in."""
        s = self.scanner
        self.end_command()
        s.at += 1
        if self.blocks and self.blocks[-1][0] == "(":
            self.blocks.pop()
        elif self.nested and not self.blocks:
            return True
        else:
            s.problem(s.at - 1, "This ) closes nothing.")
        return False

    def is_numbered_redirect(self) -> bool:
        return (
            re.match(r"(\d+|\{[A-Za-z_]\w*\})[<>]", self.scanner.text[self.scanner.at : self.scanner.at + 40])
            is not None
        )

    def redirect(self) -> None:
        s = self.scanner
        match = re.match(r"(?:\d+|\{\w+\})?(<<<|<<-?|&>>|&>|>>|>\||>&|<&|<>|[<>])", s.text[s.at : s.at + 44])
        if match is None:
            s.at += 1
            return
        start, operator = s.at, match[1]
        s.at += match.end()
        if operator in ("<", ">") and s.see() == "(":
            s.at += 1
            s.commands(nested=True)
            return
        s.skip_blanks()
        if operator in ("<<", "<<-"):
            self.here_delimiter(start, operator)
        elif s.see() in "<>" and s.see(2)[1:2] == "(":
            s.at += 2
            s.commands(nested=True)
        else:
            s.word("safe" if operator == "<<<" else "bare")

    def here_delimiter(self, start: int, operator: str) -> None:
        s = self.scanner
        begin = s.at
        probe = Scanner(s.text, _run)
        probe.at = begin
        raw = probe.word()
        s.at = probe.at
        expands = not any(char in raw.raw for char in "'\"\\")
        s.waiting.append(HereDocument(start, raw.literal or raw.raw, expands, operator == "<<-"))

    def next_word(self) -> None:
        s = self.scanner
        if self.words:
            declares = self.words[0].literal in ("local", "declare", "typeset", "readonly", "export")
            if not (declares and self.assignment()):
                self.words.append(s.word())
            return
        if self.assignment():
            return
        if s.see(2) == "[[" and s.text[s.at + 2 : s.at + 3] in " \t\n":
            self.test()
            return
        word = s.word()
        if not self.keyword(word):
            self.words.append(word)

    def assignment(self) -> bool:
        s = self.scanner
        match = _ASSIGNMENT.match(s.text, s.at)
        if not match:
            return False
        start, s.at = s.at, match.end()
        if match[2]:
            end, s.at = s.at, start + len(match[1]) + 1
            s.found.uses.extend(s.arithmetic("]", start))
            s.at = end
        if s.see() == "(":
            s.at += 1
            uses = self.array()
        else:
            uses = s.word("safe").uses
        s.found.assigned.append(Assignment(match[1], start, uses))
        return True

    def array(self) -> tuple[Use, ...]:
        s = self.scanner
        start = s.at - 1
        uses: list[Use] = []
        while s.see() and s.see() != ")":
            if s.see() in " \t\n":
                s.at += 1
            elif s.see() == "#":
                s.skip_comment()
            elif s.see() in BREAKS:
                s.at += 1
            else:
                uses.extend(s.word().uses)
        if not s.see():
            s.problem(start, "This ( never closes.")
        s.at += 1
        return tuple(uses)

    def keyword(self, word: Word) -> bool:
        s = self.scanner
        raw = word.raw
        if raw in _GO_ON:
            return True
        if raw == "case":
            self.blocks.append(("case", word.offset))
            s.skip_blanks()
            s.word("safe")
            self.skip_in()
            return True
        if raw in ("for", "select"):
            self.loop_head()
            return True
        if raw == "function":
            s.skip_blanks()
            s.word()
            s.skip_blanks()
            s.at += 2 if s.see(2) == "()" else 0
            return True
        if raw in _OPENS:
            self.blocks.append((raw, word.offset))
            return True
        return self.close(word) if raw in _CLOSES else False

    def close(self, word: Word) -> bool:
        opener = _CLOSES[word.raw]
        if self.blocks and self.blocks[-1][0] == opener:
            self.blocks.pop()
        elif word.raw == "}" and not self.blocks and not self.nested:
            self.scanner.problem(word.offset, "This } would close the function around the part.")
        else:
            self.scanner.problem(word.offset, f"This {word.raw} closes nothing.")
        return True

    def skip_in(self) -> None:
        s = self.scanner
        while s.see() and (s.see() in " \t\n" or s.see() == "#"):
            if s.see() == "#":
                s.skip_comment()
            else:
                s.at += 1
        if s.see(2) == "in":
            s.at += 2
        self.patterns_next = True

    def loop_head(self) -> None:
        s = self.scanner
        s.skip_blanks()
        if s.see(2) == "((":
            s.found.uses.extend(s.double_parentheses() or [])
            return
        word = s.word()
        uses: list[Use] = []
        s.skip_blanks()
        while s.see() and s.see() not in ";\n&|" and not re.match(r"do\s", s.see(3)):
            uses.extend(s.word().uses)
            stuck = s.at
            s.skip_blanks()
            if s.at == stuck and s.see() and s.see() in "()<>":
                s.at += 1
        s.found.assigned.append(Assignment(word.raw, word.offset, tuple(uses)))

    def case_patterns(self) -> None:
        s = self.scanner
        if re.match(r"esac(?=[\s;&|()<>]|$)", s.text[s.at : s.at + 5]):
            self.patterns_next = False
            self.close(s.word())
            return
        if s.see() == "(":
            s.at += 1
        while s.see() and s.see() != ")":
            before = s.at
            if s.see() in " \t\n|":
                s.at += 1
            else:
                s.word("pattern")
                s.at += s.at == before
        s.at += 1
        self.patterns_next = False

    def test(self) -> None:
        """`[[ ... ]]`: which operands bash takes as text, as pattern and as arithmetic."""
        s = self.scanner
        start = s.at
        words = [Word(start, "[[", "[[", ())]
        s.at += 2
        while s.see():
            if s.see() in " \t\n" or s.see(2) == "\\\n":
                s.at += 2 if s.see() == "\\" else 1
            elif s.see(2) == "]]":
                s.at += 2
                break
            elif s.see() in "()<>&|;":
                words.append(Word(s.at, s.see(), s.see(), ()))
                s.at += 1
            else:
                words.append(self.operand(words[-1].raw))
        else:
            s.problem(start, "This [[ never closes.")
        s.found.commands.append(Command(tuple(words)))
        s.found.uses.extend(_arithmetic_operands(words))

    def operand(self, before: str) -> Word:
        s = self.scanner
        if before == "=~":
            return self.regex()
        return s.word(
            "pattern" if before in _PATTERN_TESTS else "safe", " \t\n;&|<>)" + ("" if before in _PATTERN_TESTS else "(")
        )

    def regex(self) -> Word:
        s = self.scanner
        start = s.at
        uses: list[Use] = []
        while s.see() and s.see() not in " \t\n":
            if s.see() == "(":
                s.balanced(uses, "pattern")
            else:
                uses.extend(s.piece("pattern")[1])
        s.found.uses.extend(uses)
        return Word(start, s.text[start : s.at], None, tuple(uses))


def _arithmetic_operands(words: list[Word]) -> list[Use]:
    """`[[ a -eq b ]]` evaluates both sides, quoted or not, and `-v` evaluates a subscript."""
    found: list[Use] = []
    for position, word in enumerate(words):
        if word.raw in _ARITHMETIC_TESTS:
            neighbours = words[max(position - 1, 0) : position] + words[position + 1 : position + 2]
        elif word.raw in ("-v", "-R"):
            neighbours = words[position + 1 : position + 2]
        else:
            continue
        found.extend(Use(use.name, use.offset, "arithmetic") for other in neighbours for use in other.uses)
    return found
