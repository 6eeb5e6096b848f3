"""Signals that end a run: results so far are kept, and a write that was begun is finished."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

#: A batch system may send the signal to every process of a job and to its group: what arrives within this
#: many seconds of the first is the same request, and must not end the writing that it has caused.
_SAME_REQUEST = 1.0
#: Seconds that somebody who has pressed Ctrl-C does not notice.
_FELT = 0.1


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM, as batch systems and `kill` send it, raises `KeyboardInterrupt`, as Ctrl-C does.

    Only in the main thread, which is the only one that gets signals, and only where SIGTERM would end the
    process: a program that handles it, or ignores it, goes on doing so. The handler is restored.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    first = -float("inf")

    def interrupt(number, frame):
        nonlocal first
        now = time.monotonic()
        if now - first > _SAME_REQUEST:
            first = now
            raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def in_turn(launch: Callable[[int], Any], starts: Iterable[int]) -> Iterator[Any]:
    """The results of `launch(start)`, each computed, the next under way while one is handed out.

    Where a launch comes back with its result, as on CPUs, that is handed out before the next launch; and
    a signal that comes during a long launch waits until its result has been handed out: what was computed
    is not lost to an interruption. (The first launch, which compiles, may be interrupted.)
    """
    starts = iter(starts)
    start = next(starts, None)
    current = None if start is None else launch(start)
    waited, launched, interruption = float("inf"), 0.0, None
    while start is not None:
        start, ahead = next(starts, None), None
        if start is not None and interruption is None and not _is_ready(current):
            ahead = launch(start)
        began = time.monotonic()
        _wait_for(current, patiently=waited < _FELT)
        waited = time.monotonic() - began
        yield current
        if interruption is not None:
            raise interruption
        current = ahead
        if ahead is None and start is not None:
            began = time.monotonic()
            try:
                with signals_held() if launched > _FELT else contextlib.nullcontext():
                    current = launch(start)
                launched = time.monotonic() - began
            except KeyboardInterrupt as error:
                if current is None or not _is_ready(current):
                    raise
                interruption = error


def _is_ready(arrays: Any) -> bool:
    return all(array.is_ready() for array in jax.tree.leaves(arrays))


def _wait_for(arrays: Any, *, patiently: bool) -> None:
    """Return when all is computed. Inside JAX no signal is seen before that, which is no matter where it
    does not take long."""
    while not patiently and not _is_ready(arrays):
        time.sleep(_FELT / 5)
    jax.block_until_ready(arrays)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block has ended; a second Ctrl-C does not."""
    if not _in_main_thread():
        yield
        return
    waiting: list[int] = []

    def hold(number, frame):
        if number == signal.SIGINT and number in waiting:
            raise KeyboardInterrupt
        waiting.append(number)

    # A handler that was not set from Python (None) could not be restored.
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler is not None}
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(waiting):
            signal.raise_signal(number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
