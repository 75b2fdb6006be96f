"""A fresh Debian 12 to enrol: a room (presets/tests/root.py) that reaches the control plane on this machine's loopback.

`play` runs a story in bash, as root, in a copy of its own. In it there are

    try LABEL COMMAND...   exit code into exits[LABEL], what it said into said[LABEL]
    keep / changed         remember all files; changed LABEL says into said[LABEL] which differ since
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOM = Path(__file__).resolve().parent.parent / "presets" / "tests" / "room"
NAMESPACES = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
# The tree has neither curl nor wget, and a fresh Debian only the latter. This one is as silent.
CURL = '''exec python3 -c 'import sys, urllib.request
try: sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[-1], timeout=20).read())
except OSError as error: sys.exit(f"curl: {error}")' "$@"'''
BEGIN = """
unset http_proxy https_proxy
try() {
  local label=$1 code=0
  shift
  "$@" </dev/null >"/room/said.$label" 2>&1 || code=$?
  echo "$label $code" >>/room/exits
}
picture() { find / -xdev ! -path '/room*' ! -path /tmp ! -path /run ! -path /root ! -path / -printf '%p %#m %l %s\\n' 2>/dev/null | sort; }
keep() { picture >/room/kept; }
changed() { picture | diff /room/kept - >"/room/said.$1" || true; }
"""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Story:
    """What happened: exit codes and outputs by label, and all that the steps themselves wrote."""

    output: str
    exits: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FreshDebian:
    tree: Path
    folder: Path

    def play(self, steps: str, *, systemd: bool = True, tools: dict[str, str] | None = None) -> Story:
        """Run `steps` with `set -eu`; the room is gone afterwards, with all that was started in it."""
        shared = self.folder / f"room-{next(_numbers)}"
        (shared / "bin").mkdir(parents=True)
        for name, body in {"curl": CURL, **(tools or {})}.items():
            (shared / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        if systemd:
            shutil.copy(ROOM / "systemctl.py", shared / "bin" / "systemctl")
        begin = BEGIN + ("" if systemd else "rmdir /run/systemd/system\n")
        (shared / "steps.sh").write_text(f"set -eu\n{begin}\n{steps}\n")
        done = subprocess.run(
            [*NAMESPACES, "bash", str(ROOM / "enter.sh"), str(self.tree), str(shared)],
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=180,
        )
        output = done.stdout.decode(errors="replace")
        said = {file.name.partition(".")[2]: file.read_text(errors="replace") for file in shared.glob("said.*")}
        assert done.returncode == 0, f"{output}\n{said}"
        lines = (shared / "exits").read_text().splitlines() if (shared / "exits").exists() else []
        return Story(output, {line.split()[0]: int(line.split()[1]) for line in lines}, said)
