"""Temporary folders for what runs as another account."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_folder(name: str) -> Iterator[Path]:
    """A folder that the account which runs PostgreSQL for root may enter, gone at the end.

    Not one of pytest's: those are closed, and every further run of pytest closes what is above all of them.
    """
    made = Path(tempfile.mkdtemp(prefix=f"hyprbox-{name}-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
