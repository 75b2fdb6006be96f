"""`hyprbox` in this very process: quick, with what it wrote and how it ended."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from agent.cli import main
from agent.tests.cli_plane import Shell


@dataclass
class Done:
    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


class Run:
    """`run("nodes", "list")`; every answer is searched for tokens, which nobody may ever see."""

    def __init__(self, shell: Shell, patch: pytest.MonkeyPatch, capture: Any) -> None:
        self.shell, self._patch, self._capture = shell, patch, capture

    def __call__(self, *arguments: str, stdin: str = "") -> Done:
        for name in ("HYPRBOX_API_URL", "HYPRBOX_API_TOKEN", "HTTPS_PROXY", "https_proxy"):
            self._patch.delenv(name, raising=False)
        for name, value in self.shell.environment.items():
            self._patch.setenv(name, value)
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = main(list(arguments))
        sys.stdout.flush()
        captured = self._capture.readouterr()
        done = Done(code, captured.out, captured.err.decode("utf-8", "surrogateescape"))
        for secret in self.shell.tokens():
            assert secret not in done.err and secret.encode() not in done.out
        return done
