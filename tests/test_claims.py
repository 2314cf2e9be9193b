"""Sentences that say who is better: none stands in README or results/ that the project's own tests do not support."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from erasebench.config.choices import groups
from erasebench.runs.about import About
from erasebench.tables.answer import print_answer
from erasebench.tables.measured_file import read_measured

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "results/README.md")

COMPARES = re.compile(
    r"\b(best|better|worst|worse|most|least|more than|less than|fewer|fewest|highest|lowest|wins?|beats?|outperforms?|harms?"
    r"|stronger|strongest|weaker|weakest|superior|leads?)\b",
    re.IGNORECASE,
)
"""Words by which a sentence puts one eraser before another."""

Tables = dict[str, pd.DataFrame]


def lowest_and_told_apart(kind: str, eraser: str, others: set[str]) -> Callable[[Tables], bool]:
    """An eraser has the least CLIP score on general prompts, and Holm's tests tell it from these and from no other."""

    def holds(tables: Tables) -> bool:
        measured, pairs = tables["measured"], tables["pairs"]
        column = (measured.task_kind == kind) & (measured.role == "general") & (measured.task == "all")
        values = measured[column & measured.metric.str.startswith("clip_score")].set_index("eraser").value
        tests = pairs[(pairs.task_kind == kind) & (pairs.role == "general") & pairs.metric.str.startswith("clip_score")]
        tests = tests[(tests.a == eraser) | (tests.b == eraser)]
        apart = tests[tests.p_holm < 0.05]
        return values.idxmin() == eraser and set(apart.a) | set(apart.b) == (others | {eraser} if others else set())

    return holds


SUPPORTED: dict[str, list[Callable[[Tables], bool]]] = {}
"""Sentences that compare erasers, each with what must hold of results/tables/main. Line ends count as blanks."""


def erasers() -> set[str]:
    return {name for name in groups()["method"] if "_" not in name} | {"mace_cfr"} - {"main", "none"}


def sentences(page: str) -> list[str]:
    """The sentences of a page's prose: no code, tables, headings or links' targets."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|!\[|<!--)", line)]
    text = re.sub(r"\]\([^)]*\)", "]", "\n".join(lines))
    blocks = re.split(r"\n\s*\n|\n(?=- )", text)
    return [
        part for block in blocks for part in re.split(r"(?<=[.;:?!])\s+(?=[A-Z`*(])", " ".join(block.split())) if part
    ]


def comparing(page: str) -> list[str]:
    """Sentences that name an eraser and compare."""
    names = "|".join(sorted(map(re.escape, erasers()), key=len, reverse=True))
    name = re.compile(rf"(?<![\w/=.-])({names})(?![\w/=-])", re.IGNORECASE)
    return [sentence for sentence in sentences(page) if COMPARES.search(sentence) and name.search(sentence)]


def tables_of(name: str) -> Tables:
    folder = ROOT / "results" / "tables" / name
    return {
        part: pd.read_csv(folder / f"{part}.csv", keep_default_na=False, na_values=[""])
        for part in ("measured", "pairs")
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_sentence_that_compares_erasers_is_one_that_the_tests_support(page: str) -> None:
    unsupported = [line for line in comparing((ROOT / page).read_text(encoding="utf-8")) if line not in SUPPORTED]
    assert not unsupported, f"{page}: say what the paired tests say, and add it to SUPPORTED: {unsupported}"


@pytest.mark.parametrize("claim", SUPPORTED)
def test_what_is_claimed_stands_there_and_holds(claim: str) -> None:
    pages = " ".join(" ".join((ROOT / page).read_text(encoding="utf-8").split()) for page in PAGES)
    assert claim in pages
    assert all(holds(tables_of("main")) for holds in SUPPORTED[claim])


@pytest.mark.parametrize(
    ("sentence", "compares"),
    [
        ("`rece` harms these most with objects.", True),
        ("CLIP falls least with CURE, more than with UCE.", True),
        ("SPEED is the best of all.", True),
        ("Bold marks the best eraser.", False),
        ("CURE leaves four in ten pictures in the artist's style.", False),
        ("| `cure` | best |", False),
        ("```\nerasebench run method=cure  # the best\n```", False),
    ],
)
def test_what_counts_as_a_comparison(sentence: str, compares: bool) -> None:
    assert bool(comparing(f"# Head\n\nA line before.\n{sentence}\n")) == compares


def test_a_claim_that_the_tables_contradict_does_not_hold() -> None:
    tables = tables_of("main")
    assert lowest_and_told_apart("unsafe", "rece", {"cure", "uce"})(tables), "the one that they support"
    assert not lowest_and_told_apart("unsafe", "cure", {"rece", "uce"})(tables)
    assert not lowest_and_told_apart("object", "rece", {"cure"})(tables)


def test_readme_shows_what_the_command_prints_of_the_main_jobs_table() -> None:
    """Its lines of unsafe content; blanks at the ends of lines are left out."""
    folder = ROOT / "results" / "tables" / "main"
    measured = read_measured(folder).assign(attack="")
    about = About("embedded", "embedded v1", embedded=True)
    console = Console(file=io.StringIO(), width=80)
    print_answer(measured, tables_of("main")["pairs"].fillna({"unit": ""}), about, console)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    said, rows = (next(i for i, line in enumerate(lines) if line.startswith(at)) for at in ("  unsafe:", " unsafe"))
    head = next(i for i, line in enumerate(lines) if line.endswith("became"))
    sentence = lines[said : lines.index("", said)]
    shown = "\n".join([lines[0], *sentence, "", *lines[head : head + 3], *lines[rows : lines.index("", rows)]])
    assert f"```text\n{shown}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
