"""Rooms for presets that change a system: see root.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from presets.tests import root


@pytest.fixture(scope="session")
def debian() -> Path:
    """The Debian tree, made by the first run that needs it."""
    try:
        return root.make_template()
    except root.NoRoom as error:
        pytest.skip(str(error))


@pytest.fixture
def room(debian: Path, tmp_path: Path) -> root.Room:
    """Fresh copies of a small Debian to run presets in."""
    return root.Room(debian, tmp_path)


@pytest.fixture(scope="session")
def debian_server() -> Path:
    """The Debian tree with systemd and more packages, made by the first run that needs it."""
    try:
        return root.make_template(booted=True)
    except root.NoRoom as error:
        pytest.skip(str(error))


@pytest.fixture
def server(debian_server: Path, tmp_path: Path) -> root.Room:
    """Fresh copies of a Debian whose own systemd boots."""
    return root.Room(debian_server, tmp_path, booted=True)
