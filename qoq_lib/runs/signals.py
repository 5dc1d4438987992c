"""SIGTERM, with which a scheduler announces that it will take the machine back."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def on_sigterm(act: Callable[[], object]) -> Iterator[None]:
    """SIGTERM calls ``act``, and nothing else, in this block; after it, it acts as before.

    Signals reach the main thread alone: in another thread the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def hand_down(parent: int | None = None) -> None:
    """Send SIGTERM to the children of process ``parent``; ``None``: to those of this one."""
    try:
        children = psutil.Process(parent).children()
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            child.terminate()
        except psutil.NoSuchProcess:  # it ended by itself meanwhile
            continue
