from __future__ import annotations

import pytest

from audit import checkpoints


@pytest.fixture(autouse=True)
def fresh_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process remembers of other tests' databases is forgotten."""
    monkeypatch.setattr(checkpoints, "newest", checkpoints.Newest())
