"""Whether two runs order erasers alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from table_helpers import METRICS, make_plan, make_scores, printed, quiet

from erasebench.cli import main
from erasebench.errors import UserError
from erasebench.files import write_text
from erasebench.runs.names import MANIFEST_FILE, MEASURED_FILE, TABLES_FOLDER
from erasebench.store import Store
from erasebench.tables.measure import measure
from erasebench.tables.orders import FIELDS, orders, show_orders
from erasebench.tables.slices import POOLED
from erasebench.texts import to_csv


def table(values: dict[str, float], **also: str) -> pd.DataFrame:
    """Pooled numbers of one column, erased, by eraser."""
    row = {
        "task_kind": "object",
        "task": POOLED,
        "attack": "",
        "role": "erase",
        "metric": "judge@3",
        "unit": "%",
    } | also
    return pd.DataFrame([row | {"eraser": eraser, "value": value} for eraser, value in values.items()])


RISING = {f"e{number}": float(number) for number in range(5)}


def test_the_same_order_is_one_the_reverse_minus_one_and_the_unedited_model_has_no_place() -> None:
    for sign in (1, -1):
        again = {name: sign * value**3 for name, value in RISING.items()} | {"none": -sign * 1e3}
        (answer,) = orders(table(RISING | {"none": 9.0}), table(again), "B").to_dict("records")
        assert answer["value"] == pytest.approx(sign) and answer["n"] == 5 and answer["with"] == "B"


def test_what_one_run_lacks_is_left_out_and_erasers_that_are_alike_have_no_order() -> None:
    other = pd.concat([table(RISING, task_kind="artist"), table(dict.fromkeys(RISING, 0.5))])
    answers = orders(table(RISING), other, "B")
    assert list(answers.columns) == list(FIELDS) and len(answers) == 1
    assert np.isnan(answers.value[0]) and answers.note[0] == "all erasers are alike"


def test_it_is_printed_and_written_beside_the_first_runs_tables(tmp_path) -> None:
    store, console = Store(tmp_path), quiet()
    for name in "AB":
        write_text(tmp_path / "runs" / name / MANIFEST_FILE, "{}")
    plan = make_plan(("none", "cure", "uce", "rece", "speed"))
    measured = measure(plan, make_scores(plan), METRICS)
    write_text(tmp_path / "runs" / "A" / TABLES_FOLDER / MEASURED_FILE, to_csv(measured))
    with pytest.raises(UserError, match="run B has no tables yet; make them with: erasebench finish B"):
        show_orders("A", "B", store, console)
    write_text(tmp_path / "runs" / "B" / TABLES_FOLDER / MEASURED_FILE, to_csv(measured))
    written = show_orders("A", "B", store, console)
    assert [path.name for path in written] == ["orders.csv", "orders.md"] and all(path.exists() for path in written)
    assert "object: same order in B, " in printed(console) and ": 1.00 [-1.00, 1.00], n 4" in printed(console)
    other = measured.assign(task_kind="artist")
    write_text(tmp_path / "runs" / "B" / TABLES_FOLDER / MEASURED_FILE, to_csv(other))
    with pytest.raises(UserError, match="runs A and B have no kind and rate in common"):
        show_orders("A", "B", store, console)


def test_one_run_has_one_order(capsys) -> None:
    assert main(["table", "A", "C", "--orders", "B"]) == 2
    assert "--orders: name one run before it" in capsys.readouterr().err
