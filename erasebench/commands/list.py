"""``erasebench list``: what can be chosen, one line each, read from the config tree itself."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import pandas as pd
import yaml
from hydra.utils import get_class

from erasebench.commands import verb_parser
from erasebench.config.choices import first_comment, groups, option_text
from erasebench.errors import UserError, suggest

TOPICS = {
    "erasers": "method",
    "attacks": "attack",
    "metrics": "metric",
    "prompts": "prompts",
    "models": "model",
    "protocols": "protocol",
    "tasks": "task",
    "experiments": "experiment",
    "sweeps": "sweep",
}
"""What people call a group, and the group's name in overrides."""

SEVERAL = ("metric", "attack")
"""Groups of which several options may be chosen at once."""

COUNTED_BY = "how many published numbers of each can be compared: erasebench list experiments"

WIDTH = 100
"""Columns that :func:`support` fills at most."""


LIST_HELP = """\
examples:
  erasebench list                all of it
  erasebench list erasers        one topic
What stands there is chosen with group=NAME in erasebench run, e.g. erasebench run method=cure task=artist
"""


def main(arguments: list[str]) -> int:
    """Parse, and print."""
    parser = verb_parser("list", LIST_HELP)
    parser.add_argument("topic", nargs="?", help=f"one of {', '.join(TOPICS)}; default: all")
    print(listing(parser.parse_args(arguments).topic))
    return 0


def listing(topic: str | None = None) -> str:
    """The options of a topic, or of all of them, with the first comment of each option's file.

    For models also :func:`support`.

    Raises:
        UserError: an unknown topic.
    """
    if topic is not None and topic not in TOPICS:
        raise UserError(f"list {topic}: no such topic.{suggest(topic, TOPICS)} Known: {', '.join(TOPICS)}")
    lines = []
    known = groups()
    for title, group in TOPICS.items():
        if topic not in (None, title) or not known.get(group):
            continue
        lines.append(f"{title} (choose with {group}=NAME{' or ' + group + '=[NAME,NAME]' if group in SEVERAL else ''})")
        lines += [f"  {name:<24} {first_comment(group, name)}" for name in known[group]]
        if title == "experiments":
            lines += counts_of(known[group]) if topic else ["", f"  {COUNTED_BY}"]
        lines.append("")
        if title == "models":
            lines += [support(known["method"]), ""]
    if topic in (None, "prompts"):
        from erasebench.prompts.reader import schemas

        lines.append("prompt files that are read (prompts=file prompts.source=PATH), recognised by their columns")
        for schema in schemas():
            lines.append(f"  {schema.name:<24} {schema.source}{'; ' + schema.note if schema.note else ''}")
    return "\n".join(lines).rstrip()


def counts_of(experiments: list[str]) -> list[str]:
    """Of each experiment, how many published numbers its run would print a difference to, as lines."""
    from erasebench.tables.published_count import RULES, STATES, cells_of, why_not

    cells = {name: cells_of(name) for name in experiments}
    every = pd.concat(cells.values())
    lines = ["", f"  {'published numbers that are':<32} {'  '.join(STATES)}  what keeps the others back"]
    for name, part in {**cells, "all": every}.items():
        states = part.state.value_counts()
        numbers = "  ".join(f"{states.get(state, 0):>{len(state)}}" for state in STATES)
        why = ", ".join(f"{rule} {count}" for rule, count in why_not(part).items())
        lines.append(f"  {name:<32} {numbers}  {why}".rstrip())
    legend = {**STATES, **RULES}
    return [*lines, *(f"  {word}: {text}" for word, text in legend.items())]


def support(methods: list[str]) -> str:
    """Which eraser edits which family of models, as a table: yes, no, or some; the reasons why not stand below it.

    Args:
        methods: options of the config group ``method``. Their classes are found through the ``_target_`` of their
            files; an eraser made of others cannot edit what one of them cannot.
    """
    from erasebench.models.load import FAMILIES

    reasons: list[str] = []
    lines = ["erasers and the families of models that they edit (the reasons why not are below)"]
    lines.append(f"  {'':<24} " + " ".join(f"{family:<8}" for family in FAMILIES).rstrip())
    for name in methods:
        cells = []
        for family in FAMILIES:
            cell = "yes"
            for word, attribute in (("some", "partly"), ("no", "unsupported")):  # the latter wins
                said = [getattr(kind, attribute) for kind in eraser_classes(name) if family in getattr(kind, attribute)]
                if said:
                    reasons += [reason for reason in (said[0][family],) if reason not in reasons]
                    cell = f"{word} [{reasons.index(said[0][family]) + 1}]"
            cells.append(cell)
        lines.append(f"  {name:<24} " + " ".join(f"{cell:<8}" for cell in cells).rstrip())
    legend = "; ".join(f"{family}: {text}" for family, text in FAMILIES.items())
    lines += textwrap.wrap(
        f"{legend}. The embedded model is of family sd1.", WIDTH, initial_indent="  ", subsequent_indent="  "
    )
    for number, reason in enumerate(reasons, start=1):
        mark = f"  [{number}] "
        lines += textwrap.wrap(reason, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))
    return "\n".join(lines)


def eraser_classes(option: str) -> list[Any]:
    """The classes of an option of ``method``: its own, and those of the options that it is made of."""
    nodes = [yaml.safe_load(option_text("method", name)) for name in chosen_options(option)]
    return [get_class(target) for target in dict.fromkeys(node["_target_"] for node in nodes if "_target_" in node)]


def chosen_options(option: str) -> list[str]:
    """An option of ``method``, and those that it is made of."""
    return list(dict.fromkeys(_chosen(option)))


def _chosen(option: str) -> Iterator[str]:
    yield option
    for entry in yaml.safe_load(option_text("method", option)).get("defaults", ()):
        # An entry is "uce", "uce@place" or {"/method@place": "uce"}.
        chosen = next(iter(entry.values())) if isinstance(entry, dict) else entry.split("@")[0]
        if chosen != "_self_" and "$" not in chosen:  # what depends on other choices (${model}) is settings alone
            yield from _chosen(chosen)
