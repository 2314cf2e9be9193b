"""The sentences of a report: what was run, and what can and cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence

from erasebench.concepts import ROLES, kind_words
from erasebench.edits.label import UNEDITED, short_rows
from erasebench.report.forest import Panel
from erasebench.report.runs import Run
from erasebench.tables.layout import ROLE_HEADINGS
from erasebench.tables.letters import LETTERS_EXPLAINED
from erasebench.tables.tabulate import Joint

NAMED = 4
"""Erasers that a title names."""


def heading(runs: Sequence[Run], joint: Joint | None = None) -> str:
    """The title of the first page: the erasers and the model; of an unfinished run its name."""
    if joint is None:
        return runs[0].name
    names = list(short_rows(erasers(joint)).values()) or ["The unedited model"]
    more = f" and {len(names) - NAMED} more erasers" if len(names) > NAMED + 1 else ""
    shown = names[:NAMED] if more else names
    several = f"{len(runs)} runs compared: " if len(runs) > 1 else ""
    return f"{several}{', '.join(shown) if more else _listed(shown)}{more} on {_model(joint)}"


def kind_heading(kind: str) -> str:
    """What is erased, in words."""
    return f"Erasing {kind_words(kind)}"


def erasers(joint: Joint) -> list[str]:
    """The labels of the erasers, without the unedited model."""
    clean = joint.plan[joint.plan.attack == ""]
    return [name for name in dict.fromkeys(clean.eraser) if name != UNEDITED]


def attacks(joint: Joint) -> list[str]:
    """The labels of the attacks that the erasers are under."""
    return [name for name in dict.fromkeys(joint.plan.attack) if name]


def lead(runs: Sequence[Run], joint: Joint) -> str:
    """One sentence: which erasers, on which model, over what."""
    names = erasers(joint)
    kinds = [kind_words(kind) for kind in dict.fromkeys(joint.plan.task_kind)]
    count = f"{len(names)} {'eraser' if len(names) == 1 else 'erasers'}" if names else "The unedited model"
    edits = joint.plan[joint.plan.edit_key != ""].edit_key.nunique()
    under = attacks(joint)
    attacked = f", also under {len(under)} {'attack' if len(under) == 1 else 'attacks'}" if under else ""
    return (
        f"{count} on {_model(joint)}{attacked}, erasing {_listed(kinds)}: {edits} edits, "
        f"{joint.plan.key.nunique():,} images, beside the unedited model on the same prompts and seeds."
    )


def _model(joint: Joint) -> str:
    return "the embedded model" if joint.about.embedded else joint.about.name("model")


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def numbers_note(panels: Sequence[Panel]) -> str:
    """How to read the plots of the first page."""
    if not panels:
        return ""
    lettered = any(row.cell.letters for panel in panels for row in panel.rows)
    letters = f" {LETTERS_EXPLAINED}." if lettered else ""
    return (
        "Dots with 95 % intervals, on axes cut to what the erasers reach; a triangle points to a number outside."
        f"{letters}"
    )


def comparable(runs: Sequence[Run], joint: Joint) -> str:
    """What may be compared with what."""
    metrics = ", ".join(metric.id for metric in joint.metrics)
    together = "" if len(runs) == 1 else f"The {len(runs)} runs agree in all of these; this was checked. "
    return (
        "Every row of a table was made with the same model, protocol, prompts, seeds and metric versions, so erasers "
        f"can be compared with one another here. {together}"
        "They cannot be compared with numbers of another model, sampler, prompt set or metric version, however alike "
        f"the names are. The metrics of this report are {metrics}."
    )


def facts(runs: Sequence[Run], joint: Joint, images: int, there: int) -> list[tuple[str, str]]:
    """What was run, as pairs of a name and a text.

    Args:
        runs: what the report is about.
        joint: their plan.
        images: how many they have.
        there: how many of those are still there.
    """
    rows_of_facts = list(joint.about.facts().items())
    for kind, rows in joint.plan.groupby("task_kind", sort=False):
        rows_of_facts.append((f"tasks of kind {kind}", ", ".join(dict.fromkeys(rows.task))))
    rows_of_facts.append(("erasers", ", ".join(erasers(joint)) or "none"))
    if under := attacks(joint):
        rows_of_facts.append(("attacks", ", ".join(under)))
    rows_of_facts.append(
        ("images", f"{images:,}" + ("" if there == images else f", {images - there:,} of them gone since"))
    )
    for run in runs:
        rows_of_facts.append(
            ("run" if len(runs) == 1 else f"run {run.name}", f"{run.manifest.get('started', 'date unknown')}")
        )
    return rows_of_facts


def kind_lead(kind: str, tasks: Sequence[str], joint: Joint) -> str:
    """What the page of a kind is about."""
    part = joint.plan[joint.plan.task_kind == kind]
    prompts = part.drop_duplicates(["task", "prompt_id"]).role.value_counts()
    counts = [f"{prompts[role]:,} {ROLE_HEADINGS[role]}" for role in ROLES if role in prompts]
    what = f"{len(tasks)} tasks, one edit each ({', '.join(tasks)})" if len(tasks) > 1 else f"One edit: {tasks[0]}"
    if len(tasks) > 12:
        what = f"{len(tasks)} tasks, one edit each"
    return f"{what}. Prompts: {_listed(counts)}."
