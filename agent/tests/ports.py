"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MANY = 12_000


def free_port() -> int:
    """One that nobody listens on, and none that the kernel gives to outgoing connections.

    From those a server that is down for a moment may lose its port to any client on the machine, even to one that keeps
    trying to reach it.
    """
    first = int(_RANGE.read_text().split()[0])
    for port in random.SystemRandom().sample(range(max(1024, first - _MANY), first), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"a hundred ports below {first} are all taken")
