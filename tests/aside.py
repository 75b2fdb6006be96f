"""A process of ours beside a test, on the test's own database: it sees what the test has committed."""

from __future__ import annotations

import os
import subprocess
import sys

from django.db import connection

from tests.house import ROOT


def run(*arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, from the repository's folder; `given` comes through a pipe."""
    name = connection.settings_dict["NAME"]
    url = os.environ["DATABASE_URL"].replace("/hyprbox?", f"/{name}?")
    assert f"/{name}?" in url
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, **environment},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
