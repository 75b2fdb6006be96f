from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.gate import BadBearers
from hyprbox.lib.lanes import TokenBucket
from nodes import history, ingest, rules
from tokens.guesses import Guesses


@pytest.fixture(autouse=True)
def fresh_lane(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the lane remembers in this process is forgotten before each test."""
    monkeypatch.setattr(ingest, "_by_token", TokenBucket())
    monkeypatch.setattr(ingest, "_without_token", TokenBucket(rate=5, burst=15))
    monkeypatch.setattr(ingest, "_guesses", Guesses())
    monkeypatch.setattr(BadBearers, "_schedule", lambda self: None)  # other processes hear nothing of it
    monkeypatch.setattr(ingest, "_anonymous", {})
    monkeypatch.setattr(ingest.writer, "_away_until", 0.0)
    yield


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server started long ago, so silence counts."""
    monkeypatch.setattr(rules, "is_settling", lambda: False)


@pytest.fixture
def partitions(db: None) -> None:
    """Enough of the past to write history into."""
    now = timezone.now()
    history.make_partitions(now - timedelta(days=10), now + timedelta(days=1))
