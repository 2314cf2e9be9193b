"""What needs a GPU, where there is one; and that its script is whole, where there is none."""

from __future__ import annotations

import pytest
import torch
from gpu.trained_steps import measure, table

TRAININGS = {"esd", "spm", "mace", "receler", "plain loop (ESD)"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: ten steps of four trainings")
def test_ten_steps_of_each_training_on_a_gpu(tmp_path, capsys):
    rows = measure("cuda", False, 10, tmp_path)
    with capsys.disabled():
        print("\n" + table(rows, "cuda", False))
    assert set(rows) == TRAININGS
    for name, row in rows.items():
        # The pipeline in 16 bits is 2 GiB, the float32 copy of the network 3.2.
        assert 5 < row["peak"] < torch.cuda.get_device_properties(0).total_memory / 2**30, name


def test_the_script_steps_each_training_on_a_cpu(tmp_path):
    rows = measure("cpu", True, 2, tmp_path)
    assert set(rows) == TRAININGS
    for row in rows.values():
        assert row["first"] > 0 and row["seconds"] > 0 and row["peak"] == 0
    text = table(rows, "cpu", True)
    assert "a small model" in text and all(f"| {name} |" in text for name in TRAININGS)
