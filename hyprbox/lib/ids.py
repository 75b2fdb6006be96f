"""Identifiers and addresses that every door needs."""

from __future__ import annotations

import ipaddress
import itertools
import re
import secrets
from collections.abc import Iterable, Sequence
from functools import lru_cache

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# Unique is enough, nobody has to guess: a random beginning for this process, then a number.
_PROCESS = secrets.token_hex(5)
_numbers = itertools.count()


def new_request_id(given: str | None = None) -> str:
    """The caller's own `X-Request-Id` when it is harmless, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else f"{_PROCESS}{next(_numbers):06x}"


def client_ip(peer: str, forwarded: str, trusted: Sequence[str]) -> str:
    """The socket's address, or the right-most hop of `X-Forwarded-For` that is not a trusted proxy."""
    peer = plain_ip(peer)
    networks = _networks(tuple(trusted))
    if not networks or not _inside(peer, networks):
        return peer
    for hop in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
        if _address(hop) is None:
            return peer
        if not _inside(hop, networks):
            return plain_ip(hop)
    return peer


@lru_cache(maxsize=8)
def _networks(trusted: tuple[str, ...]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(item, strict=False) for item in trusted]


def rate_key(ip: str) -> str:
    """What an address is counted under: itself, or its /64 for IPv6."""
    address = _address(ip)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return ip if address is None else str(address)


def plain_ip(text: str) -> str:
    """An IPv4 address as such, also when a socket for both kinds shows it as `::ffff:192.0.2.1`."""
    address = _address(text)
    return text if address is None else str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _inside(text: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in networks)
