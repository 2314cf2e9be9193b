"""What a terminal, a pipe, a full disk or a signal may do to a command, and what the command then does.

Work is never lost to its own output: text that cannot be shown is spelt otherwise, output that nobody takes is
dropped and the work goes on, and a request to stop ends a command as Ctrl-C does.
"""

from __future__ import annotations

import codecs
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

SPELT = {
    "↓": "v", "↑": "^", "–": "-", "−": "-", "·": ".", "…": "...", "✓": "+", "✗": "x", "“": '"', "”": '"', "×": "x",
    "─": "-", "\u00a0": " ",
}  # fmt: skip
"""Signs of tables as an encoding without them shows them. Other text is shown by its code (``\\xe9``)."""

SAME_REQUEST_SECONDS = 5.0
"""A signal that comes again so soon is one request to stop: a closing terminal may send SIGHUP twice."""


class StopRequested(KeyboardInterrupt):
    """SIGTERM or SIGHUP: stop as for Ctrl-C.

    Attributes:
        status: the exit status that shells give such an end, 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def stops_on_signals() -> Iterator[None]:
    """Inside the block SIGTERM (a cluster's time limit) and SIGHUP (a closed terminal) raise :class:`StopRequested`.

    A signal that somebody handles or ignores (``nohup``) is left alone.
    """
    last: dict[int, float] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        before, last[number] = last.get(number), time.monotonic()
        if before is None or last[number] - before > SAME_REQUEST_SECONDS:
            raise StopRequested(number)

    changed = []
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
        changed = [number for number in numbers if number and signal.getsignal(number) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The error handler of output: see :data:`SPELT`."""
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    codes = (SPELT.get(sign) or sign.encode("ascii", "backslashreplace").decode("ascii") for sign in signs)
    return "".join(codes), error.end


codecs.register_error("erasebench.spell", _spell)


class SteadyStream:
    """A text stream whose writes do not fail: after the first error what is written is dropped.

    Attributes:
        lost: the error that ended it, if any.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, or drop; returns the length of the text."""
        if self.lost is None:
            try:
                self.stream.write(text)
            except OSError as error:
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or note that the text was lost."""
        if self.lost is None:
            try:
                self.stream.flush()
            except OSError as error:
                self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.lost = error
        # What waits in buffers is flushed when Python ends, and must find a place to go.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    @property
    def complaint(self) -> str:
        """Why output was lost. A reader that went away (``| head``) has read what it wanted: that is no loss."""
        return "" if self.lost is None or self.lost.errno == errno.EPIPE else self.lost.strerror or str(self.lost)


@contextmanager
def steady_output() -> Iterator[SteadyStream | None]:
    """Inside the block writing to standard output and error does not fail; gives the former, ``None`` if it is closed."""
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    errors = {name: stream.errors for name, stream in streams.items() if hasattr(stream, "reconfigure")}
    for name in errors:
        streams[name].reconfigure(errors="erasebench.spell")
    for name, stream in streams.items():
        setattr(sys, name, SteadyStream(stream) if stream is not None else None)
    try:
        yield sys.stdout  # type: ignore[misc]
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)
            if name in errors:
                with suppress(OSError, ValueError):  # it flushes, and the stream may be lost or closed by now
                    stream.reconfigure(errors=errors[name])
