"""A room: a fresh Debian 12 of its own in which a preset is run for real and may break what it likes.

Ask for the fixture `room` (conftest.py) and tell a story in bash; `phase LABEL PART` runs a part as the agent does:

    def test_it(room: Room) -> None:
        result = room.play("fail2ban", {"MAX_RETRY": 3}, "phase first check; phase apply apply; fail2ban-client status sshd")
        assert result.exits == {"first": 1, "apply": 0}, result.output
        assert "Status" in result.output

`room.life(...)` is the story that every preset must survive. Inside the steps there are

    phase LABEL PART [WHICH]   exit code into result.exits[LABEL], what it wrote into result.said[LABEL]; WHICH names other values
                               that `play(also={"WHICH": {...}})` was given
    keep NAME                  remember the watched folders (contents, modes, owners) and what the function `facts` prints
    same NAME                  they are as they were; else result.differences[LABEL...] is not empty and says what changed

What a room is: the tree of template.py under an overlay in memory, chroot, and namespaces of its own for mounts, network, processes, host
name and IPC. Each call of `play` is another fresh copy, gone when it ends. It takes a tenth of a second.

What it is not, and so what no test in it shows:
- systemd does not run. room/systemctl.py stands in: it starts services for real from their unit files, but there are no timers, sockets,
  journal, sandboxing, `systemd-run`. Other programs of systemd are not there; give stand-ins with `play(tools={"name": "bash"})`.
- The kernel is the machine's own: its settings but net.* are read only, no modules are loaded, nothing reboots.
- The network is a loopback of its own, without a way out. apt installs what template.DOWNLOADED names, from its cache; `apt-get update`
  warns and goes on.
- Host names but localhost and room do not resolve.

The fixture `server` gives rooms whose own systemd boots (room/boot.sh), with timers, journal and services as on a server; it takes some seconds
more, and `play(tools=...)` has no systemctl of its own. They need a cgroup tree of version 2, beside that of version 1 or alone. The kernel and the
network are as above; /var/lib/docker lies in memory of its own, and there is /dev/net/tun where the machine has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from presets import catalogue, rendering
from presets.tests import template
from presets.tests.helpers import BASH

_ROOM = Path(__file__).parent / "room"
_UNSHARE = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
WATCHED = ("/etc", "/root", "/home", "/usr/local", "/var/spool/cron")
_BEGIN = """
facts() { :; }
phase() {
  local code=0
  bash "/room/${3:-script}.sh" "$2" </dev/null >"/room/said.$1" 2>&1 || code=$?
  printf '=== %s (%s) ended with %s at %s\\n' "$1" "$2" "$code" "$SECONDS"; cat "/room/said.$1"
  echo "$1 $code" >>/room/exits
}
picture() {
  find $WATCHED -printf '%p %y %#m %u:%g %l\\n' 2>/dev/null | sort
  find $WATCHED -type f -print0 2>/dev/null | sort -z | xargs -0r sha256sum
  facts 2>&1 || true
}
keep() { picture >"/room/kept.$1"; }
same() {
  picture | diff "/room/kept.$1" - >>"/room/changed.$1" || { echo "!!! not as at $1:"; cat "/room/changed.$1"; }
}
"""
_LIFE = """
keep original; phase first check; same original
phase apply apply; keep applied; phase verify verify; phase second check; same applied
{undo}
phase again apply; same applied
broken; phase broken_verify verify; phase broken_check check
{back}
"""
_UNDO = "phase undo rollback; same original; phase redo apply; same applied"
_BACK = "phase back rollback; mended; same applied; phase back_verify verify"


@dataclass(frozen=True)
class Result:
    """What happened: exit codes and outputs by label, and every difference that a `same` found."""

    exits: dict[str, int]
    output: str
    said: dict[str, str] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)


class NoRoom(Exception):
    """This machine cannot make a room; the text says why."""


@dataclass(frozen=True)
class Room:
    """Makes rooms out of one tree; `folder` is what a room shares with the test, a fresh one per room."""

    tree: Path
    folder: Path
    booted: bool = False

    def play(
        self,
        name: str,
        values: Mapping[str, object],
        steps: str,
        *,
        also: Mapping[str, Mapping[str, object]] | None = None,
        tools: Mapping[str, str] | None = None,
        watch: Sequence[str] = WATCHED,
        timeout: int = 400,
    ) -> Result:
        """Run `steps` in a fresh room. `tools` are bash bodies of programs that stand in for others."""
        shared = self.folder / f"room-{len(list(self.folder.glob('room-*')))}"
        (shared / "bin").mkdir(parents=True)
        if not self.booted:
            shutil.copy(_ROOM / "systemctl.py", shared / "bin" / "systemctl")
        for tool, body in (tools or {}).items():
            (shared / "bin" / tool).write_text(f"#!/bin/bash\n{body}\n")
        preset = catalogue.builtin()[name]
        for which, given in {"script": values, **(also or {})}.items():
            (shared / f"{which}.sh").write_bytes(rendering.render(preset, given).script)
        (shared / "steps.sh").write_text(f"set -eu\nWATCHED='{' '.join(watch)}'\n{_BEGIN}\n{steps}\n")
        enter = [*_UNSHARE, BASH, str(_ROOM / "enter.sh")]
        if self.booted:
            enter = ["setpriv", "--pdeathsig", "KILL", BASH, str(_ROOM / "boot.sh")]
        done = subprocess.run(
            [*enter, str(self.tree), str(shared)],
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=timeout,
        )
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output
        return _result(shared, output)

    def life(
        self,
        name: str,
        values: Mapping[str, object],
        *,
        breaks: str,
        mends: str = ":",
        setup: str = "",
        facts: str = ":",
        rollback: bool = True,
        tools: Mapping[str, str] | None = None,
        watch: Sequence[str] = WATCHED,
        timeout: int = 400,
    ) -> Result:
        """The life of a preset, every step of it asserted.

        Not so; applied, verified, so; taken back, and everything is as it was; applied twice, which changes nothing; broken by the
        bash in `breaks`, which `verify` notices; rolled back to what was there before that last apply, once `mends` has undone what
        the preset itself would not touch. `setup` runs first, `facts` prints what else must be the same beside the watched folders, such as
        `sshd -T`. The check and the verify change nothing.
        """
        steps = _LIFE.format(undo=_UNDO if rollback else "", back=_BACK if rollback else "")
        tellings = {"facts": facts, "broken": breaks, "mended": mends}
        begin = setup + "".join(f"\n{name}() {{\n{body}\n}}\n" for name, body in tellings.items())
        result = self.play(name, values, begin + steps, tools=tools, watch=watch, timeout=timeout)
        wanted = {"first": 1, "apply": 0, "verify": 0, "second": 0, "again": 0, "broken_check": 1}
        if rollback:
            wanted.update(undo=0, redo=0, back=0, back_verify=0)
        found = {label: code for label, code in result.exits.items() if label != "broken_verify"}
        assert found == wanted, result.output
        assert result.exits["broken_verify"] != 0, result.output
        assert not result.differences, result.output
        return result


def _result(shared: Path, output: str) -> Result:
    exits = (
        [line.split() for line in (shared / "exits").read_text().splitlines()] if (shared / "exits").exists() else []
    )
    changed = {file.name.partition(".")[2]: file.read_text() for file in shared.glob("changed.*") if file.read_text()}
    said = {file.name.partition(".")[2]: file.read_text(errors="replace") for file in shared.glob("said.*")}
    return Result({label: int(code) for label, code in exits}, output, said, changed)


def make_template(*, booted: bool = False) -> Path:
    """The tree that rooms are made of. Raises NoRoom where this machine cannot have them."""
    try:
        if os.geteuid() != 0 or not shutil.which("unshare"):
            raise NoRoom("rooms need root and unshare")
        probe = [*_UNSHARE, BASH, "-c", "mount -t tmpfs none /mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
            raise NoRoom("this machine gives no namespaces to make rooms in")
        if booted and " cgroup2 " not in Path("/proc/self/mounts").read_text():
            raise NoRoom("this machine has no cgroup tree of version 2 in which systemd could boot")
        return template.ready_server() if booted else template.ready()
    except template.NoTemplate as error:
        raise NoRoom(str(error)) from None
