"""`hyprnode uninstall`: take the agent away again, all but the journal of executed jobs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from agent import config, processes
from agent.config import BadSetting
from agent.installing import COMMANDS, UNIT, CannotInstall, Places, require_root
from agent.journal import Journal, remove_spool


def uninstall(places: Places | None = None, *, force: bool = False) -> str:
    """Remove all but the journal of executed jobs. Raises `CannotInstall` while jobs run, unless `force`."""
    places = places or Places()
    require_root("uninstall")
    if not places.home.exists() and not places.env_file.exists():
        raise CannotInstall("HyprBox's agent is not installed here.")
    state_dir = _state_dir(places)
    running = _running_jobs(state_dir)
    if running and not force:
        what = "1 job runs" if running == 1 else f"{running} jobs run"
        raise CannotInstall(f"{what} here: wait for the end, cancel it on the control plane, or add --force.")
    _require_stoppable(places, state_dir)
    if places.systemctl and places.unit.exists():
        subprocess.run([places.systemctl, "disable", "--quiet", "--now", UNIT], capture_output=True, check=False)
    places.unit.unlink(missing_ok=True)
    if places.systemctl:
        subprocess.run([places.systemctl, "daemon-reload"], capture_output=True, check=False)
    for name in COMMANDS:
        link = places.link(name)
        if link.is_symlink() and os.readlink(link) == str(places.home / "bin" / name):
            link.unlink()
    places.env_file.unlink(missing_ok=True)
    shutil.rmtree(places.home, ignore_errors=True)
    said = ["HyprBox's agent is removed.", _clear_state(state_dir)]
    folder = places.env_file.parent
    with contextlib.suppress(OSError):
        folder.rmdir()
    if folder.exists():  # secrets for presets, or the control plane's own settings
        said.append(f"What else is in {folder} stays, too.")
    return " ".join(filter(None, said))


def _require_stoppable(places: Places, state_dir: Path) -> None:
    """Without systemd somebody else keeps it running, and it would write its folder anew."""
    if places.systemctl and places.unit.exists():
        return
    try:
        handle = os.open(state_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotInstall("The agent runs here: stop it first, and whatever starts it again.") from None
    finally:
        os.close(handle)


def _state_dir(places: Places) -> Path:
    with contextlib.suppress(BadSetting):
        told = config.read_env_file(places.env_file).get("HYPRBOX_STATE_DIR", "")
        if told:
            return Path(told)
    return places.root / config.DEFAULT_STATE_DIR.lstrip("/")


def _running_jobs(state_dir: Path) -> int:
    if not (state_dir / "jobs").is_dir():
        return 0
    records = [folder.read("exec") for folder in Journal(state_dir).unfinished() if not folder.has("result")]
    return sum(1 for it in records if it and processes.is_alive(int(it["pid"]), int(it["start_time"])))


def _clear_state(state_dir: Path) -> str:
    """Everything but the journal: it is what keeps a job from ever running twice here."""
    for path in list(state_dir.iterdir()) if state_dir.is_dir() else ():
        if path.name != "jobs":
            path.unlink() if path.is_file() or path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
    journal = state_dir / "jobs"
    for folder in Journal(state_dir).folders() if journal.is_dir() else ():
        remove_spool(folder.path)  # what jobs wrote is no record of what was executed
    if journal.is_dir() and any(journal.iterdir()):
        return f"What it executed stays recorded in {journal}."
    shutil.rmtree(state_dir, ignore_errors=True)
    return ""
