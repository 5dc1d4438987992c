"""Progress for two readers: a bar when a person watches, sparse plain lines when nobody does.

A notebook run by papermill keeps a widget frozen at 0 % and a text bar as hundreds of lines, so a
headless run prints a line instead: every ten seconds at first, every minute in a long run.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar, overload

Item = TypeVar("Item")
Note = Callable[[], str]


@overload
def progress(items: int, label: str, done: int = 0, note: Note | None = None) -> Iterator[int]: ...
@overload
def progress(
    items: Iterable[Item], label: str, done: int = 0, note: Note | None = None
) -> Iterator[Item]: ...
def progress(items: Any, label: str, done: int = 0, note: Note | None = None) -> Iterator[Any]:
    """Iterate over ``items`` (an int counts up to it), showing how far it is, how fast, how long.

    ``done`` of them were finished earlier, by a run that this one resumes: an int counts on from
    there, an iterable holds the rest. ``note`` tells what else to show, asked when it is shown.
    A loop that is not ours advances it with ``next(ticks, None)``, a call before each step and one
    at the end.
    """
    if isinstance(items, int):
        items = range(done, items)
    total = done + len(items) if isinstance(items, Sized) else None
    show = _bar if is_watched() else _lines
    return show(items, label, done, total, note or str)


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


def _bar(
    items: Iterable[Item], label: str, done: int, total: int | None, note: Note
) -> Iterator[Item]:
    from tqdm.auto import tqdm

    bar = tqdm(items, desc=label, initial=done, total=total)
    for item in bar:
        yield item
        bar.set_postfix_str(note(), refresh=False)


def _lines(
    items: Iterable[Item], label: str, done: int, total: int | None, note: Note
) -> Iterator[Item]:
    start, first = time.monotonic(), done
    elapsed = last_line = 0.0
    for done, item in enumerate(items, start=first + 1):
        yield item
        elapsed = time.monotonic() - start
        due = elapsed - last_line >= min(max(elapsed / 10, 10), 60)
        if (done == first + 1 or due) and done != total:
            _say(label, done, total, _pace(done - first, elapsed), elapsed, note())
            last_line = elapsed
    _say(label, done, done, _pace(done - first, elapsed), elapsed, note())


def _pace(steps: int, seconds: float) -> float:
    return steps / seconds if seconds > 0 else 0.0


def _say(label: str, done: int, total: int | None, rate: float, seconds: float, note: str) -> None:
    share = f"/{total} ({done / max(total, 1):.0%})" if total is not None else " done"
    parts = [f"{done}{share}", _span(seconds)]
    if rate > 0:
        parts.append(f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each")
    if total is not None and rate > 0 and done < total:
        parts.append(f"about {_span((total - done) / rate)} left")
    parts += [note] if note else []
    print(f"{label}: {', '.join(parts)}", flush=True)


def _span(seconds: float) -> str:
    """Seconds, or hours and minutes where there are two minutes or more."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f} h"
