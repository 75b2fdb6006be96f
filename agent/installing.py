"""`hyprnode install`: put this very file on the server as its agent. `agent.removing` takes it away again.

`install.sh` fetches and verifies the file and runs it. Everything that can be wrong is found before anything is
changed: the settings, the control plane, its keys, the token. Running jobs have processes of their own and go on.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from agent import config, processes
from agent.client import CallFailed, Client
from agent.config import BadSetting, Config
from agent.heart import single_heartbeat
from agent.keys import KeyRing, KeysUntrusted
from agent.state import ACCEPTED

UNIT = "hyprnode.service"
COMMANDS = {"hyprnode": "", "hyprbox": "SHIV_ENTRY_POINT=agent.cli:main "}
FIRST_BEAT_SECONDS = 60.0
_WRITABLE = re.compile(r"[^\x00-\x1f\x7f\"'\\]*")  # what systemd and `config.read_env_file` read alike


class CannotInstall(Exception):
    """Nothing was changed, or it says what was; one sentence for the person at the terminal."""


@dataclass(frozen=True)
class Places:
    """Where things go, below `root`."""

    root: Path = Path("/")

    @property
    def home(self) -> Path:
        return self.root / "opt/hyprnode"

    @property
    def archive(self) -> Path:
        return self.home / "hyprnode.pyz"

    @property
    def unpacked(self) -> Path:
        return self.home / "unpacked"

    @property
    def env_file(self) -> Path:
        return self.root / "etc/hyprbox/hyprnode.env"

    @property
    def unit(self) -> Path:
        return self.root / "etc/systemd/system" / UNIT

    def link(self, name: str) -> Path:
        return self.root / "usr/local/bin" / name

    @property
    def systemctl(self) -> str:
        """The program, where systemd runs; else empty."""
        return shutil.which("systemctl") or "" if (self.root / "run/systemd/system").is_dir() else ""


def install(archive: Path, environ: Mapping[str, str] = os.environ, places: Places | None = None) -> str:
    """Install `archive`, start it where systemd runs, and tell how it went. Raises `CannotInstall`, `BadSetting`."""
    places = places or Places()
    require_root("install")
    if not zipfile.is_zipfile(archive):
        raise CannotInstall(
            "This agent is not the one file that can install itself: use the control plane's install.sh."
        )
    lines = merged(_read(places.env_file), given(environ))
    settings = _settings(lines)
    lines = merged("\n".join(lines), {"HYPRBOX_NODE_ID": settings.node_id})
    _rehearse(settings)
    with _readable_by_all():  # `hyprbox` is for every account; what is secret has a mode of its own
        _place(archive, "\n".join(lines) + "\n", places)
    if not places.systemctl:
        return (
            f"{settings.node_id} is set up. There is no systemd here: keep {places.link('hyprnode')} running with what "
            f"keeps your services alive, and start it again if it runs already."
        )
    _start(settings, places)
    _forget_earlier(places)
    return f"{settings.node_id} reports to {settings.api_url}: its first heartbeat was accepted."


def given(environ: Mapping[str, str]) -> dict[str, str]:
    """The agent's settings in the environment, and the proxy that everybody here uses."""
    found = {name: environ[name] for name in config.NAMES if environ.get(name)}
    if "HYPRBOX_PROXY" not in found and (proxy := _proxy_for(found.get("HYPRBOX_API_URL", ""), environ)):
        found["HYPRBOX_PROXY"] = proxy
    for name, value in found.items():
        if not _WRITABLE.fullmatch(value):
            raise BadSetting(f"{name} has a quote, a backslash or a line break in it, which its file cannot hold.")
    return found


def _proxy_for(url: str, environ: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return ""
    proxy = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    if not proxy or proxy_bypass(parts.hostname):  # no_proxy
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def merged(text: str, values: Mapping[str, str]) -> list[str]:
    """The lines of the settings file with these values; what a person wrote beside them stays."""
    kept = [line for line in text.splitlines() if line.partition("=")[0].strip() not in values]
    return kept + [f"{name}={value}" for name, value in values.items()]


def _settings(lines: list[str]) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hyprnode.env"
        _write(path, ("\n".join(lines) + "\n").encode(), 0o600)
        return config.load({}, {}, path)


def _rehearse(settings: Config) -> None:
    """All that the agent will ask of the control plane: its keys, and whether it takes this token's heartbeat."""
    client = Client(settings)
    try:
        answer = client.get("/api/agent/keys")
        with tempfile.TemporaryDirectory() as folder:
            with contextlib.suppress(OSError):  # an agent that was here before has pinned them
                shutil.copyfile(settings.state_dir / "keys.json", Path(folder) / "keys.json")
            KeyRing(Path(folder), settings.keys_sha256).offer(answer)
        client.post("/api/nodes/heartbeat", single_heartbeat(settings))
    except KeysUntrusted as error:
        raise CannotInstall(f"{settings.api_url} is not the control plane that was promised: {error}.") from error
    except CallFailed as error:
        raise CannotInstall(_refusal(settings, error)) from error
    finally:
        client.close()


def _refusal(settings: Config, error: CallFailed) -> str:
    reason = str(error).partition(": ")[2] or str(error)
    if error.status == 401:
        return "The control plane does not take this token: it is unknown, revoked or expired. Create a new one."
    if error.code and error.status in (403, 409):
        return f"The control plane does not take this token for {settings.node_id}: {reason.partition(' ')[2]}"
    return (
        f"The control plane at {settings.api_url} does not answer as it should{_way(settings)}: {reason.rstrip('.')}."
    )


def _way(settings: Config) -> str:
    """The proxy between, without its password."""
    parts = urlsplit(settings.proxy)
    return f" through the proxy {parts.hostname}:{parts.port}" if parts.hostname else ""


@contextlib.contextmanager
def _readable_by_all() -> Iterator[None]:
    """Whatever umask root has here."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def _place(archive: Path, settings: str, places: Places) -> None:
    """Write everything beside its place, unpack it, then rename: what fails on the way leaves nothing."""
    was_there = places.home.exists()
    fresh = places.home / ".new" / places.archive.name
    contents = {places.env_file: (settings.encode(), 0o600)}
    for name, entry in COMMANDS.items():
        contents[places.home / "bin" / name] = (_launcher(places, entry).encode(), 0o755)
    if places.systemctl:
        contents[places.unit] = ((Path(__file__).parent / UNIT).read_bytes(), 0o644)
    staged: list[tuple[Path, Path]] = []
    try:
        for path, (data, mode) in contents.items():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            staged.append((path.with_name(path.name + ".new"), path))
            _write(staged[-1][0], data, mode)
        fresh.parent.mkdir(exist_ok=True)
        staged.append((fresh, places.archive))
        _write(fresh, archive.read_bytes(), 0o644)
        _unpack(fresh, places)
        for source, target in staged:
            os.replace(source, target)
    except (OSError, subprocess.SubprocessError) as error:
        for source, _ in staged:
            source.unlink(missing_ok=True)
        if not was_there:
            shutil.rmtree(places.home, ignore_errors=True)
        reason = getattr(error, "strerror", "") or "the new agent does not start"
        raise CannotInstall(f"The agent cannot be put on this server: {reason}.") from error
    fresh.parent.rmdir()
    for folder in (places.home, places.home / "bin", places.unpacked):
        folder.chmod(0o755)
    for name in COMMANDS:
        _link(places, name)


def _launcher(places: Places, entry: str) -> str:
    """Isolated (-I): no module of this server gets between. A system upgrade may move /usr/bin/python3."""
    return f'#!/bin/sh\nSHIV_ROOT={places.unpacked} {entry}exec {sys.executable} -I {places.archive} "$@"\n'


def _unpack(archive: Path, places: Places) -> None:
    environment = {"SHIV_ROOT": str(places.unpacked), "PATH": os.environ.get("PATH", "")}
    command = [sys.executable, "-I", str(archive), "--version"]
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)


def _link(places: Places, name: str) -> None:
    """A command on the PATH, unless somebody has another one by that name."""
    link, target = places.link(name), places.home / "bin" / name
    with contextlib.suppress(OSError):
        link.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(link):
            link.symlink_to(target)


def _start(settings: Config, places: Places) -> None:
    accepted = settings.state_dir / ACCEPTED
    accepted.unlink(missing_ok=True)
    for verb in (["daemon-reload"], ["enable", "--quiet", UNIT], ["restart", UNIT]):
        answer = subprocess.run([places.systemctl, *verb], capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            said = (answer.stderr.strip().splitlines() or ["it does not say why"])[-1]
            raise CannotInstall(f"The agent is in place, but `systemctl {' '.join(verb)}` failed: {said}")
    deadline = time.monotonic() + FIRST_BEAT_SECONDS
    while not accepted.exists():
        if time.monotonic() > deadline:
            raise CannotInstall(
                "The agent is in place and started, but its first heartbeat was not accepted within a minute: see "
                "`journalctl -u hyprnode`."
            )
        time.sleep(0.1)


def _forget_earlier(places: Places) -> None:
    """Unpacked packages of earlier versions, but not what the runner of a job still uses."""
    current = Path(__file__).resolve().parent.parent.parent.name
    in_use = "\n".join(processes.command_lines())
    for folder in places.unpacked.glob(f"{places.archive.name}_*"):
        if folder.name != current and str(folder) not in in_use:
            shutil.rmtree(folder, ignore_errors=True)


def require_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise CannotInstall(f"`hyprnode {verb}` changes the system: run it as root.")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise CannotInstall(f"{path} cannot be read: {error}.") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)
