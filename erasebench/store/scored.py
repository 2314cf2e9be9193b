"""Which rows of a plan have scores, kept up with what other processes write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from erasebench.store import shards


class Scored:
    """The rows that have scores of a metric. Each look reads the shards that have come since the last one.

    Args:
        folder: of the metric's records.
        by: ``key`` and the metric's inputs.
        left_out: called with each shard whose rows cannot be used.
    """

    def __init__(self, folder: Path, by: Sequence[str], left_out: shards.LeftOut) -> None:
        self.folder, self.by, self.left_out = folder, list(by), left_out
        self._read: set[Path] = set()
        self._rows: set[tuple[Any, ...]] = set()

    def lacks(self, rows: pd.DataFrame) -> np.ndarray:
        """Which rows have no score, now; a bool for each.

        Raises:
            UserError: the records cannot be read now.
        """
        new = shards.read(self.folder, self.by, self.left_out, columns=self.by, read_before=self._read)
        self._rows.update(_values(new[self.by]))
        return np.array([row not in self._rows for row in _values(rows[self.by])], dtype=bool)


def _values(rows: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Rows as tuples that can be compared: what is absent is ``None``, whatever a library writes for it."""
    return rows.astype(object).where(rows.notna(), None).itertuples(index=False, name=None)
