"""Declared variables: reading one entry of a preset's `variables`, and writing it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from presets import params
from presets.params import Variable
from presets.patterns import PatternError

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_TYPE_KEYS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"pattern", "max_length"}),
    "int": frozenset({"min", "max"}),
    "port": frozenset({"min", "max"}),
    "duration": frozenset({"min", "max"}),
    "enum": frozenset({"choices"}),
    "hostname": frozenset({"pattern", "max_length"}),
    "path": frozenset({"pattern", "max_length"}),
    "identifier": frozenset({"pattern", "max_length"}),
    "url": frozenset({"pattern", "max_length"}),
}
_KEYS = frozenset({"name", "type", "required", "default", "help", "no_leading_dash"})

# A script that overwrites one of these breaks bash, the script's own tools, or what the agent set up for it.
_RESERVED_TEXT = """
CDPATH COLUMNS COPROC DIRSTACK EMACS ENV EPOCHREALTIME EPOCHSECONDS EUID EXECIGNORE FCEDIT FIGNORE FUNCNAME
FUNCNEST GLOBIGNORE GROUPS HISTCMD HISTCONTROL HISTFILE HISTIGNORE HISTSIZE HOME HOSTFILE HOSTNAME HOSTTYPE
IFS IGNOREEOF INPUTRC INSIDE_EMACS LANG LANGUAGE LINENO LINES LOGNAME MACHTYPE MAIL MAILCHECK MAILPATH MAPFILE
OLDPWD OPTARG OPTERR OPTIND OSTYPE PATH PIPESTATUS POSIXLY_CORRECT PPID PROMPT_COMMAND PROMPT_DIRTRIM PS0 PS1
PS2 PS3 PS4 PWD RANDOM REPLY SECONDS SHELL SHELLOPTS SHLVL SRANDOM TERM TIMEFORMAT TMOUT TMPDIR TZ UID USER
"""
_RESERVED_NAMES = frozenset(_RESERVED_TEXT.split())
_RESERVED_STARTS = ("BASH", "COMP_", "DYLD_", "HB_", "HYPRBOX_", "LC_", "LD_", "PERL", "PYTHON", "READLINE_")


Complain = Callable[[str, str], None]
"""Takes a key path and a sentence; called once for every fault."""


def wrong(value: object) -> str:
    """How a complaint about something that has to be there begins."""
    return "This is required" if value is None else "This does not fit"


def read_variable(entry: object, path: str, complain: Complain) -> Variable | None:
    """One entry, checked; None or a half-read variable when something was complained about."""
    if not isinstance(entry, dict):
        complain(path, "A variable is a mapping with at least a name and a type.")
        return None
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in params.TYPES:
        complain(f"{path}.type", f"{wrong(kind)}: one of {', '.join(params.TYPES)}.")
        return None
    return _Entry(entry, kind, path, complain).variable()


def refuse_unknown(mapping: Mapping[object, object], keys: frozenset[str], prefix: str, complain: Complain) -> None:
    for key in mapping:
        if key not in keys:
            shown = "".join(char if char.isprintable() else "?" for char in str(key)[:60])
            complain(f"{prefix}{shown}", f"Unknown key. Known are: {', '.join(sorted(keys))}.")


def refuse_broken_text(text: str, path: str, complain: Complain) -> None:
    if "\0" in text:
        complain(path, "NUL bytes are not allowed.")
    if any("\ud800" <= char <= "\udfff" for char in text):
        complain(path, "Lone surrogates are not valid Unicode.")


def variable_document(variable: Variable) -> dict[str, Any]:
    """One variable in its plain form, with the keys its type has."""
    document: dict[str, Any] = {
        "name": variable.name,
        "type": variable.type,
        "required": variable.required,
        "default": _plain(variable, variable.default),
        "help": variable.help,
        "no_leading_dash": variable.no_leading_dash,
    }
    for key in sorted(_TYPE_KEYS.get(variable.type, ())):
        value = getattr(variable, key)
        if key in ("min", "max") and value is not None and variable.type == "duration":
            value = params.seconds_in_words(value)
        document[key] = list(value) if isinstance(value, tuple) else value
    return document


def _plain(variable: Variable, text: str | None) -> object:
    """A number as a number, a boolean as a boolean, a duration as people write it."""
    if not text:
        return text
    if variable.type == "bool":
        return text == "true"
    if variable.type == "duration":
        return params.seconds_in_words(int(text))
    return int(text) if variable.type in params.NUMBERS else text


class _Entry:
    def __init__(self, entry: dict[object, object], kind: str, path: str, complain: Complain) -> None:
        self.entry = entry
        self.kind = kind
        self.path = path
        self.report = complain
        self.faults = 0

    def complain(self, key: str, sentence: str) -> None:
        self.faults += 1
        self.report(f"{self.path}.{key}", sentence)

    def variable(self) -> Variable:
        keys = _KEYS | _TYPE_KEYS.get(self.kind, frozenset())
        refuse_unknown(self.entry, keys, "", self.complain)
        variable = Variable(
            name=self.variable_name(),
            type=self.kind,
            required=self.flag("required", False),
            help=self.help(),
            min=self.bound("min"),
            max=self.bound("max"),
            pattern=self.pattern(),
            choices=self.choices(),
            max_length=self.max_length(),
            no_leading_dash=self.flag("no_leading_dash", self.kind not in ("string", "int")),
        )
        if variable.min is not None and variable.max is not None and variable.min > variable.max:
            self.complain("min", "This is larger than max.")
        return variable if self.faults else self.with_default(variable, self.entry.get("default"))

    def variable_name(self) -> str:
        name = self.entry.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.complain("name", f"{wrong(name)}: A to Z first, then A-Z, 0-9 and _, at most 63 characters.")
            return ""
        if name in _RESERVED_NAMES or name.startswith(_RESERVED_STARTS):
            self.complain("name", f"{name} has a meaning to bash or to the agent: choose another name.")
        return name

    def flag(self, key: str, default: bool) -> bool:
        value = self.entry.get(key, default)
        if not isinstance(value, bool):
            self.complain(key, "This is true or false.")
            return default
        return value

    def help(self) -> str:
        value = self.entry.get("help", "")
        if not isinstance(value, str) or len(value) > 500:
            self.complain("help", "This is a text of at most 500 characters.")
            return ""
        refuse_broken_text(value, "help", self.complain)
        return value

    def bound(self, key: str) -> int | None:
        value = self.entry.get(key)
        if value is None:
            return None
        if self.kind == "duration" and isinstance(value, str):
            try:
                return int(params.check_value(Variable(name=key, type="duration", required=True), value))
            except params.InvalidValue as error:
                self.complain(key, str(error))
                return None
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**18:
            self.complain(key, "This is a whole number of at most 18 digits.")
            return None
        return value

    def pattern(self) -> str | None:
        value = self.entry.get("pattern")
        if value is None:
            return None
        if not isinstance(value, str):
            self.complain("pattern", "This is a text.")
            return None
        try:
            params.compiled(value)
        except PatternError as error:
            self.complain("pattern", f"This pattern cannot be used: {error}.")
        return value

    def choices(self) -> tuple[str, ...]:
        value = self.entry.get("choices")
        if self.kind != "enum":
            return ()
        if not isinstance(value, list) or not 1 <= len(value) <= 200:
            self.complain("choices", "This is required: a list of 1 to 200 texts.")
            return ()
        for position, choice in enumerate(value):
            if not isinstance(choice, str) or not choice or not choice.isprintable() or len(choice) > 200:
                self.complain(
                    f"choices[{position}]",
                    "A choice is one line of text of at most 200 characters; put numbers, true and false in quotes.",
                )
            elif choice.startswith("-") and self.entry.get("no_leading_dash", True):
                self.complain(
                    f"choices[{position}]", "It starts with a dash: set no_leading_dash to false to allow that."
                )
        texts = tuple(choice for choice in value if isinstance(choice, str))
        if len(set(texts)) < len(texts):
            self.complain("choices", "A choice is listed twice.")
        return texts

    def max_length(self) -> int | None:
        value = self.entry.get("max_length")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= params.MAX_VALUE_BYTES:
            self.complain("max_length", f"This is a whole number from 1 to {params.MAX_VALUE_BYTES}.")
            return None
        return value

    def with_default(self, variable: Variable, default: object) -> Variable:
        if default is None:
            return variable
        if variable.type == "secret_ref":
            self.complain("default", "A secret has no default: each job names its own pointer.")
            return variable
        try:
            # The value of an optional variable may be empty, its default too; a required one's may not.
            checked = params.check_value(variable, default)
        except params.InvalidValue as error:
            self.complain("default", str(error))
            return variable
        return replace(variable, default=checked)
