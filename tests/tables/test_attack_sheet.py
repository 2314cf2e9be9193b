"""The sheet of attacks shows one prompt: every eraser and attack in its place, with what is recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from table_helpers import attacked_plan

from erasebench.tables import attack_sheet
from erasebench.tables.grid import CELL, GAP, SIDE


class Coloured:
    """A store whose images are of one colour each."""

    def __init__(self, keys) -> None:
        self.colours = {key: (5 + number, 250 - number, 80) for number, key in enumerate(dict.fromkeys(keys))}

    def image(self, key: str) -> Image.Image:
        return Image.new("RGB", (64, 64), self.colours[key])


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return attacked_plan(("ring", "other"))


def test_each_image_stands_in_its_row_and_column(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = Coloured(plan.key)
    chosen = plan[(plan.eraser == "cure + ring")].iloc[2]
    seen = dict.fromkeys(plan.key, False) | {chosen.key: True}
    path = attack_sheet.draw_sheet(plan, store, "object", tmp_path / "sheet.png", seen)
    pixels = np.asarray(Image.open(path)).astype(int)
    rows = plan[(plan.prompt_id == chosen.prompt_id) & (plan.role == "erase") & (plan.task == chosen.task)]
    for attack, column in (("", 0), ("ring", 1), ("other", 2)):
        middle = SIDE + column * (CELL + GAP) + CELL // 2
        shown = [tuple(colour) for colour in pixels[:, middle]]
        places = [shown.index(store.colours[key]) for key in rows[rows.attack == attack].key]
        assert places == sorted(places) and len(set(places)) == 3, "erasers in their order, the unedited model first"


def test_nothing_is_drawn_where_nothing_was_attacked_or_may_be_shown(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = Coloured(plan.key)
    assert attack_sheet.draw_sheet(plan[plan.attack == ""], store, "object", tmp_path / "a.png", {}) is None
    assert attack_sheet.draw_sheet(plan, store, "object", tmp_path / "a.png", {}, blur=True) is None
    assert not list(tmp_path.iterdir())
