"""Random secrets that are shown once: issue, parse, compare. Stored are a prefix to look up and a SHA-256.

A token is its scheme (`hbak_`), an 8-character prefix and 43 characters of 256 random bits; at this entropy a plain
hash is enough (ASVS 6.5.2).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta

from django.core import signing

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_REST = re.compile(r"([a-z0-9]{8})[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token; `token` is never stored."""

    token: str
    prefix: str
    digest: bytes


def issue(scheme: str) -> Issued:
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    token = scheme + prefix + secrets.token_urlsafe(32)
    return Issued(token, prefix, digest_of(token))


def prefix_of(scheme: str, token: str) -> str:
    """What to look up for a token that was shown; empty when it cannot be one."""
    found = _REST.fullmatch(token[len(scheme) :]) if token.startswith(scheme) else None
    return found[1] if found else ""


def matches(stored: bytes | memoryview, token: str) -> bool:
    """Constant-time comparison of the digests."""
    return hmac.compare_digest(bytes(stored), digest_of(token))


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def issue_link(purpose: str, *facts: str) -> tuple[str, bytes]:
    """The secret part of a link that works once, and what is stored of it.

    It is signed together with the facts that it stands for: whoever can write into the database cannot make one, or make
    an old one stand for something else.
    """
    secret = signing.dumps([secrets.token_urlsafe(32), *facts], salt=f"link.{purpose}")
    return secret, digest_of(secret)


def read_link(purpose: str, secret: str, *, lifetime: timedelta) -> list[str] | None:
    """The facts that a link stands for; None for anything that was not issued here, or longer ago than its lifetime."""
    try:
        _, *facts = map(str, signing.loads(secret, salt=f"link.{purpose}", max_age=lifetime))
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return facts
