"""Preset variables: their types, and what a value must be before it may enter a script.

A value is checked once, here, and leaves as text. Every bad value is named with what would be right, all
of them at once. Secrets are pointers (`env:...`, `file:...`) that only the agent resolves; what looks like anything else is
refused without being repeated.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from presets.patterns import MAX_INPUT_LENGTH, Pattern

TYPES = (
    "string",
    "int",
    "bool",
    "enum",
    "port",
    "hostname",
    "ip",
    "cidr",
    "path",
    "identifier",
    "url",
    "duration",
    "secret_ref",
)
NUMBERS = frozenset({"int", "port", "duration"})
"""Rendered as plain decimal digits, so that bash arithmetic on them is safe."""

MAX_VALUE_BYTES = 64 * 1024
MAX_TOTAL_BYTES = 2 * 1024 * 1024
SECRET_ENV_PREFIX = "HYPRBOX_SECRET_"
SECRET_FOLDER = "/etc/hyprbox/secrets/"

_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NATURAL = re.compile(r"0|[1-9][0-9]{0,17}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_DURATION = re.compile(r"(0|[1-9][0-9]{0,9})([smhdw]?)")
_URL = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]+")
_SECRET_ENV = re.compile(r"[A-Z0-9][A-Z0-9_]{0,48}")
_SECRET_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}){0,7}")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Variable:
    """One declared variable. `default` is the checked text, or None. Durations are seconds, in `default`, `min` and `max`."""

    name: str
    type: str
    required: bool = False
    default: str | None = None
    help: str = ""
    min: int | None = None
    max: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    max_length: int | None = None
    no_leading_dash: bool = False


class InvalidValue(ValueError):
    """This value is not what the variable takes; the text is a whole sentence."""


class InvalidVariables(ValueError):
    """Some of the values do not fit what the preset declares."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self.fields = dict(fields)
        super().__init__(" ".join(sentence for sentences in self.fields.values() for sentence in sentences))


def validate(variables: tuple[Variable, ...], values: Mapping[str, object]) -> dict[str, str]:
    """Check every value and answer the text of every declared variable, in order of declaration.

    A value that is absent or null takes the default. `required` means that the result is not empty; a variable
    that is not required and has no value is the empty string. Durations come out as whole seconds.

    Raises InvalidVariables with {name: [sentences]} for everything that is wrong.
    """
    known = {variable.name for variable in variables}
    wrong = {_name(name): [f"This preset has no variable {_name(name)}."] for name in values if name not in known}
    checked: dict[str, str] = {}
    for variable in variables:
        try:
            checked[variable.name] = check_value(variable, values.get(variable.name))
        except InvalidValue as error:
            wrong[variable.name] = [str(error)]
    total = sum(len(value.encode()) for value in checked.values())
    if total > MAX_TOTAL_BYTES:
        wrong["variables"] = [f"All values together have {total:,} bytes; {MAX_TOTAL_BYTES:,} are allowed."]
    if wrong:
        raise InvalidVariables(wrong)
    return checked


def check_value(variable: Variable, value: object) -> str:
    """The text of one value, or InvalidValue with a sentence that names what is wrong and what would be right."""
    if value is None:
        value = variable.default
    if value is None or value == "":
        if variable.required:
            raise InvalidValue(f"{variable.name} is required: {_wanted(variable)}.")
        return ""
    text = _as_text(variable, value)
    text = _CHECKS[variable.type](variable, text)
    _check_common(variable, text)
    return text


def _as_text(variable: Variable, value: object) -> str:
    """JSON sends numbers and booleans, forms and command lines send text: from here on it is text."""
    if isinstance(value, bool) and variable.type == "bool":
        return "true" if value else "false"
    if isinstance(value, int) and not isinstance(value, bool) and variable.type in NUMBERS:
        return str(value) if abs(value) < 10**18 else _refuse(variable, "a number that long", _WANTED[variable.type])
    if not isinstance(value, str):
        return _refuse(variable, f"a value of type {_json_type(value)}", _wanted(variable))
    if "\0" in value:
        return _refuse(variable, "a text with a NUL byte", "text without it")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return _refuse(variable, "a text with half a character in it (a lone surrogate)", "valid Unicode")
    if size > MAX_VALUE_BYTES:
        return _refuse(variable, f"a text of {size:,} bytes", f"at most {MAX_VALUE_BYTES:,} bytes")
    return value


def _check_common(variable: Variable, text: str) -> None:
    shown = _shown(variable, text)
    if variable.no_leading_dash and text.startswith("-"):
        _refuse(variable, shown, "a value that does not start with a dash, which commands read as an option")
    if variable.max_length is not None and len(text) > variable.max_length:
        _refuse(variable, f"{len(text)} characters", f"at most {variable.max_length}")
    if variable.pattern is not None:
        if len(text) > MAX_INPUT_LENGTH:
            _refuse(variable, f"{len(text)} characters", f"at most {MAX_INPUT_LENGTH}")
        if not compiled(variable.pattern).matches(text):
            _refuse(variable, shown, f"a value like the pattern {variable.pattern}")


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Pattern:
    return Pattern(pattern)


def _wanted(variable: Variable) -> str:
    if variable.type == "enum":
        return f"choose one of {', '.join(variable.choices)}"
    return _WANTED[variable.type]


def _refuse(variable: Variable, got: str, wanted: str) -> str:
    raise InvalidValue(f"{variable.name} cannot be {got}: {wanted}.")


def _shown(variable: Variable, text: str) -> str:
    """The bad value as it may be repeated: escaped, short, and never of a secret."""
    if variable.type == "secret_ref":
        return "this value"
    cut = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut) + '"'


def _name(name: object) -> str:
    """An unknown name as a key and in a sentence: whatever was sent, short and printable."""
    text = str(name)[:63]
    return "".join(char if char.isprintable() else "?" for char in text) or "(empty)"


def _json_type(value: object) -> str:
    names: dict[type, str] = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
    return names.get(type(value), "something else")


# One check per type. Each answers the text to render.


def _string(variable: Variable, text: str) -> str:
    return text


def _int(variable: Variable, text: str) -> str:
    if not _INT.fullmatch(text):
        _refuse(variable, _shown(variable, text), _WANTED["int"])
    return _in_range(variable, int(text), str)


def _port(variable: Variable, text: str) -> str:
    if not _NATURAL.fullmatch(text) or not 1 <= int(text) <= 65535:
        _refuse(variable, _shown(variable, text), _WANTED["port"])
    return _in_range(variable, int(text), str)


def _duration(variable: Variable, text: str) -> str:
    match = _DURATION.fullmatch(text)
    if not match:
        _refuse(variable, _shown(variable, text), _WANTED["duration"])
        raise AssertionError("unreachable")
    return _in_range(variable, int(match[1]) * _SECONDS[match[2]], seconds_in_words)


def _in_range(variable: Variable, number: int, word: Callable[[int], str]) -> str:
    if variable.min is not None and number < variable.min:
        _refuse(variable, word(number), f"at least {word(variable.min)}")
    if variable.max is not None and number > variable.max:
        _refuse(variable, word(number), f"at most {word(variable.max)}")
    return str(number)


def seconds_in_words(seconds: int) -> str:
    """90 -> "90s", 7200 -> "2h": the largest unit that divides it."""
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"


def _bool(variable: Variable, text: str) -> str:
    return text if text in ("true", "false") else _refuse(variable, _shown(variable, text), _WANTED["bool"])


def _enum(variable: Variable, text: str) -> str:
    if text in variable.choices:
        return text
    return _refuse(variable, _shown(variable, text), "one of " + ", ".join(variable.choices))


def _hostname(variable: Variable, text: str) -> str:
    labels = text.split(".")
    if not text.isascii():
        return _refuse(variable, _shown(variable, text), "the ASCII form of the name (it starts with xn--)")
    if labels[-1].isdigit():
        return _refuse(variable, _shown(variable, text), "a name such as web-1.example.org, not an address")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return _refuse(variable, _shown(variable, text), _WANTED["hostname"])
    return text


def _ip(variable: Variable, text: str) -> str:
    if not _is_address(text):
        _refuse(variable, _shown(variable, text), _WANTED["ip"])
    return text


def _is_address(text: str) -> bool:
    # Zones (fe80::1%eth0) carry free text, and a leading zero is octal to some programs: both are refused.
    if "%" in text or any(len(part) > 1 and part[0] == "0" for part in text.split(".") if "." in text):
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text.isascii()


def _cidr(variable: Variable, text: str) -> str:
    address, slash, prefix = text.partition("/")
    if not slash or not _is_address(address) or not _NATURAL.fullmatch(prefix):
        return _refuse(variable, _shown(variable, text), _WANTED["cidr"])
    largest = ipaddress.ip_address(address).max_prefixlen
    if int(prefix) > largest:
        return _refuse(variable, _shown(variable, text), f"the largest prefix for this address is /{largest}")
    network = ipaddress.ip_network(text, strict=False)
    if ipaddress.ip_address(address) != network.network_address:
        return _refuse(variable, _shown(variable, text), f"the network itself is {network}")
    return text


def _path(variable: Variable, text: str) -> str:
    if any(not char.isprintable() for char in text):
        return _refuse(variable, _shown(variable, text), "a path without line breaks or control characters")
    if ".." in text.split("/"):
        return _refuse(variable, _shown(variable, text), "a path without .. in it")
    if not text.startswith("/") or len(text.encode()) > 4095:
        return _refuse(variable, _shown(variable, text), _WANTED["path"])
    return text


def _identifier(variable: Variable, text: str) -> str:
    if not _IDENTIFIER.fullmatch(text):
        _refuse(variable, _shown(variable, text), _WANTED["identifier"])
    return text


def _url(variable: Variable, text: str) -> str:
    wanted = _WANTED["url"]
    if len(text) > 2048 or not _URL.fullmatch(text):
        return _refuse(variable, _shown(variable, text), wanted)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return _refuse(variable, _shown(variable, text), wanted)
    if parts.username is not None or "@" in parts.netloc:
        # The user and password of a URL are a secret: they would be stored with the job and shown.
        raise InvalidValue(f"{variable.name} cannot carry a user name or password: use a secret_ref for those.")
    named = all(_LABEL.fullmatch(label) for label in host.split("."))
    if parts.scheme not in ("http", "https") or not (named or _is_address(host)):
        return _refuse(variable, _shown(variable, text), wanted)
    return text


def _secret_ref(variable: Variable, text: str) -> str:
    kind, _, target = text.partition(":")
    if kind == "env" and target.startswith(SECRET_ENV_PREFIX):
        if _SECRET_ENV.fullmatch(target[len(SECRET_ENV_PREFIX) :]):
            return text
    elif kind == "file" and target.startswith(SECRET_FOLDER) and _SECRET_FILE.fullmatch(target[len(SECRET_FOLDER) :]):
        return text
    raise InvalidValue(
        f"{variable.name} takes a pointer, never the secret itself: {_WANTED['secret_ref']}. "
        "If you just typed a password, it was not stored."
    )


_CHECKS: Mapping[str, Callable[[Variable, str], str]] = {
    "string": _string,
    "int": _int,
    "bool": _bool,
    "enum": _enum,
    "port": _port,
    "hostname": _hostname,
    "ip": _ip,
    "cidr": _cidr,
    "path": _path,
    "identifier": _identifier,
    "url": _url,
    "duration": _duration,
    "secret_ref": _secret_ref,
}

_WANTED: Mapping[str, str] = {
    "string": "write some text",
    "int": "write a whole number such as 42, without leading zeros, of at most 18 digits",
    "bool": "write true or false",
    "enum": "choose one of the listed values",
    "port": "write a whole number from 1 to 65535",
    "hostname": "write a host name such as web-1.example.org, letters, digits and dashes",
    "ip": "write an address such as 192.0.2.7 or 2001:db8::7",
    "cidr": "write a network with its prefix, such as 10.8.0.0/24",
    "path": "write an absolute path such as /srv/www, of at most 4,095 bytes",
    "identifier": "write a letter or _ and then letters, digits, _ or -, at most 64 in all",
    "url": "write a complete address such as https://example.org/path",
    "duration": "write a number with a unit, such as 90s, 15m, 12h, 30d or 2w",
    "secret_ref": f"write env:{SECRET_ENV_PREFIX}NAME or file:{SECRET_FOLDER}NAME",
}
