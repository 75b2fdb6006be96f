"""Where in the text of a YAML document something stands that is known by its key path, or by its line inside a part. Pure."""

from __future__ import annotations

import re

import yaml

from presets.strictyaml import compose_yaml

_STEP = re.compile(r"[^.\[\]]+|(?<=\[)\d+(?=\])")


class Places:
    """The places of one document. Lines and columns count from 1; (0, 0) is nowhere."""

    def __init__(self, text: str) -> None:
        self.lines = text.replace("\r\n", "\n").split("\n")
        self.root = compose_yaml(text.encode("utf-8", "surrogatepass"))

    def of_path(self, path: str) -> tuple[int, int]:
        """The value at a path such as `variables[0].type`, or the nearest thing around it that is there."""
        node, mark = self.root, None
        for step in _STEP.findall(path):
            found = _step(node, step)
            if found is None:
                break
            mark, node = found
        return (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)

    def in_part(self, part: str, line: int, column: int) -> tuple[int, int]:
        """A place inside the text of a part. Exact where the part is a block (`apply: |`), else its first line."""
        found = _step(self.root, part)
        if found is None:
            return 0, 0
        key, node = found
        if not isinstance(node, yaml.ScalarNode) or node.style != "|":
            return key.line + 1, key.column + 1
        first = node.start_mark.line + 1
        return first + line, self._indent(first) + column

    def _indent(self, first: int) -> int:
        text = next((line for line in self.lines[first:] if line.strip()), "")
        return len(text) - len(text.lstrip(" "))


def _step(node: yaml.Node | None, step: str) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key.start_mark, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
        item = node.value[int(step)]
        return item.start_mark, item
    return None
