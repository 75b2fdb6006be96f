"""`script/prove`: the fault harness at length.

Exit code 0 without a violation, 1 with one, 2 when the harness itself failed and there is no verdict, 130 after a second Ctrl-C.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType

from tests.faults.campaign import Campaign
from tests.faults.stack import stack


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/prove", description="Run jobs while everything is killed and cut.")
    parser.add_argument("--seed", type=int, help="the same choices again (default: a new one, printed)")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(2**31) if given.seed is None else given.seed
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # the second time: at once, and without a verdict
        print("Stopping: what was ordered is seen to its end; once more to stop at once.", flush=True)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    print(f"Seed {seed}, {given.minutes:g} minutes. Ctrl-C ends it earlier.", flush=True)
    try:
        with stack(nodes=("north", "south", "west"), concurrency=2, seed=seed) as made:
            verdict = Campaign(made, seed, stop=stop).run(seconds=given.minutes * 60)
            print(verdict.text(), flush=True)
            if verdict.violations:
                print(made.last_words(), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("Stopped without a verdict.", flush=True)
        return 130
    except Exception:  # noqa: BLE001 - whatever it was, it is no violation and must not look like one
        traceback.print_exc()
        print("No verdict: the harness failed, see above.", flush=True)
        return 2
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
