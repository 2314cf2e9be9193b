"""Progress with an estimate: a bar in a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console

LINE_SECONDS = 10.0
"""How often a line is printed where there is no terminal (a log file, a cluster job)."""


def duration(seconds: float) -> str:
    """A length of time as people say it: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Shows how far a loop is, while its ``with`` block lasts.

    Args:
        label: what is being done, e.g. ``generating``.
        total: how many things there are. With 0, nothing is shown.
        unit: what is counted, in the plain lines.
        console: where to show it; standard error by default, so that tables can be piped.

    Example:
        >>> with Progress("scoring", 3) as progress:
        ...     for _ in range(3):
        ...         progress.advance()
    """

    def __init__(self, label: str, total: int, unit: str = "images", console: Console | None = None) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.console = console or Console(stderr=True)
        self.done = 0
        self._bar: bars.Progress | None = None

    def __enter__(self) -> Progress:
        self._start = self._last = time.monotonic()
        if self.total > 0 and self.console.is_terminal:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}", markup=False),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TimeElapsedColumn(),
                bars.TextColumn("left"),
                # The speed of the last ten minutes: a step of many images may take minutes.
                bars.TimeRemainingColumn(),
                console=self.console,
                speed_estimate_period=600,
            )
            self._bar.add_task(self.label, total=self.total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1) -> None:
        """Say that so many more things are done."""
        self.done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
        elif self.total > 0:
            self._line()

    def _line(self) -> None:
        """Print where we are, if the last line is ten seconds old or all is done."""
        now = time.monotonic()
        if now - self._last < LINE_SECONDS and self.done < self.total:
            return
        self._last = now
        taken = now - self._start
        if self.done >= self.total:
            left = f"took {duration(taken)}"
        else:
            left = f"about {duration(taken / max(self.done, 1) * (self.total - self.done))} left"
        share = 100 * self.done / self.total
        line = f"{self.label}: {self.done:,} of {self.total:,} {self.unit} ({share:.0f} %), {left}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
