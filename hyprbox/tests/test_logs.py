"""What is called like a secret, or looks like one, is in no log line."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.conf import settings

from hyprbox.lib.logs import HIDDEN, redact, scrub

TOKEN = "hbnt_abcdefgh" + "x" * 43
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
LINK = "WyJzZWNyZXQiLCJhQGIuY2QiXQ:1wHx2y:abcdefghijklmnopqrstuvwxyz0"
HIDDEN_TEXTS = [
    (f"agent showed {TOKEN}, twice", TOKEN),
    ("hbak_abcdefgh" + "y" * 43, "hbak_"),
    (f"Authorization: Bearer {JWT}", JWT),
    (f"got {JWT}.", JWT),
    ("Authorization: Basic b3R0bzpzZWNyZXQ=", "b3R0bzp"),
    ("Cookie: hb_csrf=aaaa; hb_session=bbbb; hb_token=cccc", "bbbb"),
    ("set-cookie: hb_session=bbbb; Path=/", "bbbb"),
    ("password=hunter2&next=/", "hunter2"),
    ('{"password": "correct horse battery", "x": 1}', "horse"),
    ("{'new_password': 'correct horse battery'}", "horse"),
    ("otp=123456 from 10.0.0.1", "123456"),
    ("postgresql://hyprbox:hunter2@db/hyprbox is away", "hunter2"),
    ("https://ghp_hunter2@git.example/repo: 403", "ghp_"),
    (f"GET /reset/{LINK}/ failed", LINK),
    (f"http://127.0.0.1:8000/invitation/{LINK}/", LINK),
]
SHOWN_TEXTS = ["job 7f3 on web-1 ended", "GET /reset/ 200", "at 12:30:11 UTC", "user:ada@example.com", "token.revoked"]
SHOWN_TEXTS += ["https://hyprbox.example/people?q=ada@example.com"]


@pytest.mark.parametrize(("text", "secret"), HIDDEN_TEXTS)
def test_a_text_is_scrubbed(text: str, secret: str) -> None:
    assert secret not in scrub(text)
    assert HIDDEN in scrub(text)


@pytest.mark.parametrize("text", SHOWN_TEXTS)
def test_everything_else_stays(text: str) -> None:
    assert scrub(text) == text


def test_values_of_every_kind_are_scrubbed() -> None:
    given: dict[str, Any] = {
        "password": "hunter2",
        "detail": {"otp": 123456, "seen": [TOKEN, {"note": JWT}], "client_secret": b"hunter2"},
        "error": ValueError(f"bad {TOKEN}"),
        "raw": TOKEN.encode(),
        "count": 3,
        "is_new": True,
        "node": None,
    }
    told = redact(None, "info", given)
    text = json.dumps(told)
    assert not any(secret in text for secret in ("hunter2", TOKEN, JWT))
    assert (told["count"], told["is_new"], told["node"]) == (3, True, None)
    assert told["detail"]["otp"] == HIDDEN


def test_the_log_as_it_is_set_up_shows_no_exceptions_secrets() -> None:
    formatter = settings.LOGGING["formatters"]["json"]
    made = formatter["()"](processors=formatter["processors"], foreign_pre_chain=formatter["foreign_pre_chain"])
    try:
        raise RuntimeError(f"cannot connect to postgresql://u:hunter2@db with {TOKEN}")
    except RuntimeError as error:
        info = (RuntimeError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed for %s", ("password=hunter2",), info)
    line = made.format(record)
    assert "hunter2" not in line and TOKEN not in line and "RuntimeError" in line
