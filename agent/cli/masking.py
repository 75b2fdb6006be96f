"""What must not be cut in half by Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def no_interruption() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the end of the block; between a refresh and its saving the login would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread, which lets us finish
        return
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
