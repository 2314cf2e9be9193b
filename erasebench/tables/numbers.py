"""All that tables say of some runs: the numbers, and what they tell of pairs, attacks and single concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from erasebench.runs.about import About
from erasebench.scores.metric import Metric
from erasebench.scores.rates import WILSON
from erasebench.tables import attacks, by_concept, comparable, instead, overall, pairs, reliability
from erasebench.tables.layout import write_tables
from erasebench.tables.measure import measure_concepts


@dataclass(frozen=True)
class Numbers:
    """The tables of some runs.

    Attributes:
        measured: see :func:`erasebench.tables.measure.measure`.
        pairs: see :func:`erasebench.tables.pairs.compare`.
        attacked: see :func:`erasebench.tables.attacks.compare_attacks`.
        concepts: see :func:`erasebench.tables.measure.measure_concepts`.
        instead: see :func:`erasebench.tables.instead.came_instead`.
    """

    measured: pd.DataFrame
    pairs: pd.DataFrame
    attacked: pd.DataFrame
    concepts: pd.DataFrame
    instead: pd.DataFrame

    def write(self, folder: Path, about: About) -> list[Path]:
        """Write all of them into a folder.

        Returns:
            The files of :func:`erasebench.tables.layout.write_tables`.
        """
        from erasebench.tables import attack_map  # it loads matplotlib, which a run that is finished does not need

        written = write_tables(self.measured, folder, about, self.pairs)
        pairs.write_pairs(self.pairs, folder)
        attacks.write_attacks(self.attacked, folder, about.forgot)
        attack_map.write_maps(self.attacked, folder)
        by_concept.write_concepts(self.concepts, self.measured, folder)
        instead.write_instead(self.instead, folder)
        overall.write_overall(self.measured, folder)
        reliability.write_reliability(reliability.reliability(self.measured, self.pairs, self.concepts), folder)
        return written


def numbers_of(
    measured: pd.DataFrame,
    plan: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    metrics: Sequence[Metric],
    not_run: Mapping[str, str],
    rates: str = WILSON,
) -> Numbers:
    """What was measured, and what the same scores tell besides.

    Args:
        measured: the table that was made of the rest.
        plan: see :func:`erasebench.tables.measure.measure`, as for what follows.
        scores: by ``metric.records_id``.
        metrics: which numbers.
        not_run: by ``metric.id``, why it has no scores.
        rates: the interval of rates.
    """
    return Numbers(
        measured,
        pairs.compare(plan, scores, metrics, not_run),
        attacks.compare_attacks(plan, scores, metrics, not_run, rates),
        measure_concepts(plan, scores, metrics, not_run, rates),
        instead.came_instead(plan, scores, metrics, not_run),
    )


def side_by_side(parts: Sequence[Numbers], names: Sequence[str]) -> Numbers:
    """Numbers that were measured differently, the metrics of each part with its name, so that none share a column."""
    tables = {
        entry.name: pd.concat(
            [comparable.labelled(getattr(part, entry.name), name) for part, name in zip(parts, names, strict=True)],
            ignore_index=True,
        )
        for entry in fields(Numbers)
    }
    return Numbers(**tables)
