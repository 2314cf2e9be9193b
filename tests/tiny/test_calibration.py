"""How far the judge's chances can be trusted, and where words stand: counted right, and as good as is said."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from erasebench.models.load import Model, load_model
from erasebench.tiny.calibration import EDGES, PICTURES, calibration, cosines, write_calibration
from erasebench.tiny.judge import read_judge
from erasebench.tiny.names import HEADS, NAMES, NEAR


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("embedded", name="embedded")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return calibration(read_judge(), n=500)


def test_every_name_of_every_picture_is_counted_once(table: pd.DataFrame) -> None:
    counted = table.groupby("head").n.sum()
    assert dict(counted) == {head: 500 * len(names) for head, names in HEADS.items()}
    assert ((table.low <= table.chance) & (table.chance <= table.high)).all() and set(table.low) <= set(EDGES)


def test_by_default_it_counts_as_many_as_the_committed_table() -> None:
    committed = pd.read_csv(Path(__file__).parents[2] / "results" / "tables" / "embedded" / "calibration.csv")
    counted = committed.groupby("head").n.sum()
    assert dict(counted) == {head: PICTURES * len(names) for head, names in HEADS.items()}
    assert {inspect.signature(made).parameters["n"].default for made in (calibration, write_calibration)} == {PICTURES}


def test_chances_are_those_of_being_there(table: pd.DataFrame) -> None:
    """The mean distance between chance and share, over all names, stays below two in a hundred."""
    error = np.average(np.abs(table.chance - table.there), weights=table.n)
    assert error < 0.02
    sure = table[(table.low >= 0.99)]
    assert np.average(sure.there, weights=sure.n) > 0.95
    absent = table[(table.high <= 0.01)]
    assert np.average(absent.there, weights=absent.n) < 0.01


def test_near_neighbours_stand_nearer_than_others(model: Model) -> None:
    matrix = cosines(model, NAMES)
    assert np.allclose(np.diag(matrix), 1) and np.allclose(matrix, matrix.T)
    pairs = [tuple(pair) for pair in NEAR]
    near = np.mean([matrix.loc[a, b] for a, b in pairs])
    every = matrix.to_numpy()[np.triu_indices(len(matrix), 1)].mean()
    assert near > every + 0.2


def test_tables_and_pictures_are_written(model: Model, tmp_path: Path) -> None:
    written = write_calibration(read_judge(), model, tmp_path, n=250)
    assert [path.name for path in written] == ["calibration.csv", "cosines.csv", "calibration.png", "cosines.png"]
    assert all(path.stat().st_size > 500 for path in written)
    assert list(pd.read_csv(written[1], index_col=0).columns) == list(NAMES)
