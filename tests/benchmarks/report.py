"""The tables of the benchmark. Every number in them comes from the session, except the quoted ones, which say so."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.cases import Case
from benchmarks.measure import FLOOR_RANK, Session

FLOORS = {
    "read and write": "read and write the edited weights",
    "rank 20": "rank-20 update of them all, float32",
    "dense": "dense update of them all, float32",
    "cholesky": "one float64 Cholesky solve, as wide as the text embedding",
    "one text": "the text encoder, one text at 77 positions",
}
FLOOR_TIMES = 3
"""How many times the floor of the factored update solve and apply may take together."""

NOT_RUN = "not run"


def about_machine() -> dict[str, Any]:
    """The machine and the software, without its name."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "load_at_start": round(psutil.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy", "erasebench")},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def rows(cases: Sequence[Case], records: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a case; what was not measured is ``None``."""
    made = []
    for case in cases:
        ways = records.get(case.id, {})
        ours, plain, released = (ways.get(way, {}) for way in ("ours", "plain", "released"))
        quoted = case.elsewhere or (None, None)
        made.append({
            "id": case.id,
            "case": case.label,
            "ours_s": ours.get("seconds"),
            "ours_median_s": ours.get("median"),
            "text_s": ours.get("text"),
            "solve_s": ours.get("solve"),
            "apply_s": ours.get("apply"),
            "rank": ours.get("rank"),
            "floor_s": ours.get("floor"),
            "plain_s": plain.get("seconds"),
            "plain_text_s": plain.get("text"),
            "plain_over_ours": _ratio(plain.get("seconds"), ours.get("seconds")),
            "released_order_s": released.get("seconds"),
            "released_order_over_ours": _ratio(released.get("seconds"), ours.get("seconds")),
            "released_elsewhere_low_s": quoted[0],
            "released_elsewhere_high_s": quoted[1],
            "released_elsewhere_over_ours": _ratio(quoted[0], ours.get("seconds")),
            "ours_peak_mb": ours.get("peak_mb"),
            "plain_peak_mb": plain.get("peak_mb"),
            "largest_change": ours.get("change"),
            "largest_difference": plain.get("difference"),
            "difference_of_change": plain.get("difference_of_change"),
            "released_order_difference": released.get("difference"),
            "ours_rounds": ours.get("rounds"),
            "plain_rounds": plain.get("rounds"),
        })  # fmt: skip
    return made


def aims(cases: Sequence[Case], table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at and what was reached; ``None`` where it was not measured."""
    made = []

    def add(what: str, aim: float, reached: float | None, at_least: bool) -> None:
        met = None if reached is None else bool(reached >= aim if at_least else reached <= aim)
        made.append({"what": what, "aim": ("at least " if at_least else "at most ") + f"{aim:g}",
                     "reached": reached, "met": met})  # fmt: skip

    for case, row in zip(cases, table, strict=True):
        edit = None if row["ours_s"] is None else row["solve_s"] + row["apply_s"]
        if case.aim:
            beside = "released_order_over_ours" if case.released else "plain_over_ours"
            way = "the released order of loops" if case.released else "the plain way"
            add(f"{case.label}: times faster than {way}, same run", case.aim, row[beside], True)
            add(f"{case.label}: times faster than released code, measured elsewhere", case.aim,
                row["released_elsewhere_over_ours"], True)  # fmt: skip
        if case.factored:
            add(f"{case.label}: solve and apply, in floors of the factored update", FLOOR_TIMES,
                _ratio(edit, row["floor_s"]), False)  # fmt: skip
        if case.budget:
            add(f"{case.label}: seconds of solve and apply", case.budget, edit, False)
    return made


def write(folder: Path, cases: Sequence[Case], session: Session, about: dict[str, Any]) -> list[Path]:
    """Write the tables; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table = rows(cases, session.records)
    reached = [] if about["trial"] else aims(cases, table)  # a small pipeline says nothing of them
    paths = [folder / f"closed_form.{kind}" for kind in ("md", "csv", "json")]
    everything = {"about": about, "floors_s": session.floors, "cases": table, "aims": reached}
    paths[0].write_text(markdown(table, reached, session, about), encoding="utf-8")
    with paths[1].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows({key: NOT_RUN if value is None else value for key, value in row.items()} for row in table)
    paths[2].write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths


def markdown(
    table: Sequence[dict[str, Any]], reached: Sequence[dict[str, Any]], session: Session, about: dict[str, Any]
) -> str:
    """All tables, for people."""
    command = "`python tests/benchmarks/closed_form.py`"
    lines = ["# Speed of the closed-form erasers", ""]
    if about["trial"]:
        lines += ["**A trial on a small random pipeline with short lists: these are no measurements.**", ""]
    size = sum(weight.numel() for weight in session.weights.values())
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines += [
        f"Made by {command} on {about['date']}: {about['processor']}, {about['cores']} cores, "
        f"torch on {about['threads']} of them, {about['memory_gb']} GB, load {about['load_at_start']:g} at the start; "
        f"Python {about['python']}, {versions}. A random pipeline with {len(session.weights)} key and value weights, "
        f"{size:,} numbers; names {about['names']}. Whole jobs: from texts to changed weights, model already loaded. "
        f"Seconds are the best of the rounds ({session.rounds}, or 1 where it takes minutes).",
        "",
        "The plain way is the method written down layer by layer and concept by concept, each text encoded once, alone "
        f"and at 77 positions, in {about['numbers']} (tests/benchmarks/plain.py). The released order of loops also does "
        "what the first UCE release does: encode anew in every layer, add one outer product a token. Released code was "
        "measured in another run, on this kind of machine; its seconds are quoted.",
        "",
        *_table(
            ["Job", "ours, s", "plain way, s", "times", "released order of loops, s", "times",
             "released code, measured elsewhere, s", "times"],
            [[row["case"], _three_figures(row["ours_s"]), _three_figures(row["plain_s"]), _times(row["plain_over_ours"]),
              _three_figures(row["released_order_s"], ""), _times(row["released_order_over_ours"], ""),
              _span(row["released_elsewhere_low_s"], row["released_elsewhere_high_s"]),
              _times(row["released_elsewhere_over_ours"], "")] for row in table],
        ),
        "",
        "## Where ours spends it",
        "",
        "Peak memory is the largest resident memory of the process during the rounds above what it was before (Linux's "
        "VmHWM, reset). The difference is the largest over weights of ||plain - ours|| / ||plain||; in brackets relative "
        "to the whole change, ||plain - ours|| / ||plain - original|| over all weights together. Ours computes in float64 and rounds once.",
        "",
        *_table(
            ["Job", "whole, s", "median, s", "text, s", "solve, s", "apply, s", "rank", "floor, s", "peak, MB", "plain: text, s",
             "plain: peak, MB", "difference"],
            [[row["case"], *(_three_figures(row[key]) for key in ("ours_s", "ours_median_s", "text_s", "solve_s", "apply_s")),
              _three_figures(row["rank"]), _three_figures(row["floor_s"], ""), _three_figures(row["ours_peak_mb"]), _three_figures(row["plain_text_s"]),
              _three_figures(row["plain_peak_mb"]), _difference(row)] for row in table],
        ),
        "",
        "## Floors, in the same run",
        "",
        f"The floor of a factored update is measured for each job at the rank of its edit, and at rank {FLOOR_RANK} where "
        "that is lower: two thin products a weight in float32, nothing else.",
        "",
        *_table(["What", "ms"], [[text, _three_figures(_scaled(session.floors.get(key), 1000))] for key, text in FLOORS.items()]),
        "",
    ]  # fmt: skip
    if reached:
        lines += ["## Aims", "", *_table(["What", "aim", "reached", ""], [_aim(aim) for aim in reached])]
    return "\n".join(lines) + "\n"


def readme_block(table: Sequence[dict[str, Any]], about: dict[str, Any]) -> str:
    """The short table for results/README.md."""
    head = ["Whole job", "ours, s", "of it text, s", "plain way, s", "times", "as the release loops, s", "times"]
    body = [
        [row["case"], _three_figures(row["ours_s"]), _three_figures(row["text_s"]), _three_figures(row["plain_s"]),
         _times(row["plain_over_ours"]), _three_figures(row["released_order_s"], ""),
         _times(row["released_order_over_ours"], "")]
        for row in table
    ]  # fmt: skip
    machine = f"{about['processor']}, {about['threads']} threads, {about['date']}"
    return "\n".join([*_table(head, body), "", f"({machine}; best of the rounds.)"])


def put_into(readme: Path, block: str) -> bool:
    """Replace what stands between the two marks of the speed table; returns whether the marks are there."""
    before, start, rest = readme.read_text(encoding="utf-8").partition("<!-- speed -->\n")
    old, end, after = rest.partition("<!-- /speed -->")
    if not (start and end):
        return False
    readme.write_text(before + start + block + "\n" + end + after, encoding="utf-8")
    return True


def _aim(aim: dict[str, Any]) -> list[str]:
    return [aim["what"], aim["aim"], _three_figures(aim["reached"]), {True: "yes", False: "no", None: ""}[aim["met"]]]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]


def _three_figures(value: float | None, missing: str = NOT_RUN) -> str:
    """Three figures."""
    if value is None:
        return missing
    if value == 0 or value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _times(value: float | None, missing: str = NOT_RUN) -> str:
    return missing if value is None else f"{_three_figures(value)}x"


def _span(low: float | None, high: float | None) -> str:
    if low is None:
        return ""
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _difference(row: dict[str, Any]) -> str:
    if row["largest_difference"] is None:
        return NOT_RUN
    return f"{row['largest_difference']:.1e} ({row['difference_of_change']:.1e})"


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _processor() -> str:
    """The processor's name as the system gives it."""
    if sys.platform.startswith("linux"):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
