"""The data of the image browser: a small index of all rows, and files of sixty rows that are loaded when shown.

A browser may not fetch files from a page that was opened from a disk, so every file is a script that calls
``erasebench.<part>(data)``.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.concepts import ROLE
from erasebench.edits.label import UNEDITED, short_rows
from erasebench.report.outcomes import FAILURES, OUTCOMES
from erasebench.report.thumbnails import suffix

PAGE = 60
"""Rows a page, and rows a data file."""


@dataclass(frozen=True)
class Rows:
    """What the browser shows: a row a (kind, task, prompt), a cell an eraser.

    Attributes:
        erasers: labels, the unedited model first.
        frame: ``task_kind, task, prompt_id, prompt, seed, label, role``; a row each, in the order of the plan.
        keys: image keys, a list an eraser's row; ``""`` where the eraser has no such row.
        answers: what the classifier saw, likewise.
        signs: outcomes, one string a row with a sign of :data:`OUTCOMES` an eraser.
    """

    erasers: list[str]
    frame: pd.DataFrame
    keys: list[list[str]]
    answers: list[list[str]]
    signs: list[str]

    def worst_first(self) -> list[int]:
        """Row numbers: those in which most erasers failed first, then in the order of the plan."""
        return sorted(range(len(self.signs)), key=lambda row: -sum(sign in FAILURES for sign in self.signs[row]))


def make_rows(plan: pd.DataFrame, answers: pd.Series, signs: pd.Series) -> Rows:
    """Put the rows of a plan side by side: the same prompt and seed, all erasers."""
    erasers = list(dict.fromkeys(plan.eraser))
    erasers.sort(key=lambda name: name != UNEDITED)
    by = ["task_kind", "task", "prompt_id"]
    frame = plan.drop_duplicates(by).reset_index(drop=True)
    column = {eraser: place for place, eraser in enumerate(erasers)}
    row = {found: place for place, found in enumerate(zip(*(frame[name] for name in by), strict=True))}
    keys = [[""] * len(erasers) for _ in row]
    seen = [[""] * len(erasers) for _ in row]
    marks = [["-"] * len(erasers) for _ in row]
    cells = zip(*(plan[name] for name in (*by, "eraser", "key")), answers, signs, strict=True)
    for kind, task, prompt_id, eraser, key, answer, sign in cells:
        i, j = row[kind, task, prompt_id], column[eraser]
        keys[i][j], seen[i][j], marks[i][j] = key, answer, sign
    columns = ["task_kind", "task", "prompt_id", "prompt", "seed", "label", "role"]
    return Rows(erasers, frame[columns], keys, seen, ["".join(mark) for mark in marks])


def write_browser(
    rows: Rows, folder: Path, *, thumbnails: Set[str], sensitive: Set[str], classifier: str, full: bool
) -> None:
    """Write ``data/index.js``, ``data/prompts.js`` and ``data/rows-<n>.js``.

    Args:
        rows: what is shown.
        folder: the report's folder.
        thumbnails: keys that have a thumbnail.
        sensitive: kinds of task whose images are blurred until asked for.
        classifier: whose answers are shown.
        full: whether whole images were copied.
    """
    order = rows.worst_first()
    frame = rows.frame.iloc[order].reset_index(drop=True)
    tasks = list(dict.fromkeys(zip(frame.task_kind, frame.task, strict=True)))
    plan_order = {task: place for place, task in enumerate(zip(rows.frame.task_kind, rows.frame.task, strict=True))}
    tasks.sort(key=lambda task: plan_order[task])
    labels = sorted(set(frame.label.fillna("")))
    index = {
        "page": PAGE,
        "erasers": rows.erasers,
        "shown": list(short_rows(rows.erasers).values()),
        "unedited": UNEDITED,
        "tasks": [{"kind": kind, "task": task, "sensitive": kind in sensitive} for kind, task in tasks],
        "labels": labels,
        "outcomes": {sign: list(words) for sign, words in OUTCOMES.items()},
        "task": _numbers(zip(frame.task_kind, frame.task, strict=True), tasks),
        "label": _numbers(frame.label.fillna(""), labels),
        "role": "".join(ROLE[role].sign for role in frame.role),
        "roles": {role.sign: role.words for role in ROLE.values()},
        "signs": "".join(rows.signs[i] for i in order),
        "planned": order,
        "classifier": classifier,
        "full": full,
        "suffix": suffix(),
    }
    prompts = list(dict.fromkeys(frame.prompt))
    data = folder / "data"
    data.mkdir(parents=True)
    _write(data / "index.js", "index", index)
    _write(data / "prompts.js", "prompts", {"prompts": prompts, "row": _numbers(frame.prompt, prompts)})
    for start in range(0, len(order), PAGE):
        part = [
            [
                row.prompt,
                str(row.prompt_id),
                str(row.seed),  # seeds are wider than a browser's numbers
                [
                    [key, answer, int(key in thumbnails)]
                    for key, answer in zip(rows.keys[order[place]], rows.answers[order[place]], strict=True)
                ],
            ]
            for place, row in enumerate(frame.iloc[start : start + PAGE].itertuples(), start)
        ]
        _write(data / f"rows-{start // PAGE}.js", "rows", [start // PAGE, part])


def _numbers(values: Any, known: list) -> list[int]:
    place = {value: i for i, value in enumerate(known)}
    return [place[value] for value in values]


def _write(path: Path, part: str, value: Any) -> None:
    path.write_text(f"erasebench.{part}({script_json(value)});\n", encoding="ascii")


def script_json(value: Any) -> str:
    """JSON that is also safe inside a page: ASCII, and no sign that HTML gives a meaning to."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
