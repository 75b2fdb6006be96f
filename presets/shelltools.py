"""Asking bash and ShellCheck about a preset. Both only read; nothing of the preset runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from presets import lint, rendering
from presets.documents import Preset
from presets.lint import ERROR, WARNING, Finding

_BASH_LINE = re.compile(r"^\S*bash: line (\d+): (.*)$", re.MULTILINE)
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
_TIMEOUT_SECONDS = 30


class ToolMissing(RuntimeError):
    """The program that this check needs is not installed."""


def asked() -> tuple[str, ...]:
    """What `check` asks here, by the names that people know."""
    return ("lint", *(["bash -n"] if shutil.which("bash") else []), *(["ShellCheck"] if _shellcheck_program() else []))


def _shellcheck_program() -> str | None:
    return shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))


def check(preset: Preset) -> tuple[Finding, ...]:
    """The lint, `bash -n` where there is bash, ShellCheck where there is ShellCheck, and what is advised."""
    found = [*lint.lint(preset), *lint.advice(preset)]
    for tool in (bash_syntax, shellcheck):
        try:
            found.extend(tool(preset))
        except ToolMissing:
            continue
        except subprocess.TimeoutExpired:
            sentence = (
                f"{tool.__name__.replace('_', ' ')} did not end within {_TIMEOUT_SECONDS} seconds, so it found nothing."
            )
            found.append(Finding("", 0, 0, ERROR, "too-long", sentence))
    return tuple(found)


def bash_syntax(preset: Preset) -> tuple[Finding, ...]:
    """`bash -n` over each part twice: alone, so that it cannot close its function, and inside it."""
    return tuple(finding for part, text in preset.parts.items() for finding in _part_syntax(part, text))


def _part_syntax(part: str, text: str) -> Iterator[Finding]:
    lines = text.count("\n") + 1
    for source, shift in ((text, 0), (f"f() {{\n{text}\n}}\n", 1)):
        done = _run(["bash", "--norc", "-n"], source)
        found = [(int(line), message) for line, message in _BASH_LINE.findall(done.stderr)]
        if done.returncode and not found:
            found = [(1, done.stderr.strip() or "bash refuses this text")]
        for line, message in found:
            yield Finding(part, min(max(line - shift, 1), lines), 1, ERROR, "syntax", f"bash: {message}")
        if found:
            return


def shellcheck(preset: Preset, severity: str = "style") -> tuple[Finding, ...]:
    """ShellCheck over the rendered script, its places counted inside the parts."""
    script = rendering.skeleton(preset)
    program = _shellcheck_program()
    if program is None:
        raise ToolMissing("shellcheck is not installed.")
    done = _run([program, "--norc", "--shell=bash", f"--severity={severity}", "--format=json1", "-"], script)
    starts = _starts(preset, script)
    return tuple(_finding(comment, starts) for comment in json.loads(done.stdout)["comments"])


def _starts(preset: Preset, script: str) -> dict[str, tuple[int, int]]:
    """The first and the last line of each part's text in the script."""
    starts = {}
    for part, text in preset.parts.items():
        first = script[: script.index(f"\nhb_{part}() {{\n")].count("\n") + 3
        starts[part] = (first, first + text.rstrip("\n").count("\n"))
    return starts


def _finding(comment: dict[str, object], starts: dict[str, tuple[int, int]]) -> Finding:
    line, column = int(str(comment["line"])), int(str(comment["column"]))
    severity = ERROR if comment["level"] == "error" else WARNING
    for part, (first, last) in starts.items():
        if first <= line <= last:
            return Finding(part, line - first + 1, column, severity, f"SC{comment['code']}", str(comment["message"]))
    return Finding("", 0, 0, severity, f"SC{comment['code']}", str(comment["message"]))


def _run(command: list[str], source: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0])
    if program is None:
        raise ToolMissing(f"{command[0]} is not installed.")
    return subprocess.run(
        [program, *command[1:]],
        input=source,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
        env=_ENVIRONMENT,
    )
