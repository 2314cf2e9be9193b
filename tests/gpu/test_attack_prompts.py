"""The script that times an attack on a GPU is whole where there is none."""

from __future__ import annotations

from gpu.attack_prompts import measure, table


def test_the_script_times_an_attack_on_a_cpu():
    row = measure("cpu", True, 2)
    assert row["prompt"] > 0 and row["image"] > 0 and row["peak"] == 0
    assert "a small model" in table(row, "cpu", True, 2)
