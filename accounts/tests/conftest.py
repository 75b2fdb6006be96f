"""What tests about people share."""

from __future__ import annotations

import pytest

from accounts.tests.apps import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)
