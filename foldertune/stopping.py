"""How long work is asked to stop: by Ctrl-C, by SIGTERM, or by whoever runs it in a thread."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class StopRequest:
    """Set by a signal, read between steps: `signal` is its number, or 0 while nobody has asked to stop."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take Ctrl-C and SIGTERM as requests while inside; a second Ctrl-C ends the process the usual way.

        Only the main thread may listen for signals; elsewhere nothing is changed and the caller stops the work itself.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def request(number: int, _: object) -> None:
            self.signal = number
            signal.signal(signal.SIGINT, signal.default_int_handler)

        for number in self._before:
            signal.signal(number, request)
        try:
            yield self
        finally:
            self._restore()
            self._before = {}

    @contextlib.contextmanager
    def standing_aside(self) -> Iterator[None]:
        """Let signals do at once what they did before: for work that cannot look at a request, and loses nothing when it is cut."""
        listening = {number: signal.getsignal(number) for number in self._before}
        self._restore()
        try:
            yield
        finally:
            for number, handler in listening.items():
                signal.signal(number, handler)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
