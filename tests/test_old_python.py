"""Managed servers have older Pythons: what runs there keeps to 3.9, as far as reading the code can tell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house import ROOT

PURE = ("__init__", "declarations", "documents", "leaks", "params", "patterns", "rendering", "strictyaml")
FILES = sorted([*ROOT.glob("agent/*.py"), *ROOT.glob("agent/cli/*.py")]) + [
    ROOT / f"presets/{name}.py" for name in PURE
]
FILES += [ROOT / "presets/catalogue/__init__.py"]
# What came later, by module.
YOUNGER = {
    "datetime": {"UTC"},
    "enum": {"StrEnum", "verify", "CONTINUOUS"},
    "itertools": {"pairwise", "batched"},
    "typing": {"Self", "TypeAlias", "ParamSpec", "assert_never", "Never", "override", "NotRequired", "Required"},
    "contextlib": {"aclosing", "chdir"},
    "types": {"NoneType", "UnionType"},
}
YOUNGER_KEYWORDS = {"dataclass": {"slots", "kw_only"}, "zip": {"strict"}, "run": {"process_group"}}


def too_young(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in YOUNGER:
            found += [f"{node.module}.{name.name}" for name in node.names if name.name in YOUNGER[node.module]]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name == "tomllib"]
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            young = YOUNGER_KEYWORDS.get(called, set())
            found += [f"{called}({keyword.arg}=)" for keyword in node.keywords if keyword.arg in young]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_3_9_can_read_it(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    assert too_young(tree) == []
    assert not source.strip() or "from __future__ import annotations" in source or "|" not in source


def test_the_test_sees_what_is_too_young() -> None:
    code = "from datetime import UTC\n@dataclass(slots=True)\nclass A: pass\nzip(a, b, strict=True)"
    assert too_young(ast.parse(code)) == ["datetime.UTC", "dataclass(slots=)", "zip(strict=)"]
    with pytest.raises(SyntaxError):
        ast.parse("match a:\n  case 1: pass", feature_version=(3, 9))
