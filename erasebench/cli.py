"""The command ``erasebench``: run, tune, table, report, compare, show, list, export, apply, doctor, prefetch, tiny.

Each command imports what it needs when it is called, so that help and refusals are quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from erasebench.errors import UserError, suggest

COMMANDS = {
    "run": "erase, generate, score, tabulate (a Hydra app: overrides, --cfg job, -m)",
    "tune": "look for an eraser's best setting by a stated objective (with Optuna)",
    "table": "tables of finished runs, made from their records alone",
    "report": "a folder of pages about finished runs: tables, figures, images; opens in any browser, offline",
    "compare": "several runs in one table and one report, e.g. one's own eraser beside the baselines",
    "show": "one image, edit, run or protocol, and all that is known of it",
    "list": "erasers, metrics, prompt sets, models, protocols, tasks: one line each",
    "export": "an edit as a LoRA, a diffusers folder or changed weights, with a model card",
    "apply": "edits onto any model whose weights they fit, as a diffusers folder",
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
        "tune": _tune,
        "table": _table,
        "report": _report,
        "compare": _compare,
        "show": _show,
        "list": _list,
        "export": _export,
        "apply": _apply,
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
    from erasebench.commands.run_app import run_command

    return run_command(arguments)


def _tune(arguments: list[str]) -> int:
    from erasebench.commands.tune import SETTINGS, tune

    if not arguments or {"-h", "--help"} & set(arguments):
        lines = [
            "usage: erasebench tune VARIED [objective=EXPRESSION] [trials=NUMBER] [overrides as for run]",
            "",
            COMMANDS["tune"][0].upper() + COMMANDS["tune"][1:] + ".",
            "",
            *(f"  {name + '=':<12} {text}" for name, text in SETTINGS.items()),
            "",
            "  erasebench tune sweep=cure_alpha task=object trials=6",
            "  erasebench tune method=cure 'method.alpha=tag(log, interval(0.5, 20))' task=artist",
            "  erasebench tune method=rece method.epochs=1,3,5 objective='judge.retained - 2 * judge.erased'",
            "",
            "Rates are between 0 and 1. Each trial is a run; the same command goes on where it was stopped.",
        ]
        print("\n".join(lines))
        return 0
    tune(arguments)
    return 0


def _table(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench table", description=COMMANDS["table"])
    parser.add_argument(
        "runs", nargs="*", help="names of runs, or of a sweep; default: the latest run. Several become one table"
    )
    parser.add_argument("--store", default="results", help="the results folder (default: results)")
    parser.add_argument("--out", help="folder for CSV, Markdown and LaTeX; default: the run's own tables/")
    parser.add_argument(
        "--allow-mixed",
        action="store_true",
        help="put runs of other protocols, prompts, models or metric versions into labelled columns of their own",
    )
    parser.add_argument(
        "--sort", metavar="COLUMN", help="order the printed rows by a column, the best first: erased, judge.retained"
    )
    parser.add_argument(
        "--power", action="store_true", help="how many prompts it takes to tell every two erasers apart"
    )
    parser.add_argument(
        "--best",
        metavar="CONDITION",
        help='the setting with the least of "erased" that fulfils it, e.g. "retained>=0.9", and the command that runs it',
    )
    parser.add_argument(
        "--rates",
        choices=("wilson", "clopper-pearson"),
        default="wilson",
        help="the interval of rates (clopper-pearson: never too short, often too long)",
    )
    options = parser.parse_args(arguments)
    from erasebench.tables.tabulate import tabulate
    from erasebench.tables.view import View

    view = View(options.sort, options.power, options.best)
    tabulate(options.runs, options.store, options.out, None, options.allow_mixed, view, options.rates)
    return 0


def _report(arguments: list[str]) -> int:
    parser = _report_parser("report")
    parser.add_argument("runs", nargs="*", help="names of runs; default: the latest. Several become one report")
    options = parser.parse_args(arguments)
    from erasebench.report.write import write_report

    write_report(options.runs, options.store, options.out, force=options.force, full=options.full)
    return 0


def _compare(arguments: list[str]) -> int:
    parser = _report_parser("compare")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="names of two runs or more")
    options = parser.parse_args(arguments)
    from erasebench.report.write import compare

    compare(options.runs, options.store, options.out, force=options.force, full=options.full)
    return 0


def _report_parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"erasebench {command}",
        description=COMMANDS[command],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Open index.html in the folder. Nothing in it needs a network. tables/ has LaTeX, figures/ PDF and SVG.\n"
        "Images of unsafe prompts are blurred until a button is pressed, in the embedded model's drawings not at all.",
    )
    parser.add_argument("--store", default="results", help="the results folder (default: results)")
    parser.add_argument("--out", help="the report's folder (default: reports/RUN in the results folder)")
    parser.add_argument("--full", action="store_true", help="copy the whole images, too, not only thumbnails")
    parser.add_argument("--force", action="store_true", help="replace a report of other runs")
    return parser


def _show(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench show", description=COMMANDS["show"])
    parser.add_argument(
        "what",
        nargs="+",
        help="a PNG file, an image or edit key (or its first digits), the name of a run, or: protocol NAME",
    )
    parser.add_argument("--store", default="results", help="the results folder (default: results)")
    options = parser.parse_args(arguments)
    if options.what[0] == "protocol" and len(options.what) == 2:
        from erasebench.commands.protocol_page import page

        print(page(options.what[1]))
        return 0
    if len(options.what) > 1:
        raise UserError(f"show {' '.join(options.what)}: show one thing at a time, or: show protocol NAME")
    from erasebench.commands.show import show
    from erasebench.store import Store

    print(show(Store(options.store), options.what[0]))
    return 0


def _list(arguments: list[str]) -> int:
    from erasebench.commands.listing import TOPICS, listing

    parser = argparse.ArgumentParser("erasebench list", description=COMMANDS["list"])
    parser.add_argument("topic", nargs="?", help=f"one of {', '.join(TOPICS)}; default: all")
    options = parser.parse_args(arguments)
    print(listing(options.topic))
    return 0


def _export(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_export_help())
        return 0
    from erasebench.export.export import export, settings

    export(**settings(arguments))
    return 0


def _export_help() -> str:
    from erasebench.export.export import FORMS, KEYS

    return "\n".join(
        [
            "usage: erasebench export format=FORMAT [run=NAME] [eraser=LABEL] [task=LABEL] [...]",
            "",
            COMMANDS["export"][0].upper() + COMMANDS["export"][1:] + ".",
            "",
            *(f"  format={name:<11} {text}" for name, text in FORMS.items()),
            "",
            "settings",
            *(f"  {name + '=':<8} {text}" for name, text in KEYS.items()),
            "",
            "  erasebench export format=lora                              the only edit of the latest run",
            "  erasebench export run=mine eraser=uce task=church format=lora",
            "  erasebench export edit=3fa9c1 format=diffusers out=erased  an edit by the first digits of its key",
            "",
            "README.md in the new folder says what was erased, with which measured effect, and how to load it.",
        ]
    )


def _apply(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "erasebench apply",
        description=COMMANDS["apply"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  erasebench apply 3fa9c1 --to sd14 --out erased\n"
        "  erasebench apply church.safetensors tench.safetensors --to my/model --how sequence --out erased\n"
        "An edit fits where every weight it changes is there with the same shape; else it is refused and nothing written.",
    )
    parser.add_argument(
        "edits", nargs="+", metavar="EDIT", help="an edit file, or a key in the store (its first digits)"
    )
    parser.add_argument(
        "--to", required=True, metavar="MODEL", help="a model's name (list models), a folder or a Hub id"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the new diffusers folder")
    parser.add_argument(
        "--how",
        default="sum",
        help="several edits: sum (each was made for the unedited model; the default) or sequence (in the order given)",
    )
    parser.add_argument("--dtype", default="auto", help="float32 (auto), float16 or bfloat16: the type to write")
    parser.add_argument("--compose", action="store_true", help="allow a model that is already edited")
    parser.add_argument("--store", default="results", help="the results folder where keys are looked up")
    options = parser.parse_args(arguments)
    from erasebench.export.apply import apply

    apply(options.edits, options.to, options.out, options.how, options.dtype, options.compose, options.store)
    return 0


def _doctor(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench doctor", description=COMMANDS["doctor"])
    parser.add_argument("overrides", nargs="*", help="the config to look at, as for run, e.g. model=sd14")
    options = parser.parse_args(arguments)
    from erasebench.commands.doctor import doctor

    return doctor(options.overrides)


def _prefetch(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("erasebench prefetch", description=COMMANDS["prefetch"])
    parser.add_argument("overrides", nargs="*", help="the config to prepare, as for run, e.g. model=sd14")
    options = parser.parse_args(arguments)
    from erasebench.commands.doctor import prefetch

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
