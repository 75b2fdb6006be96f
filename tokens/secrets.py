"""Node tokens as secrets: issue, parse, compare. The only code that sees one in the clear.

A token is `hbnt_`, an 8-character prefix (indexed, shown) and 43 characters of 256 random bits. Stored
are the prefix and the SHA-256 of the whole; at this entropy a plain hash is enough (ASVS 6.5.2).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Protocol

from tokens.errors import BadToken

SCHEME = "hbnt_"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_FORM = re.compile(r"hbnt_[a-z0-9]{8}[A-Za-z0-9_-]{43}")
_PREFIX = slice(len(SCHEME), len(SCHEME) + 8)


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token; `token` is never stored."""

    token: str
    prefix: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Presented:
    """What a caller showed, reduced to what may be looked up and compared."""

    prefix: str
    digest: bytes


class Stored(Protocol):
    @property
    def digest(self) -> bytes | memoryview: ...


def issue() -> Issued:
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    token = SCHEME + prefix + secrets.token_urlsafe(32)
    return Issued(token, prefix, hashlib.sha256(token.encode()).digest())


def parse(text: str) -> Presented:
    """Raises `BadToken` for anything that cannot be a node token."""
    if not _FORM.fullmatch(text):
        raise BadToken()
    return Presented(text[_PREFIX], hashlib.sha256(text.encode()).digest())


def matches(stored: Stored, presented: Presented) -> bool:
    """Constant-time comparison of the digests."""
    return hmac.compare_digest(bytes(stored.digest), presented.digest)
