"""A real agent with less patience: `python -m tests.faults.host`. A minute of back-off would make tests of minutes hours."""

from __future__ import annotations

import sys

from agent import client, daemon

client.MAX_BACKOFF_SECONDS = 2.0
client.MAX_UNAUTHORISED_SECONDS = 2.0
client.SPREAD_SECONDS = 1.0

if __name__ == "__main__":
    sys.exit(daemon.main())
