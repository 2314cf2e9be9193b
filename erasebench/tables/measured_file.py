"""The tidy table of a folder of tables, read again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from erasebench.errors import Damaged, UserError
from erasebench.files import read_whole
from erasebench.runs.names import MEASURED_FILE
from erasebench.tables.measure import MEASURED_COLUMNS
from erasebench.texts import from_csv

NUMBERS = ("value", "low", "high", "n", "difference", "difference_low", "difference_high")
"""The columns of numbers; the others are texts."""

LATER = ("concepts", "texts", "seeds", "low_concepts", "high_concepts")
"""Columns of numbers that tables of earlier versions do not have."""


def read_measured(folder: Path) -> pd.DataFrame:
    """What :func:`erasebench.tables.layout.write_tables` wrote; the column ``attack`` is there if there were attacks.

    Raises:
        FileNotFoundError: no table is there.
        UserError: it cannot be read.
    """
    path, cure = folder / MEASURED_FILE, "make it again with: erasebench table"
    try:
        table = pd.read_csv(io.BytesIO(read_whole(path)), dtype=str, keep_default_na=False)
        if lacking := [name for name in MEASURED_COLUMNS if name not in (*table.columns, "attack", *LATER)]:
            raise ValueError(f"no column {', '.join(lacking)}")
        table = from_csv(table)
        # Only an empty cell is a missing number: a concept may be called NA.
        given = [name for name in (*NUMBERS, *LATER) if name in table]
        numbers = {name: pd.to_numeric(table[name].where(table[name] != "")).astype(float) for name in given}
        if wrong := [name for name in given if np.isinf(numbers[name]).any()]:
            raise ValueError(f"a number without an end in {', '.join(wrong)}")
    except Damaged as error:
        raise UserError(f"{path}: cannot be read ({error.why}); {cure}") from error
    except ValueError as error:  # pandas' own are
        raise UserError(f"{path}: cannot be read ({error}); {cure}") from error
    return table.assign(**numbers)
