"""What is printed while work goes on: sentences, and progress with an estimate.

Progress is a bar in a terminal, a plain line every ten seconds elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from erasebench.errors import printable

LINE_SECONDS = 10.0
"""How often a line is printed where there is no terminal (a log file, a cluster job)."""


def duration(seconds: float) -> str:
    """A length of time as people say it: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def say(console: Console, text: str, head: str = "", style: str = "bold") -> None:
    """Print a sentence as it stands. Names, prompts and paths in it are data: ``[red]`` is no colour, no sign steers the
    terminal, and a line is broken by the terminal alone, so that a command in it can be copied.

    Args:
        console: where to.
        text: the sentence.
        head: a word in front of it, which stands out.
        style: of that word.
    """
    space = " " if head and text else ""
    console.print(Text.assemble((printable(head), style), space, printable(text)), highlight=False, soft_wrap=True)


@contextmanager
def progress(
    label: str, total: int, unit: str = "images", console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Show how far a loop is; gives a function to call with the number of things just done.

    Args:
        label: what is being done, e.g. ``generate``.
        total: how many things there are. With 0, nothing is shown.
        unit: what is counted, in the plain lines.
        console: where to show it; standard error by default, so that tables can be piped.

    Example:
        >>> with progress("score", 0) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    console = console or Console(stderr=True)
    if total <= 0:
        yield lambda count: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        # The speed of the last ten minutes: one batch may take minutes.
        with Progress(*columns, console=console, speed_estimate_period=600) as bar:
            task = bar.add_task(printable(label), total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _PlainLines(label, total, unit, console)


class _PlainLines:
    """Prints a line when ten seconds have passed since the last one, and one at the end."""

    def __init__(self, label: str, total: int, unit: str, console: Console) -> None:
        self.label, self.total, self.unit, self.console = label, total, unit, console
        self.done = 0
        self.start = self.last = time.monotonic()

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last < LINE_SECONDS and self.done < self.total:
            return
        self.last = now
        taken = now - self.start
        if self.done >= self.total:
            left = f"took {duration(taken)}, {self.done / max(taken, 1e-3):.2g} a second"
        else:
            left = f"about {duration(taken / max(self.done, 1) * (self.total - self.done))} left"
        share = 100 * self.done / self.total
        line = f"{self.label}: {self.done:,} of {self.total:,} {self.unit} ({share:.0f} %), {left}"
        say(self.console, line)
