"""YAML and JSON, read without surprises.

YAML 1.1 turns `no` into false, `12:30` into 750 and `010` into 8, lets a key appear twice and an alias unfold into
gigabytes. Here only what one would write in JSON has a meaning beyond text, and the rest is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_DEPTH = 16


class NotADocument(ValueError):
    """The text is not one well-formed document."""


class _Loader(yaml.SafeLoader):
    """A safe loader with JSON's scalars, without aliases, doubled keys and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise NotADocument(f"Anchors and aliases are not supported ({_place(event.start_mark)}).")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotADocument(f"The document is nested too deeply ({_place(event.start_mark)}).")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise NotADocument(f"Keys are texts ({_place(key.start_mark)}).")
            if key.value in seen:
                raise NotADocument(f'The key "{key.value[:60]}" is there twice ({_place(key.start_mark)}).')
            seen.add(key.value)
        return super().construct_mapping(node, deep=True)


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"-?(?:0|[1-9][0-9]{0,30})", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), _first)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def read_yaml(raw: bytes) -> object:
    """One YAML document as plain values. Raises NotADocument with the place."""
    try:
        return yaml.load(_utf8(raw), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" ({_place(mark)})" if mark else ""
        raise NotADocument(f"This is not valid YAML: {error.problem or error.context}{where}.") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, NotADocument):
            raise
        raise NotADocument(f"This is not valid YAML: {str(error).splitlines()[0]}.") from error


def compose_yaml(raw: bytes) -> yaml.Node | None:
    """The same document as nodes with their places; None for one that `read_yaml` refuses."""
    try:
        return yaml.compose(_utf8(raw), Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        return None


def read_json(raw: bytes) -> object:
    """One JSON document as plain values. Raises NotADocument with the place."""
    try:
        return json.loads(_utf8(raw), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise NotADocument(f"This is not valid JSON: {error.msg} ({place}).") from error
    except RecursionError as error:
        raise NotADocument("The document is nested too deeply.") from error
    except ValueError as error:
        if isinstance(error, NotADocument):
            raise
        raise NotADocument("A number in it is too long.") from error


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotADocument(f"The document is not UTF-8 (byte {error.start}).") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotADocument(f'The key "{key[:60]}" is there twice.')
        found[key] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotADocument("A number in it is too large.")
    return number


def _no_constant(name: str) -> None:
    raise NotADocument(f"{name} is not a value in JSON.")
