"""A scratch machine for presets that change things: own mounts, network and processes, and a stand-in for systemd.

/etc and /var are overlays that vanish, /run is empty, the network is a loopback of its own, so the real machine is not touched.
The stand-ins remember what they are told; what only a real systemd could show is not shown here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from presets import catalogue, rendering
from presets.tests.helpers import BASH, ENVIRONMENT

_UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
_SETUP = """
set -eu
mount -t tmpfs none "$ROOM/over"
for folder in etc var srv; do
  mkdir -p "$ROOM/over/$folder/upper" "$ROOM/over/$folder/work"
  mount -t overlay none -o "lowerdir=/$folder,upperdir=$ROOM/over/$folder/upper,workdir=$ROOM/over/$folder/work" "/$folder"
done
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/lock
mount -t proc none /proc
ip link set lo up
export PATH="$ROOM/bin:$PATH"
umask 077
cd /
"""
_STAND_INS: Mapping[str, str] = {
    "systemctl": r"""
        mkdir -p /run/units
        quiet=""
        verb=$1; shift
        if [[ ${1:-} == --quiet ]]; then quiet=yes; shift; fi
        unit=${!#}
        case $verb in
          enable) touch "/run/units/$unit.enabled" ;;
          disable) rm -f "/run/units/$unit.enabled" ;;
          is-enabled) if [[ -e /run/units/$unit.enabled ]]; then [[ $quiet ]] || echo enabled; else [[ $quiet ]] || echo disabled; exit 1; fi ;;
          is-active) if [[ -e /run/units/$unit.active ]]; then [[ $quiet ]] || echo active; else [[ $quiet ]] || echo inactive; exit 3; fi ;;
          restart | reload-or-restart)
            if [[ $unit == nginx ]]; then if [[ -s /run/nginx.pid ]]; then nginx -s reload; else nginx; fi; fi
            touch "/run/units/$unit.active" ;;
          stop) rm -f "/run/units/$unit.active"; if [[ $unit == nginx && -s /run/nginx.pid ]]; then nginx -s stop; fi ;;
          show) date -d "@$(stat -c %Y "/run/units/$unit.active")" ;;
          cat) [[ $unit == systemd-timesyncd ]] ;;
        esac
    """,
    "systemd-analyze": "cat /etc/systemd/journald.conf /etc/systemd/journald.conf.d/*.conf 2>/dev/null || true\n",
    "journalctl": 'echo "journalctl $*"\n',
    "timedatectl": r"""
        case "$1 ${2:-}" in
          "show --property=Timezone") cat /run/zone 2>/dev/null || echo Etc/UTC ;;
          "show --property=NTPSynchronized") echo yes ;;
          set-timezone*) echo "$2" >/run/zone ;;
        esac
    """,
}


@dataclass(frozen=True)
class Result:
    exits: dict[str, int]
    output: str


def can_make_rooms() -> bool:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        return False
    probe = [*_UNSHARE, BASH, "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_room = pytest.mark.skipif(
    not can_make_rooms(), reason="needs root, or namespaces that this machine does not give"
)


def play(folder: Path, name: str, values: Mapping[str, object], steps: str) -> Result:
    """Run `steps`, bash in which `phase LABEL PART` runs a part of the preset, in a scratch machine."""
    (folder / "bin").mkdir()
    (folder / "over").mkdir()
    for tool, text in _STAND_INS.items():
        (folder / "bin" / tool).write_text(f"#!{BASH}\n{text}")
        (folder / "bin" / tool).chmod(0o755)
    (folder / "script.sh").write_bytes(rendering.render(catalogue.builtin()[name], values).script)
    phase = 'phase() { local code=0; bash "$ROOM/script.sh" "$2" </dev/null || code=$?; echo "$1 $code" >>"$ROOM/exits"; }\n'
    done = subprocess.run(
        [*_UNSHARE, BASH, "-c", _SETUP + phase + steps],
        env={**ENVIRONMENT, "ROOM": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=120,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output
    lines = (folder / "exits").read_text().splitlines()
    return Result({label: int(code) for label, code in (line.split() for line in lines)}, output)
