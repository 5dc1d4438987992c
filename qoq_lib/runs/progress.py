"""Progress for two readers: a bar when a person watches, sparse plain lines when nobody does.

A notebook run by papermill keeps a widget frozen at 0 % and a text bar as hundreds of lines, so a
headless run prints a line every ten seconds instead.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar, overload

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


@overload
def progress(items: int, label: str) -> Iterator[int]: ...
@overload
def progress(items: Iterable[Item], label: str) -> Iterator[Item]: ...
def progress(items: Any, label: str) -> Iterator[Any]:
    """Iterate over ``items`` (an int counts up to it), showing how far it is, how fast, how long.

    A loop that is not ours advances it with ``next(ticks, None)``, a call per step and one at the
    end.
    """
    if isinstance(items, int):
        items = range(items)
    if is_watched():
        from tqdm.auto import tqdm

        return iter(tqdm(items, desc=label))
    return _lines(items, label)


def is_watched() -> bool:
    """Whether a person is looking: a JupyterLab session (papermill sets no such name) or a tty."""
    return "JPY_SESSION_NAME" in os.environ or sys.stderr.isatty()


def still_bars_off() -> None:
    """Headless, turn off the bars of the Hugging Face libraries: they would stay frozen at 0 %."""
    if is_watched():
        return
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")  # for what is imported later
    if datasets := sys.modules.get("datasets"):
        datasets.disable_progress_bars()
    if logging := sys.modules.get("transformers.utils.logging"):
        logging.disable_progress_bar()


def _lines(items: Iterable[Item], label: str) -> Iterator[Item]:
    total = len(items) if isinstance(items, Sized) else None
    start = last_line = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        due = now - last_line >= SECONDS_BETWEEN_LINES
        if (done == 1 or due) and done != total:
            _say(label, done, total, now - start)
            last_line = now
    _say(label, done, done, time.monotonic() - start)


def _say(label: str, done: int, total: int | None, seconds: float) -> None:
    rate = done / seconds if seconds > 0 else 0.0
    parts = [
        f"{done}/{total} ({done / max(total, 1):.0%})" if total is not None else f"{done} done"
    ]
    parts.append(f"{seconds:.0f} s")
    if rate > 0:
        parts.append(f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each")
    if total is not None and rate > 0 and done < total:
        parts.append(f"about {(total - done) / rate:.0f} s left")
    print(f"{label}: {', '.join(parts)}", flush=True)
