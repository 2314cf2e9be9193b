"""The command ``erasebench``: run, table, show, list, doctor, prefetch, tiny.

Each command imports what it needs when it is called, so that help and refusals are quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from erasebench.errors import UserError, suggest

COMMANDS = {
    "run": "erase, generate, score, tabulate (a Hydra app: overrides, --cfg job, -m)",
    "table": "tables of finished runs, made from their records alone",
    "show": "one image, edit or run, and all that is known of it",
    "list": "erasers, metrics, prompt sets, models, protocols, tasks: one line each",
    "doctor": "what this machine has, and which weights a config lacks",
    "prefetch": "download all that a config needs, for a machine without a network",
    "tiny": "train, sample or evaluate the embedded model",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 something found wrong, 2 bad input)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from erasebench import __version__

        print(__version__)
        return 0
    command, rest = arguments[0], arguments[1:]
    handlers: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "table": _table,
        "show": _show,
        "list": _list,
        "doctor": _doctor,
        "prefetch": _prefetch,
        "tiny": _tiny,
    }
    try:
        if command not in handlers:
            raise UserError(f"{command}: no such command.{suggest(command, COMMANDS)} Known: {', '.join(COMMANDS)}")
        return handlers[command](rest)
    except UserError as error:
        print(f"erasebench {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _usage() -> str:
    lines = [f"  {name:<9} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: erasebench COMMAND [...]",
            "",
            "Measure how well a text-to-image model forgets a concept, and what it costs the rest.",
            "",
            *lines,
            "",
            "Start with: erasebench run        (the embedded model: minutes on a laptop, no network)",
            "Each command explains itself: erasebench COMMAND --help",
        ]
    )


def _run(arguments: list[str]) -> int:
    from erasebench.app import run_command

    return run_command(arguments)


def _table(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench table", description=COMMANDS["table"])
    parser.add_argument("runs", nargs="*", help="names of runs; default: the latest. Several become one table")
    parser.add_argument("--store", default="results", help="the results folder (default: results)")
    parser.add_argument("--out", help="folder for CSV, Markdown and LaTeX; default: the run's own tables/")
    options = parser.parse_args(arguments)
    from erasebench.results import tabulate

    tabulate(options.runs, options.store, options.out)
    return 0


def _show(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench show", description=COMMANDS["show"])
    parser.add_argument("what", help="a PNG file, an image or edit key (or its first digits), or the name of a run")
    parser.add_argument("--store", default="results", help="the results folder (default: results)")
    options = parser.parse_args(arguments)
    from erasebench.show import show
    from erasebench.store import Store

    print(show(Store(options.store), options.what))
    return 0


def _list(arguments: list[str]) -> int:
    from erasebench.listing import TOPICS, listing

    parser = argparse.ArgumentParser("erasebench list", description=COMMANDS["list"])
    parser.add_argument("topic", nargs="?", help=f"one of {', '.join(TOPICS)}; default: all")
    options = parser.parse_args(arguments)
    print(listing(options.topic))
    return 0


def _doctor(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench doctor", description=COMMANDS["doctor"])
    parser.add_argument("overrides", nargs="*", help="the config to look at, as for run, e.g. model=sd14")
    options = parser.parse_args(arguments)
    from erasebench.doctor import doctor

    return doctor(options.overrides)


def _prefetch(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench prefetch", description=COMMANDS["prefetch"])
    parser.add_argument("overrides", nargs="*", help="the config to prepare, as for run, e.g. model=sd14")
    options = parser.parse_args(arguments)
    from erasebench.doctor import prefetch

    return prefetch(options.overrides)


def _tiny(arguments: list[str]) -> int:
    actions = {
        "train": "rebuild the embedded model from nothing (seeded, resumable; hours on two cores)",
        "sample": "a grid of renders beside generated images",
        "evaluate": "how well the judge recognises what the unedited model draws",
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: erasebench tiny ACTION [...]\n")
        print("\n".join(f"  {name:<9} {text}" for name, text in actions.items()))
        return 0
    action, rest = arguments[0], arguments[1:]
    if action not in actions:
        raise UserError(f"tiny {action}: no such action.{suggest(action, actions)} Known: {', '.join(actions)}")
    from importlib import import_module

    return import_module(f"erasebench.tiny.{action}").main(rest) or 0


if __name__ == "__main__":
    sys.exit(main())
