"""What the command line does: one verb a file, each with ``main(arguments)`` that gives the exit status."""

from __future__ import annotations

import argparse

VERBS = {
    "run": "erase, generate, score, tabulate (a Hydra app: overrides, --cfg job, -m)",
    "finish": "the tables of a run that was made in parts, once nothing is missing",
    "tune": "look for an eraser's best setting by a stated objective (with Optuna)",
    "table": "tables of finished runs, made from their records alone",
    "report": "a folder of pages about finished runs: tables, figures, images; opens in any browser, offline",
    "compare": "several runs in one table and one report, e.g. one's own eraser beside the baselines",
    "leaderboard": "one page over the runs of several stores: what may be compared stands in one table",
    "publish": "a run, or its edits, to the Hugging Face Hub; a dry run lists what would be sent",
    "score": "images that were made elsewhere: a folder of them and their prompts, by any metric, with tables",
    "show": "one image, edit, run or protocol, and all that is known of it",
    "explain": "what a word or column of the tables means, e.g. H",
    "list": "erasers, metrics, prompt sets, models, protocols, tasks: one line each",
    "export": "an edit as a LoRA, a diffusers folder or changed weights, with a model card",
    "apply": "edits onto any model whose weights they fit, as a diffusers folder",
    "doctor": "what this machine has, and what a config lacks",
    "prefetch": "download all that a config needs, for a machine without a network",
    "completion": "a script by which bash or zsh completes commands and options",
    "tiny": "train, sample or evaluate the embedded model",
}
"""Every verb and what it does, in the order of the help. Each is a module of its name here."""


def verb_parser(verb: str, explanation: str) -> argparse.ArgumentParser:
    """A parser for a verb's arguments; its help ends with the explanation, as it is laid out."""
    what = VERBS[verb]
    return argparse.ArgumentParser(
        f"erasebench {verb}",
        description=what[0].upper() + what[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=explanation,
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    """The option that most verbs have."""
    parser.add_argument("--store", default="results", help="the results folder (default: results)")


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """The option of verbs that read runs: what a run itself names is not imported."""
    parser.add_argument(
        "--plugins",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module of your own that a metric or eraser of these runs is in; may be given several times",
    )
