"""The command ``erasebench``: names its verbs, and turns what stops one into a sentence and an exit status.

A verb is a module of :mod:`erasebench.commands`. It is imported when it is called, so that help and refusals are quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from erasebench.commands import VERBS
from erasebench.commands.terminal import StopRequested, steady_output, stops_on_signals
from erasebench.errors import UserError, printable, suggest

ON_WINDOWS = "it runs on Linux and macOS, and not on Windows itself; install WSL (wsl --install) and give the same commands in its shell"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: done. 1: done in part, or something was found wrong, or output was lost. 2: bad input. 130, 143, 129: stopped by
    Ctrl-C, SIGTERM, SIGHUP.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with steady_output() as output:
        status = _status(arguments)
        if output is not None:
            output.flush()
            if output.complaint:
                print(
                    f"erasebench: what was printed could not be written ({output.complaint}); the work itself is kept",
                    file=sys.stderr,
                )
                status = status or 1
    return status


def _status(arguments: list[str]) -> int:
    """Do what is asked for."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from erasebench import __version__

        print(__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    try:
        if sys.platform == "win32":  # whole files are renamed into place while others read them, which Windows refuses
            raise UserError(ON_WINDOWS)
        if verb not in VERBS:
            raise UserError(f"{verb}: no such command.{suggest(verb, VERBS)} Known: {', '.join(VERBS)}")
        with stops_on_signals():
            return import_module(f"erasebench.commands.{verb}").main(rest)
    except UserError as error:
        print(printable(f"erasebench {verb}: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("stopped; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return stop.status if isinstance(stop, StopRequested) else 130


def _usage() -> str:
    return "\n".join(
        [
            "usage: erasebench COMMAND [...]",
            "",
            "Measure how well a text-to-image model forgets a concept, and what it costs the rest.",
            "",
            *(f"  {verb:<11} {text}" for verb, text in VERBS.items()),
            "",
            "Start with: erasebench run        (the embedded model: minutes on a laptop, no network)",
            "Each command explains itself: erasebench COMMAND --help",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
