"""What is wrong with a preset's bash, with line and column.

Values are quoted in the preamble, so a script is safe as long as its parts do not make bash read a value a second time:
in arithmetic, in `eval`, unquoted, as a pattern. That, and what makes a part misbehave inside its function, is found
here. Whether the text is bash at all is asked of bash (`shelltools`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from presets import leaks
from presets.documents import Preset
from presets.params import NUMBERS, Variable
from presets.shell import Command, Scan, Use, Word, place, scan

ERROR = "error"
WARNING = "warning"
NOTE = "note"

_PLAIN_CHOICE = re.compile(r"[A-Za-z0-9._:/@%+,-]+")
_NEVER_SPLIT = frozenset({"bool", "hostname", "ip", "cidr", "identifier"}) | NUMBERS
_SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh"})
_READ_AGAIN = frozenset({"eval", "trap", "alias", "let", "source", ".", "coproc"})
_TAKE_NAMES = frozenset({"read", "mapfile", "readarray", "declare", "local", "typeset", "export", "unset", "readonly"})
_PROGRAMS = frozenset({"awk", "gawk", "mawk", "sed", "perl", "python", "python3", "ruby", "jq", "psql", "sqlite3"})
_PROGRAM_OPTIONS = frozenset({"-e", "-c", "--expression", "--command"})
_OPTIONS_WITH_ARGUMENT = frozenset({"-v", "-F", "-f", "--arg", "--argjson", "-d", "-U", "-h", "-p"})
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
_TEMPLATE = re.compile(r"\{\{-?\s*\.?(\w+)(?:[^\w{}\n][^{}\n]*)?\}\}")
_TRACE = re.compile(r"-[a-wyz]*x\w*|xtrace")
_FUNCTION = re.compile(r"hb_(\w+)")

_ALWAYS_SET = """
BASH BASHPID BASH_VERSION BASH_REMATCH BASH_SOURCE BASH_LINENO EPOCHSECONDS EUID FUNCNAME GROUPS HOME HOSTNAME
HYPRBOX_JOB_ID IFS LANG LC_ALL LINENO MAPFILE OLDPWD OPTARG OPTIND OSTYPE PATH PIPESTATUS PPID PWD RANDOM REPLY SECONDS
SHELL SRANDOM TERM UID
"""
_KNOWN = frozenset(_ALWAYS_SET.split())
_WITHOUT: Mapping[str, str] = {
    "check": "There is no check part: it cannot run dry, is not watched for drift, and applies again what is already so.",
    "verify": "There is no verify part: a job succeeds as soon as apply ends with 0, whatever came of it.",
    "rollback": "There is no rollback part: what a failed apply has done by then stays.",
}


@dataclass(frozen=True)
class Finding:
    """One fault. Lines and columns count from 1 inside the part; a fault of the whole preset has part "" and line 0."""

    part: str
    line: int
    column: int
    severity: str
    code: str
    message: str


def lint(preset: Preset) -> tuple[Finding, ...]:
    """Everything that can be found without running a program, in the order of the text."""
    scans = {part: scan(text) for part, text in preset.parts.items()}
    found = [finding for part in scans for finding in _Part(preset, part, scans[part]).findings()]
    found.extend(_unused(preset, scans.values()))
    found.extend(_open_secrets(preset))
    return tuple(sorted(set(found), key=lambda each: (_order(preset, each.part), each.line, each.column, each.code)))


def advice(preset: Preset) -> tuple[Finding, ...]:
    """What the parts that are not there take from a preset. Not every preset can have them all."""
    if _only_reads(preset):
        return ()
    return tuple(
        Finding("", 0, 0, NOTE, f"no-{part}", sentence)
        for part, sentence in _WITHOUT.items()
        if part not in preset.parts
    )


def _only_reads(preset: Preset) -> bool:
    """A safe preset that is nothing but its apply part is a report: it has nothing to check, verify or undo."""
    return preset.risk == "safe" and list(preset.parts) == ["apply"]


def _order(preset: Preset, part: str) -> int:
    return list(preset.parts).index(part) if part else -1


def _unused(preset: Preset, scans: Iterable[Scan]) -> Iterator[Finding]:
    used = {use.name for each in scans for use in each.uses}
    for variable in preset.variables:
        if variable.name not in used:
            yield Finding("", 0, 0, WARNING, "unused", f"{variable.name} is declared and no part uses it.")


def _open_secrets(preset: Preset) -> Iterator[Finding]:
    for variable in preset.variables:
        if leaks.is_named_like_one(variable):
            message = (
                f"{variable.name} sounds like a secret, which would be stored with every job: make it a secret_ref."
            )
            yield Finding("", 0, 0, WARNING, "open-secret", message)


class _Part:
    def __init__(self, preset: Preset, part: str, found: Scan) -> None:
        self.preset = preset
        self.part = part
        self.text = preset.parts[part]
        self.scan = found
        self.variables = {variable.name: variable for variable in preset.variables}
        self.origin = {name: name for name in self.variables}
        self.follow_copies()

    def follow_copies(self) -> None:
        """`copy=$NAME` makes `copy` as dangerous as NAME, and so on along the text."""
        for _ in range(len(self.scan.assigned)):
            before = len(self.origin)
            for assignment in self.scan.assigned:
                source = next((self.origin[use.name] for use in assignment.uses if use.name in self.origin), None)
                if source is not None and self.variables[source].type not in NUMBERS:
                    self.origin.setdefault(assignment.name, source)
            if len(self.origin) == before:
                return

    def findings(self) -> Iterator[Finding]:
        for problem in self.scan.problems:
            yield self.at(problem.offset, ERROR, "structure", problem.message)
        yield from self.templates()
        yield from self.assignments()
        for use in self.scan.uses:
            yield from self.use(use)
        for command in self.scan.commands:
            for rule in _RULES:
                yield from rule(self, command)

    def at(self, offset: int, severity: str, code: str, message: str) -> Finding:
        line, column = place(self.text, offset)
        return Finding(self.part, line, column, severity, code, message)

    def variable(self, use: Use) -> Variable | None:
        source = self.origin.get(use.name)
        return self.variables[source] if source is not None else None

    def shown(self, use: Use) -> str:
        source = self.origin[use.name]
        return source if source == use.name else f"{use.name} (a copy of {source})"

    # One variable at one place

    def use(self, use: Use) -> Iterator[Finding]:
        variable = self.variable(use)
        if variable is None:
            yield from self.undeclared(use)
        elif use.place == "arithmetic" and variable.type not in NUMBERS:
            message = f"Bash evaluates {self.shown(use)} here as arithmetic, and a value can hide a command in it."
            yield self.at(use.offset, ERROR, "arithmetic", f"{message} Only int, port and duration may stand here.")
        elif use.place == "backtick":
            yield self.at(
                use.offset,
                ERROR,
                "backtick",
                f"Quoting means something else in backticks: use $(...) around {use.name}.",
            )
        elif use.place in ("single", "literal_heredoc") and use.name in self.variables:
            where = "single quotes" if use.place == "single" else "a quoted here-document"
            yield self.at(use.offset, WARNING, "not-expanded", f"Bash leaves ${use.name} as it is inside {where}.")
        elif use.place in ("bare", "pattern"):
            yield from self.unquoted(use, variable)

    def unquoted(self, use: Use, variable: Variable) -> Iterator[Finding]:
        does = "splits it and expands * and ?" if use.place == "bare" else "takes it as a pattern"
        if use.name != variable.name and use.place == "bare":
            severity = ERROR
        else:
            severity = WARNING if _is_one_plain_word(variable) else ERROR
        if severity == ERROR or use.place == "bare":
            yield self.at(
                use.offset, severity, "unquoted", f'{self.shown(use)} is unquoted, so bash {does}: write "${use.name}".'
            )

    def undeclared(self, use: Use) -> Iterator[Finding]:
        if use.guarded or use.place in ("single", "literal_heredoc") or not _CONSTANT.fullmatch(use.name):
            return
        if use.name not in _KNOWN and use.name not in self.assigned_names():
            yield self.at(
                use.offset, ERROR, "undeclared", f"{use.name} is not a variable of this preset and is set nowhere."
            )

    def assigned_names(self) -> set[str]:
        """Every name that this part gives a value in any way."""
        names = {assignment.name for assignment in self.scan.assigned}
        for command in self.scan.commands:
            if command.name in _TAKE_NAMES | {"printf", "getopts"}:
                names.update(word.literal for word in command.words[1:] if word.literal)
        return names

    def assignments(self) -> Iterator[Finding]:
        places = [(assignment.name, assignment.offset) for assignment in self.scan.assigned]
        for command in self.scan.commands:
            if command.name in _TAKE_NAMES - {"export", "readonly", "unset"}:
                places.extend((word.literal, word.offset) for word in command.words[1:] if word.literal)
        for name, offset in places:
            if name in self.variables:
                yield self.at(offset, ERROR, "readonly", f"{name} is a variable of the preset and cannot be changed.")

    def templates(self) -> Iterator[Finding]:
        for match in _TEMPLATE.finditer(self.text):
            if match[1].upper() in self.variables:
                name = match[1].upper()
                message = f'There are no {{{{ }}}} templates: values never enter the text. Write "${name}".'
                yield self.at(match.start(), ERROR, "template", message)

    # Rules over one command

    def read_again(self, command: Command) -> Iterator[Finding]:
        """Commands whose arguments bash reads as code."""
        if command.name in _READ_AGAIN:
            for word in command.words[1:]:
                yield from self.refuse(word, "eval", f"{command.name} reads this again as code")

    def inner_shells(self, command: Command) -> Iterator[Finding]:
        """`bash -c "..."`, also behind sudo, timeout, xargs, find -exec; and what ssh and su do with their words."""
        literals = [word.literal for word in command.words]
        for position, literal in enumerate(literals):
            name = (literal or "").rpartition("/")[2]
            if name in _SHELLS or (name in ("su", "runuser", "script", "watch") and position == 0):
                yield from self.dash_c(command.words[position + 1 :], name)
        if command.name == "ssh":
            for word in command.words[2:]:
                yield from self.refuse(
                    word, "eval", "ssh hands this to a shell on the other side, which reads it again"
                )

    def dash_c(self, words: tuple[Word, ...], shell: str) -> Iterator[Finding]:
        for position, word in enumerate(words[:-1]):
            option = word.literal or ""
            if option.startswith("-") and not option.startswith("--") and "c" in option:
                yield from self.refuse(
                    words[position + 1], "eval", f"{shell} -c reads this as code; pass it as an argument"
                )
                return

    def names(self, command: Command) -> Iterator[Finding]:
        """A value used as the name of a variable: a subscript in it is evaluated."""
        words = command.words
        if command.name in _TAKE_NAMES:
            for word in words[1:]:
                yield from self.refuse(word, "name", f"{command.name} takes this as the name of a variable")
        for before, word in _pairs(words):
            if before.literal == "-v" and command.name in ("printf", "test", "["):
                yield from self.refuse(word, "name", f"{command.name} -v takes this as the name of a variable")

    def chosen_commands(self, command: Command) -> Iterator[Finding]:
        if command.words and command.name != "[[":
            yield from self.refuse(command.words[0], "command", "the value chooses which command runs")

    def other_languages(self, command: Command) -> Iterator[Finding]:
        """A value pasted into the text of an awk, sed or SQL program."""
        if command.name.rpartition("/")[2] in _PROGRAMS:
            for word in _program_words(command.words[1:]):
                for finding in self.refuse(word, "code", f"{command.name} reads this as part of its program"):
                    yield Finding(self.part, finding.line, finding.column, WARNING, finding.code, finding.message)

    def tracing(self, command: Command) -> Iterator[Finding]:
        traces = command.name == "set" and any(_TRACE.fullmatch(word.raw) for word in command.words[1:])
        if traces and any(variable.type == "secret_ref" for variable in self.variables.values()):
            yield self.at(command.words[0].offset, ERROR, "trace", "set -x would print the secrets of this preset.")

    def other_parts(self, command: Command) -> Iterator[Finding]:
        match = _FUNCTION.fullmatch(command.name)
        if match and match[1] not in self.preset.parts:
            message = f"This preset has no part {match[1]}, so there is no {match[0]}."
            yield self.at(command.words[0].offset, ERROR, "part", message)

    def refuse(self, word: Word, code: str, why: str) -> Iterator[Finding]:
        for use in word.uses:
            variable = self.variable(use)
            if variable is not None and variable.type not in NUMBERS and use.place != "single":
                yield self.at(use.offset, ERROR, code, f"{self.shown(use)} must not stand here: {why}.")


_RULES: tuple[Callable[[_Part, Command], Iterator[Finding]], ...] = (
    _Part.read_again,
    _Part.inner_shells,
    _Part.names,
    _Part.chosen_commands,
    _Part.other_languages,
    _Part.tracing,
    _Part.other_parts,
)


def _is_one_plain_word(variable: Variable) -> bool:
    """Whether no value of it has blanks or pattern characters, so that being unquoted is only careless."""
    if not variable.required:
        return False
    if variable.type == "enum":
        return all(_PLAIN_CHOICE.fullmatch(choice) for choice in variable.choices)
    return variable.type in _NEVER_SPLIT


def _pairs(words: tuple[Word, ...]) -> list[tuple[Word, Word]]:
    """Each word with the one after it."""
    return [(words[position], words[position + 1]) for position in range(len(words) - 1)]


def _program_words(words: tuple[Word, ...]) -> list[Word]:
    """The arguments that are program text: after -e or -c, else the first that is no option."""
    after = [word for before, word in _pairs(words) if before.literal in _PROGRAM_OPTIONS]
    if after:
        return after
    previous = ""
    for word in words:
        option = word.raw.startswith("-")
        if not option and previous not in _OPTIONS_WITH_ARGUMENT:
            return [word]
        previous = word.literal or ""
    return []
