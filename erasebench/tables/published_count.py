"""What can be compared before anything is run: of each published number of an experiment, whether its run would print a
difference, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from erasebench.config.compose import compose
from erasebench.config.values import plain_values
from erasebench.edits.label import UNEDITED
from erasebench.tables.costs import COSTS
from erasebench.tables.published_data import of_experiment
from erasebench.tables.published_match import (
    Ran,
    eraser_mismatches,
    erasers_in,
    find_label,
    prompts_of,
    row_mismatches,
    row_reasons,
)

COMPARABLE, PUBLISHED_ONLY, NOT_RUN = "comparable", "published only", "not run"

STATES = {
    COMPARABLE: "its run prints a difference, given the paper's files",
    PUBLISHED_ONLY: "stands beside what is measured, without a difference; the table says why",
    NOT_RUN: "could be measured with what is built here, but not by this experiment as it is shipped",
}
"""What becomes of a published number."""

RULES = {
    "metric": "its metric is not built, or not as the paper has it",
    "again": "another table printed the number before, and it is counted there",
    "doubt": "the printed value is doubtful",
    "method": "its method is not built",
    "protocol": "its images are of another protocol or model",
    "settings": "the release does what is not done here, or its settings are not known",
    "eraser": "its eraser has no row in the experiment",
    "missing": "its metric or its prompts are not in the experiment",
}
"""What keeps a published number from being compared, of several the first."""


def cells_of(experiment: str) -> pd.DataFrame:
    """The published numbers of a shipped experiment, each with what its run makes of it.

    The run is the shipped one, with the files that it needs.

    Returns:
        The columns of :func:`erasebench.tables.published_data.load_published`, ``state`` (one of :data:`STATES`), ``rule`` (one
        of :data:`RULES`) and ``reason`` (both empty where it is comparable).
    """
    config = compose([f"experiment={experiment}"])
    values = plain_values(config)
    ran = Ran(values, erasers=erasers_in(values))
    general = has_general(values, prompts_of(experiment))
    rows = of_experiment(values["experiment"])
    states = [_state(row, ran, general) for row in rows.to_dict("records")]
    columns = ("state", "rule", "reason")
    return rows.assign(**{key: [state[place] for state in states] for place, key in enumerate(columns)})


def _state(row: Mapping[str, Any], ran: Ran, general: bool) -> tuple[str, str, str]:
    label = find_label(row["eraser"], ran.erasers) if row["eraser"] else None
    reasons = row_reasons(row)
    rules = [rule for rule, of_row in (("metric", "why"), ("again", "copy_of"), ("doubt", "doubt")) if row[of_row]]
    if not row["eraser"]:
        reasons.append("method not built here")
        rules.append("method")
    if row["eraser"] == UNEDITED or not reasons:
        reasons += row_mismatches(row, ran.config)
    if reasons:
        return PUBLISHED_ONLY, (rules or ["protocol"])[0], "; ".join(reasons)
    if label is None:
        return NOT_RUN, "eraser", f"{row['eraser']} is not among its erasers"
    if row["ours"] not in ran.config["metric"] and row["ours"] not in COSTS:
        return NOT_RUN, "missing", f"{row['ours']} is not among its metrics"
    if row["role"] == "general" and not general:
        return NOT_RUN, "missing", "it draws no general prompts"
    of_eraser, _ = eraser_mismatches(label, ran)
    return (PUBLISHED_ONLY, "settings", "; ".join(of_eraser)) if of_eraser else (COMPARABLE, "", "")


def why_not(cells: pd.DataFrame) -> dict[str, int]:
    """How many numbers of :func:`cells_of` each of :data:`RULES` keeps from being compared, the most first."""
    counts = cells.rule[cells.rule != ""].value_counts()
    return {rule: int(counts[rule]) for rule in sorted(counts.index, key=lambda rule: (-counts[rule], rule))}


def has_general(config: Mapping[str, Any], prompts: str) -> bool:
    """Whether the prompts of an experiment ask for everyday things, too, or for these alone."""
    return bool(config["prompts"].get("source") == "builtin" or "coco" in prompts)
