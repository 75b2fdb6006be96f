"""Authenticator apps for tests: a clock that the test moves, and people who have an app."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pyotp
import pytest

from accounts import factors
from accounts.models import User
from hyprbox.lib.actors import Actor
from tests import factories
from tests.client import ApiClient
from tests.factories import PASSWORD

SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
NOBODY = Actor.anonymous(ip="127.0.0.1")


class Clock:
    """The time of the codes; the test moves it, since each code works once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset = 0.0
        self._started = time.time() // 30 * 30 + 10  # it stands still, inside a step
        monkeypatch.setattr(factors, "time", SimpleNamespace(time=self.now))

    def now(self) -> float:
        return self._started + self.offset

    def code(self, steps: int = 0) -> str:
        return pyotp.TOTP(SEED).at(int(self.now()) + 30 * steps)

    def next(self) -> str:
        """A code that was not used yet."""
        self.offset += 30
        return self.code()


def give_app(user: User, clock: Clock) -> list[str]:
    """The user has an app from now on. Returns the recovery codes."""
    _, codes = factors.add_totp(by=factories.as_actor(user), seed=SEED, code=clock.next())
    user.refresh_from_db()
    return codes


def log_in(api: ApiClient, user: User, otp: str | None = None) -> Any:
    body = {"email": user.email, "password": PASSWORD}
    return api.post("/api/auth/login", body if otp is None else {**body, "otp": otp})


def bearer(answer: Any) -> ApiClient:
    assert answer.status_code == 200, answer.content
    return ApiClient(f"Bearer {answer.json()['access']}")
