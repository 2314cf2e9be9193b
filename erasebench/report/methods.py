"""What the pages of methods say: what an eraser does, its settings, and notes of each of its edits."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from erasebench.config.build import find_class
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.report import charts
from erasebench.report.runs import Run
from erasebench.runs.folder import find_eraser
from erasebench.store import Store
from erasebench.tables.tabulate import Joint

SHOWN = {
    "seconds", "rank", "share", "weights", "norms", "energies", "moved", "warnings", "rounding", "method", "version",
    "settings", "task", "peak_memory_mb", "device", "loss", "loss_curve", "trained", "trained_parameters",
}  # fmt: skip
"""Notes of an edit that have a place of their own on the page; the others are listed as they are."""


@dataclass(frozen=True)
class Bar:
    """A named number and its length as a share of the longest."""

    name: str
    value: float
    share: float


@dataclass(frozen=True)
class EditNotes:
    """What is known of one edit."""

    key: str
    kind: str
    task: str
    info: dict[str, Any]
    norms: list[Bar]
    energies: list[tuple[str, list[Bar]]]
    more: list[tuple[str, str]]
    curve: Markup | None = None

    @property
    def warnings(self) -> list[str]:
        """What the eraser warned of when it made the edit."""
        return [str(text) for text in self.info.get("warnings", [])]


@dataclass(frozen=True)
class Method:
    """One eraser of the report: what its class says of it, how it was set, and its edits."""

    label: str
    describe: str = ""
    source: str = ""
    text: Markup = Markup("")
    target: str = ""
    settings: list[tuple[str, str]] = field(default_factory=list)
    edits: list[EditNotes] = field(default_factory=list)


def methods(runs: Sequence[Run], joint: Joint, store: Store, plugins: Sequence[str] = ()) -> list[Method]:
    """Every eraser of some runs' plan but the unedited model, in order."""
    made = []
    clean = joint.plan[joint.plan.attack == ""]
    edited = clean[(clean.eraser != UNEDITED) & (clean.edit_key != "")]
    for label, rows in edited.groupby("eraser", sort=False):
        keys = rows.drop_duplicates(["task_kind", "task"])
        edits = [_edit(store, row.edit_key, row.task_kind, row.task) for row in keys.itertuples()]
        place = find_eraser([run.folder for run in runs], label, joint.option)
        node = place[1] if place else {}
        words = _class_words(node, plugins)
        settings = _settings(edits) or [
            (name, _setting_text(value)) for name, value in node.items() if name not in ("_target_", "released")
        ]
        made.append(Method(label, settings=settings, edits=edits, target=str(node.get("_target_", "")), **words))
    return made


LEFT_OPEN = (None, "auto")
"""Values of a setting that leave the choice to the eraser."""


def _settings(edits: Sequence[EditNotes]) -> list[tuple[str, str]]:
    """The settings that edits were made with; of one that was left open, what the eraser chose, from the edits' notes."""
    noted = [edit for edit in edits if isinstance(edit.info.get("settings"), Mapping)]
    settings = noted[0].info["settings"] if noted else {}
    return [
        (name, _chosen(name, noted) if value in LEFT_OPEN else _setting_text(value)) for name, value in settings.items()
    ]


def _chosen(name: str, edits: Sequence[EditNotes]) -> str:
    """What was chosen for a setting: one value, or each with the tasks that it was chosen for."""
    tasks: dict[str, list[str]] = {}
    for edit in edits:
        value = edit.info.get(name)
        if isinstance(value, str | int | float):  # a longer note of that name is no value of it
            tasks.setdefault(_setting_text(value), []).append(edit.task)
    if not tasks:
        return _setting_text(edits[0].info["settings"][name])
    if len(tasks) == 1:
        return f"{next(iter(tasks))} (chosen by the eraser)"
    each = "; ".join(f"{value} for {', '.join(of_value)}" for value, of_value in tasks.items())
    return f"{each} (chosen by the eraser)"


def _class_words(node: Mapping[str, Any], plugins: Sequence[str]) -> dict[str, Any]:
    """What the class of a node says of itself. Only our own classes and those of ``plugins`` are looked at."""
    if not node:  # a run of an earlier version
        return {}
    try:
        kind = find_class(node.get("_target_"), "method", Eraser, plugins)
    except UserError as error:  # somebody else's, or its place has changed since the run
        return {"describe": f"not described: {error}"}
    module = sys.modules.get(kind.__module__)
    source = (inspect.getdoc(module) or "").split("\n\n")[0] if module else ""
    first = (inspect.getdoc(kind) or "").split("\n\n")
    return {"describe": kind.describe, "source": source, "text": Markup("").join(map(_paragraph, first[:2]))}


def _paragraph(text: str) -> Markup:
    """A paragraph of a docstring: escaped, with ``code`` as code and references by their names."""
    safe = str(escape(" ".join(text.split())))
    safe = re.sub(r"``(.+?)``", r"<code>\1</code>", safe)
    safe = re.sub(r":\w+:`~?([^`]+)`", r"<code>\1</code>", safe)
    return Markup(f"<p>{safe}</p>")  # noqa: S704 (escaped above)


def _edit(store: Store, key: str, kind: str, task: str) -> EditNotes:
    """The notes of an edit from the file beside its weights; none if that is gone."""
    info = store.edit_notes(key)
    chart = charts.training_curve(key, info)
    return EditNotes(
        key, kind, task, info,
        norms=bars({short_name(name): value for name, value in (info.get("norms") or {}).items()}),
        energies=[(name, bars({str(i): v for i, v in enumerate(row, 1)})) for name, row in _series(info.get("energies"))],
        more=[(name, _setting_text(value)) for name, value in info.items() if name not in SHOWN],
        curve=charts.inline(chart) if chart else None,
    )  # fmt: skip


def bars(values: Mapping[str, float]) -> list[Bar]:
    """Numbers as bars; the longest is the largest number."""
    longest = max((abs(float(value)) for value in values.values()), default=0.0) or 1.0
    return [Bar(name, float(value), abs(float(value)) / longest) for name, value in values.items()]


def short_name(weight: str) -> str:
    """A weight's name without the parts that all of them share: ``down 0.0 attn2 to_k``."""
    text = re.sub(r"^(unet|transformer)\.|\.weight$", "", weight)
    text = re.sub(r"^text_encoder(\w*)\.(text_model\.)?encoder\.layers\.(\d+)\.", r"text\1 \3 ", text)
    text = re.sub("_blocks?", "", text).replace(".attentions", "").replace(".transformer.0", "")
    text = re.sub(r"^(\w+)\.([\d.]+)\.", r"\1 \2 ", text)
    return text.replace(".to_", " to_")


def _series(energies: Any, name: str = "") -> list[tuple[str, list[float]]]:
    """Every list of numbers in nested notes, with its path."""
    if isinstance(energies, Mapping):
        return [found for key, value in energies.items() for found in _series(value, f"{name} {key}".strip())]
    if not isinstance(energies, list) or not energies:
        return []
    if all(isinstance(value, int | float) for value in energies):
        return [(name or "energies", [float(value) for value in energies])]
    several = len(energies) > 1
    return [f for i, v in enumerate(energies, 1) for f in _series(v, f"{name} {i}".strip() if several else name)]


def _setting_text(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
