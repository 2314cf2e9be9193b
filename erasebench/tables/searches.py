"""What attacks cost: how many searches, how long each took, and how many images it looked at until it succeeded."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, median
from typing import Any

import pandas as pd

from erasebench.edits.label import shown_row
from erasebench.files import write_text
from erasebench.store import Store
from erasebench.tables.layout import ABSENT, markdown_table
from erasebench.texts import escape_markdown, to_csv

SEARCH_FIELDS = ("task_kind", "eraser", "attack", "searches", "seconds", "succeeded", "images", "out_of_time")
"""Columns of the table of searches."""

SEARCHES_EXPLAINED = (
    "Searches: how many were done; one may serve all prompts, and a transfer attack's all erasers. Seconds: of one, the median, "
    "on the machines that did them. Succeeded: of searches that ask the judge, in how many it saw the concept. Images: how many "
    "these looked at until then, the mean; the clean one counts where it was tried first. Out of time: how many were ended by "
    "their limit in seconds; what these found depends on the machine, and on another one may be another."
)


def searches_of(plan: pd.DataFrame, store: Store) -> pd.DataFrame:
    """The searches of a run, a row an edit and attack.

    Args:
        plan: rows of a run.
        store: where what was found is; what is gone is left out.

    Returns:
        Columns :data:`SEARCH_FIELDS`; ``succeeded`` and ``images`` are NaN where an attack asks no judge.
    """
    erasers = dict(zip(plan.key[plan.attack == ""], plan.eraser[plan.attack == ""], strict=True))
    attacked = plan[plan.attack != ""]
    rows: list[dict[str, Any]] = []
    for (kind, _, attack), part in attacked.groupby(["task_kind", "eraser", "attack"], sort=False):
        results = [result for key in dict.fromkeys(part.attack_key) if (result := store.get_attack(key)) is not None]
        if not results:
            continue
        judged = [result.info for result in results if "succeeded" in result.info]
        needed = [info["images"] for info in judged if info["succeeded"]]
        rows.append(
            {
                "task_kind": kind,
                "eraser": erasers[part.clean_key.iloc[0]],
                "attack": attack,
                "searches": len(results),
                "seconds": median(result.info["seconds"] for result in results),
                "succeeded": len(needed) if judged else float("nan"),
                "images": mean(needed) if needed else float("nan"),
                "out_of_time": sum(bool(result.info.get("out_of_time")) for result in results),
            }
        )
    return pd.DataFrame(rows, columns=list(SEARCH_FIELDS))


def write_searches(searches: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``searches.csv`` (full precision) and ``searches.md``.

    Returns:
        The files written; none where nothing was searched.
    """
    if not len(searches):
        return []
    written = [folder / "searches.csv", folder / "searches.md"]
    write_text(written[0], to_csv(searches))
    parts = []
    for kind, part in searches.groupby("task_kind", sort=False):
        rows = [
            [
                *(shown_row(row.eraser), row.attack, str(row.searches), f"{row.seconds:.3g}"),
                ABSENT if pd.isna(row.succeeded) else f"{row.succeeded:.0f} of {row.searches}",
                ABSENT if pd.isna(row.images) else f"{row.images:.1f}",
                str(row.out_of_time),
            ]
            for row in part.itertuples()
        ]
        heads = ["eraser", "attack", "searches", "seconds", "succeeded", "images", "out of time"]
        parts += [f"**Searches, erasing concepts of kind {escape_markdown(str(kind))}**", markdown_table(heads, rows)]
    write_text(written[1], "\n\n".join([*parts, SEARCHES_EXPLAINED]) + "\n")
    return written
