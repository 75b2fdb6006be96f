"""Shell text is made in one place. Everywhere else a shell is given nothing to read that this program put together."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import ROOT

PARTS = ("accounts", "agent", "audit", "hyprbox", "jobs", "nodes", "presets", "tokens", "manage.py")
SHELLS = {"sh", "bash", "dash", "zsh"}
FORBIDDEN = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "pty.spawn",
}  # fmt: skip
# Who may quote for a shell: the renderer does it by itself, and the installer fills in what a person pastes.
QUOTERS = {"hyprbox/installer.py"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for part in PARTS:
        for path in [ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py")):
            if "tests" not in path.relative_to(ROOT).parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def named(node: ast.AST) -> str:
    """`os.system` of `os.system(...)`; an empty string for what is no name."""
    if isinstance(node, ast.Attribute):
        return f"{named(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)


def findings(path: str, tree: ast.Module) -> Iterator[str]:
    for node, name in imported(tree):
        if name in FORBIDDEN:
            yield f"{path}:{node.lineno}: {name}"  # type: ignore[attr-defined]
        if name.startswith("shlex") and path not in QUOTERS:
            yield f"{path}:{node.lineno}: quotes for a shell"  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if named(node.func) in FORBIDDEN:
                yield f"{path}:{node.lineno}: {named(node.func)}"
            for keyword in node.keywords:
                if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value):
                    yield f"{path}:{node.lineno}: shell="
                if keyword.arg == "preexec_fn":  # runs in a fork of a process with threads; and how PDEATHSIG is set
                    yield f"{path}:{node.lineno}: preexec_fn="
        if isinstance(node, ast.List | ast.Tuple) and _is_shell_with_text(node.elts):
            yield f"{path}:{node.lineno}: text for a shell's -c"
        if isinstance(node, ast.Constant) and "PDEATHSIG" in str(node.value):
            yield f"{path}:{node.lineno}: PDEATHSIG"


def _is_shell_with_text(elements: list[ast.expr]) -> bool:
    """`["bash", "-c", ...]`, or with other options between."""
    texts = [element.value for element in elements if isinstance(element, ast.Constant)]
    words = [text for text in texts if isinstance(text, str)]
    is_shell = any(Path(word).name in SHELLS for word in words)
    return is_shell and any(word.startswith("-") and "c" in word and not word.startswith("--") for word in words)


def test_nothing_but_the_renderer_makes_shell_text() -> None:
    assert [found for path, tree in sources() for found in findings(path, tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.system('true')",
        "from os import system\nsystem('true')",
        "import subprocess\nsubprocess.run('true', shell=True)",
        "import subprocess\nsubprocess.run('true', shell=is_wanted)",
        "import subprocess\nsubprocess.getoutput('true')",
        "import subprocess\nsubprocess.run(['/bin/bash', '-c', f'echo {name}'])",
        "import subprocess\nsubprocess.run(['sh', '-eu', '-c', text])",
        "from shlex import quote",
        "import shlex",
        "import subprocess\nsubprocess.Popen(['true'], preexec_fn=die_with_parent)",
        "LIBC.prctl(PR['PR_SET_PDEATHSIG'], 9)",
    ],
)
def test_it_would_be_found(code: str) -> None:
    assert list(findings("jobs/new.py", ast.parse(code)))


def test_a_program_without_a_shell_is_left_alone() -> None:
    code = "import subprocess, sys\nsubprocess.run(['/bin/bash', path, phase])\nsubprocess.run([sys.executable, '-c', '1'])"
    assert not list(findings("jobs/new.py", ast.parse(code)))
