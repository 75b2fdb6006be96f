"""`script/prove`: random values through rendering and bash, then the fault harness at length.

Exit code 0 without a violation, 1 with one, 2 when the harness itself failed and there is no verdict, 130 after a second Ctrl-C.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from presets.tests.values import drive
from tests.faults.campaign import Campaign
from tests.faults.stack import stack


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/prove", description="Run jobs while everything is killed and cut.")
    parser.add_argument("--seed", type=int, help="the same choices again (default: a new one, printed)")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults go on (default 10; 0: none)")
    parser.add_argument(
        "--values",
        type=int,
        default=200_000,
        metavar="N",
        help="so many random values go through rendering and bash (default 200000; 0: none)",
    )
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
    print(f"Seed {seed}, {given.values:,} values, {given.minutes:g} minutes. Ctrl-C ends it earlier.", flush=True)
    try:
        if not _values_arrive(given.values, seed, stop):
            return 1
        if given.minutes <= 0 or stop.is_set():
            return 0
        with stack(nodes=("north", "south", "west"), concurrency=2, seed=seed) as made:
            verdict = Campaign(made, seed, with_backlog=True, stop=stop).run(seconds=given.minutes * 60)
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


def _values_arrive(count: int, seed: int, stop: threading.Event) -> bool:
    """Whether every value reached bash byte for byte, and none of them ran."""
    if count <= 0:
        return True
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hyprbox-values-") as folder:
        driven, violations = drive(Path(folder), count, seed, stopped=stop.is_set)
    for sentence in violations[:20]:
        print(f"VIOLATION: {sentence}", file=sys.stderr, flush=True)
    print(
        f"{driven:,} values through rendering and bash in {time.monotonic() - began:.0f} s: {len(violations)} violations.",
        flush=True,
    )
    return not violations


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
