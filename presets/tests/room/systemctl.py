#!/usr/bin/python3
"""A stand-in for systemctl where no systemd runs: reads the unit files that are installed and does what they say.

It starts ExecStart= of a service, waits for the word of one that says when it is ready, and remembers the process, makes and removes the
links of WantedBy=, knows masks and drop-ins. It does not know dependencies, sockets, sandboxing, restarts and timers' times: a unit that
is no service is active once started. Every call is one line of /run/systemctl.log. `/run/units/NAME.fails` makes starting NAME fail.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ETC = Path("/etc/systemd/system")
PLACES = (ETC, Path("/run/systemd/system"), Path("/lib/systemd/system"), Path("/usr/lib/systemd/system"))
STATE = Path("/run/units")
SUFFIXES = (".service", ".timer", ".socket", ".target", ".path", ".mount", ".slice")


class Unit:
    def __init__(self, name: str) -> None:
        self.name = name if name.endswith(SUFFIXES) else f"{name}.service"
        template = self.name.split("@")[0] + "@." + self.name.rpartition(".")[2]
        found = [place / name for name in (self.name, template) for place in PLACES if os.path.lexists(place / name)]
        self.file = found[0] if found else None
        if self.file is not None and self.file.is_symlink() and not self.masked:
            self.file = self.file.resolve()
            if "@" not in self.name:
                self.name = self.file.name  # sshd.service is an alias of ssh.service
        self.state = STATE / f"{self.name}.active"

    @property
    def masked(self) -> bool:
        return self.file is not None and self.file.is_symlink() and os.readlink(self.file) == "/dev/null"

    def files(self) -> list[Path]:
        drops = [drop for place in reversed(PLACES) for drop in sorted((place / f"{self.name}.d").glob("*.conf"))]
        return ([self.file] if self.file else []) + drops

    def values(self, key: str) -> list[str]:
        """Every value of the key, in order; an empty one forgets those before it, as systemd does."""
        found: list[str] = []
        for file in self.files():
            for line in file.read_text().replace("\\\n", " ").splitlines():
                name, equals, value = line.partition("=")
                if equals and name.strip() == key:
                    found = [*found, value.strip()] if value.strip() else []
        return found

    def value(self, key: str, default: str = "") -> str:
        return (self.values(key) or [default])[-1]

    def links(self) -> list[Path]:
        named = [ETC / f"{target}.wants" / self.name for line in self.values("WantedBy") for target in line.split()]
        named += [
            ETC / f"{target}.requires" / self.name for line in self.values("RequiredBy") for target in line.split()
        ]
        return named + [ETC / alias for line in self.values("Alias") for alias in line.split()]

    def pid(self) -> int:
        try:
            pid = int(self.state.read_text() or 0)
        except (OSError, ValueError):
            return 0
        named = self.value("PIDFile")
        if named and Path(named).exists():
            pid = int(Path(named).read_text().split()[0])
        return pid

    def active(self) -> bool:
        if not self.state.exists():
            return False
        pid = self.pid()
        return pid == 0 or alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment(unit: Unit) -> dict[str, str]:
    values = dict(os.environ)
    for line in unit.values("Environment"):
        values.update(pair.split("=", 1) for pair in shlex.split(line))
    for name in unit.values("EnvironmentFile"):
        file = Path(name.lstrip("-"))
        if file.exists():
            lines = [
                line for line in file.read_text().splitlines() if "=" in line and not line.lstrip().startswith("#")
            ]
            values.update(
                (key.strip(), " ".join(shlex.split(text))) for key, text in (line.split("=", 1) for line in lines)
            )
    if unit.pid():
        values["MAINPID"] = str(unit.pid())
    return values


def words(unit: Unit, line: str, values: dict[str, str]) -> list[str]:
    found: list[str] = []
    for word in shlex.split(
        line.replace("%i", unit.name.partition("@")[2].rpartition(".")[0]).replace("%n", unit.name)
    ):
        if word.startswith("$") and word.strip("${}").isidentifier() and not word.startswith("${"):
            found.extend(values.get(word[1:], "").split())
        else:
            for key in sorted(values, key=len, reverse=True):
                word = word.replace("${" + key + "}", values[key])
            found.append(word)
    return found


def command(unit: Unit, line: str) -> tuple[list[str], dict[str, str], bool]:
    plain = line.lstrip("-@+!:")
    values = environment(unit)
    prefix: list[str] = []
    user = unit.value("User")
    if user and "+" not in line[: len(line) - len(plain)]:
        group = unit.value("Group") or str(pwd.getpwnam(user).pw_gid)
        prefix = ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups"]
    return [*prefix, *words(unit, plain, values)], values, "-" in line[: len(line) - len(plain)]


def folders(unit: Unit) -> None:
    for key, root in (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib"), ("LogsDirectory", "/var/log")):
        for name in unit.value(key).split():
            Path(root, name).mkdir(parents=True, exist_ok=True, mode=0o755)
            if unit.value("User"):
                subprocess.run(["chown", f"{unit.value('User')}:{unit.value('Group')}", f"{root}/{name}"], check=True)


def run_each(unit: Unit, key: str) -> bool:
    for line in unit.values(key):
        argv, values, forgiven = command(unit, line)
        done = subprocess.run(argv, env=values, stdin=subprocess.DEVNULL, check=False, umask=0o022)
        if done.returncode != 0 and not forgiven:
            return False
    return True


def start(unit: Unit) -> bool:
    if unit.active():
        return True
    if unit.masked or unit.file is None or (STATE / f"{unit.name}.fails").exists():
        return False
    if not unit.name.endswith(".service"):
        unit.state.write_text("0")
        return True
    folders(unit)
    if not run_each(unit, "ExecStartPre"):
        return False
    kind = unit.value("Type", "simple")
    if kind in ("forking", "oneshot"):
        done = run_each(unit, "ExecStart")
        if done and (kind == "forking" or unit.value("RemainAfterExit") in ("yes", "true")):
            unit.state.write_text("0")
        return done and run_each(unit, "ExecStartPost")
    argv, values, _ = command(unit, unit.value("ExecStart"))
    with (
        Path(f"/run/units/{unit.name}.output").open("ab") as output,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
    ):
        if kind.startswith("notify"):
            values["NOTIFY_SOCKET"] = f"/run/units/{unit.name}.notify"
            Path(values["NOTIFY_SOCKET"]).unlink(missing_ok=True)
            ready.bind(values["NOTIFY_SOCKET"])
            os.chmod(values["NOTIFY_SOCKET"], 0o666)
        process = subprocess.Popen(
            argv,
            env=values,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o022,
        )
        unit.state.write_text(str(process.pid))
        if kind.startswith("notify"):
            await_ready(ready, process)
        else:
            time.sleep(0.2)
    if process.poll() is not None:
        unit.state.unlink()
        return False
    return run_each(unit, "ExecStartPost")


def await_ready(ready: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Until the service says that it is ready, has ended, or 10 s are over: systemd would wait longer."""
    ready.settimeout(0.1)
    for _ in range(100):
        try:
            if b"READY=1" in ready.recv(4096).split(b"\n") or process.poll() is not None:
                return
        except TimeoutError:
            if process.poll() is not None:
                return


def stop(unit: Unit) -> bool:
    pid = unit.pid()
    if unit.active():
        run_each(unit, "ExecStop")
    for tick in range(100):
        if not pid or not alive(pid):
            break
        if tick in (0, 80):
            os.kill(pid, signal.SIGKILL if tick else signal.SIGTERM)
        time.sleep(0.05)
    unit.state.unlink(missing_ok=True)
    return True


def restart(unit: Unit) -> bool:
    return stop(unit) and start(unit)


def reload(unit: Unit) -> bool:
    return unit.active() and (run_each(unit, "ExecReload") if unit.values("ExecReload") else False)


def enable(unit: Unit) -> bool:
    if unit.file is None or unit.masked:
        return False
    for link in unit.links():
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if not link.is_symlink():
            link.symlink_to(unit.file)
    return True


def disable(unit: Unit) -> bool:
    for link in unit.links():
        link.unlink(missing_ok=True)
    return True


def mask(unit: Unit) -> bool:
    if os.path.lexists(ETC / unit.name):
        return False
    (ETC / unit.name).symlink_to("/dev/null")
    return True


def unmask(unit: Unit) -> bool:
    if unit.masked:
        (ETC / unit.name).unlink()
    return True


def enabled(unit: Unit) -> str:
    if unit.file is None:
        return "not-found"
    if unit.masked:
        return "masked"
    if not unit.links():
        return "static"
    return "enabled" if all(link.is_symlink() for link in unit.links()) else "disabled"


def show(unit: Unit, properties: list[str], bare: bool) -> None:
    pid = unit.pid() if unit.active() else 0
    started = (
        time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(unit.state.stat().st_mtime)) if unit.active() else ""
    )
    known = {
        "ActiveState": "active" if unit.active() else "inactive",
        "UnitFileState": enabled(unit),
        "LoadState": "masked" if unit.masked else "loaded" if unit.file else "not-found",
        "MainPID": str(pid),
        "ActiveEnterTimestamp": started,
        "FragmentPath": str(unit.file or ""),
    }
    for name in properties:
        print(known.get(name, "") if bare else f"{name}={known.get(name, '')}")


VERBS = {
    "start": start, "stop": stop, "restart": restart, "reload": reload, "enable": enable, "preset": enable, "disable": disable, "mask": mask,
    "unmask": unmask, "try-restart": lambda unit: restart(unit) if unit.active() else True,
    "reload-or-restart": lambda unit: reload(unit) or restart(unit), "condrestart": lambda unit: not unit.active() or restart(unit),
    "try-reload-or-restart": lambda unit: not unit.active() or reload(unit) or restart(unit), "reset-failed": lambda unit: True,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    STATE.mkdir(exist_ok=True, mode=0o755)
    with Path("/run/systemctl.log").open("a") as log:
        log.write(" ".join(arguments) + "\n")
    options = [word for word in arguments if word.startswith("-")]
    plain = [word for word in arguments if not word.startswith("-")]
    properties = [
        name for word in options if word.startswith(("--property=", "-p")) for name in word.partition("=")[2].split(",")
    ]
    verb, *names = plain or ["list-units"]
    units = [Unit(name) for name in names]
    quiet = "--quiet" in options or "-q" in options
    if verb in ("daemon-reload", "daemon-reexec", "preset-all", "list-units", "list-timers", "reset-failed"):
        return 0
    if verb == "is-system-running":
        print("running")
        return 0
    if verb in ("is-active", "is-enabled", "is-failed"):
        words = [enabled(unit) if verb == "is-enabled" else "active" if unit.active() else "inactive" for unit in units]
        if not quiet:
            print("\n".join(words))
        good = (
            ("enabled", "static", "alias")
            if verb == "is-enabled"
            else ("active",)
            if verb == "is-active"
            else ("failed",)
        )
        return 0 if any(word in good for word in words) else 1 if verb == "is-enabled" else 3
    if verb == "show":
        for unit in units:
            show(unit, properties, "--value" in options)
        return 0
    if verb == "cat":
        for unit in units:
            for file in unit.files():
                print(f"# {file}\n{file.read_text()}")
        return 0 if all(unit.file for unit in units) else 1
    if verb not in VERBS:
        print(f"Unknown verb {verb} of the stand-in for systemctl.", file=sys.stderr)
        return 64
    for unit in units:
        acts = [VERBS[verb]] + ([start] if verb == "enable" else [stop] if verb in ("disable", "mask") else []) * (
            "--now" in options
        )
        for act in acts:
            if not act(unit):
                print(f"Job for {unit.name} failed ({verb}).", file=sys.stderr)
                return 5 if unit.file is None else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
