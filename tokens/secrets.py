"""Node tokens as secrets: issue, parse, compare. Nothing else of this app sees one in the clear.

A token is `hbnt_`, an 8-character prefix (indexed, shown) and 43 characters of 256 random bits. Stored
are the prefix and the SHA-256 of the whole (`hyprbox.lib.opaque`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Protocol

from hyprbox.lib import opaque
from tokens.errors import BadToken

SCHEME = "hbnt_"


@dataclass(frozen=True, slots=True)
class Presented:
    """What a caller showed, reduced to what may be looked up and compared."""

    prefix: str
    digest: bytes


class Stored(Protocol):
    @property
    def digest(self) -> bytes | memoryview: ...


def issue() -> opaque.Issued:
    return opaque.issue(SCHEME)


def parse(text: str) -> Presented:
    """Raises `BadToken` for anything that cannot be a node token."""
    prefix = opaque.prefix_of(SCHEME, text)
    if not prefix:
        raise BadToken()
    return Presented(prefix, opaque.digest_of(text))


def matches(stored: Stored, presented: Presented) -> bool:
    """Constant-time comparison of the digests."""
    return hmac.compare_digest(bytes(stored.digest), presented.digest)
