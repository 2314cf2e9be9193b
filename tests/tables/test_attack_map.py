"""The picture of attacks shows every rate once, and what was not run as that."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from table_helpers import METRICS, attacked_plan, attacked_scores

from erasebench.tables import attack_map
from erasebench.tables.attacks import compare_attacks


def shown(attacks: pd.DataFrame) -> tuple[list[str], list[str], list[list[str]]]:
    """Erasers, attacks and the texts of the squares."""
    axis = attack_map.draw_map(attacks, "object").axes[0]
    across = [label.get_text() for label in axis.get_xticklabels()]
    texts = [text.get_text() for text in axis.texts]
    rows = [texts[start : start + len(across)] for start in range(0, len(texts), len(across))]
    return [label.get_text() for label in axis.get_yticklabels()], across, rows


def test_a_square_is_the_rate_of_its_eraser_under_its_attack() -> None:
    plan = attacked_plan(("ring", "other"))
    attacks = compare_attacks(plan, attacked_scores(plan, 3), METRICS)
    erasers, across, rows = shown(attacks)
    assert erasers == ["unedited", "cure", "uce"] and across == ["no attack", "ring", "other"]
    assert rows[1][:2] == ["0", "60"]
    lacking = attacks[~((attacks.eraser == "cure") & (attacks.attack == "ring"))]
    assert shown(lacking)[2][1][1] == "not run"


def test_a_picture_is_written_for_each_kind_and_none_where_nothing_was_attacked(tmp_path: Path) -> None:
    plan = attacked_plan()
    attacks = compare_attacks(plan, attacked_scores(plan, 1), METRICS)
    assert [path.name for path in attack_map.write_maps(attacks, tmp_path)] == ["attacks-object.png"]
    assert attack_map.draw_map(attacks[attacks.unit != "%"], "object") is None
    assert attack_map.write_maps(attacks.head(0), tmp_path) == []
