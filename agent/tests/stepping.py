"""The agent, or a runner, on a host whose clock somebody sets: `python -m agent.tests.stepping CLOCK_FILE daemon|runner ...`

The file holds the seconds that the wall clock is ahead; the clocks that a step does not touch stay as they are.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

CLOCK = Path(sys.argv[1])
real = time.time


def stepped() -> float:
    try:
        return real() + float(CLOCK.read_text())
    except ValueError:  # read while it is written
        return real()


if __name__ == "__main__":
    time.time = stepped
    from agent import daemon, runner

    sys.exit(runner.main(sys.argv[3:]) if sys.argv[2] == "runner" else daemon.main(sys.argv[3:]))
