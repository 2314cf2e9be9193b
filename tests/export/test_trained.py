"""What trainings left is exported as a LoRA where one can hold it, and refused by name where none can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DiffusionPipeline
from rich.console import Console

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.export.export import export
from erasebench.run import run
from erasebench.store import Store

ERASERS = {
    "mace": ["iterations=3", "lr=1e-2", "images=2", "image_steps=2"],
    "esd": ["iterations=2", "lr=1e-2", "steps=2", "train=x-strict"],
    "esd2025": ["iterations=2", "lr=1e-2", "steps=2"],
    "spm": ["iterations=2", "steps=2"],
    "receler": ["iterations=2", "steps=2", "attack_steps=2"],
}
OTHERS = ("esd_u", "advunlearn", "trce_full", "sdd", "ablation", "ablation_noise", "salun", "few_shot", "fmn")


@pytest.fixture(scope="module")
def base(small_pipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    small_pipe().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def store(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run of short trainings."""
    folder = tmp_path_factory.mktemp("results")
    options = [f"method.{name}.{option}" for name, options in ERASERS.items() for option in options]
    run(
        compose(
            [
                "method=trained", *(f"~method.{name}" for name in OTHERS), *options, "model=folder", f"model.path={base}", "model.name=small", "protocol=embedded", "protocol.steps=2",
                "task=object", "task.erase=[church]", "metric=[judge]", "prompts.per_erased=1",
                "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0",
                "prompts.general=1", "device=cpu", f"store.dir={folder}", "name=mine",
            ]
        ),
        Console(quiet=True),
    )  # fmt: skip
    return folder


def row_of(store: Path, eraser: str) -> pd.Series:
    """The row of the run's plan that an eraser has; its name goes on with its settings."""
    plan = pd.read_parquet(store / "runs" / "mine" / "plan.parquet")
    return plan[plan.eraser.str.startswith(f"{eraser} ")].iloc[0]


def exported(store: Path, eraser: str, folder: Path) -> Path:
    name = row_of(store, eraser).eraser
    return export("lora", run="mine", eraser=name, out=str(folder), store=str(store), console=Console(quiet=True))


def pixels(pipe: DiffusionPipeline) -> np.ndarray:
    """One image as levels of 255."""
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a photo of a church", num_inference_steps=2, generator=torch.Generator().manual_seed(3))
    return np.asarray(made.images[0]).astype(int)


@pytest.mark.parametrize("eraser", ["mace", "esd"])
def test_what_is_trained_in_keys_and_values_is_a_lora_of_the_same_pixels(store, base, tmp_path, eraser):
    pytest.importorskip("peft")
    out = exported(store, eraser, tmp_path / "lora")
    pipe = DiffusionPipeline.from_pretrained(base)
    unedited = pixels(pipe)
    with Store(store).get_edit(row_of(store, eraser).edit_key).applied(pipe):
        expected = pixels(pipe)
    assert np.abs(expected - unedited).max() > 3, "an edit that is not seen would prove nothing"
    pipe.load_lora_weights(str(out))
    # The sums of the LoRA are rounded elsewhere than those of the edited weight.
    assert np.abs(pixels(pipe) - expected).max() <= 1


@pytest.mark.parametrize(
    ("eraser", "why"),
    [
        ("spm", r"eraser spm: .* acts while images are sampled \(spm\)"),
        ("receler", r"eraser receler: .* acts while images are sampled \(receler\)"),
        ("esd2025", r"unet\..*attn2\..*bias: not a linear layer .* use format=delta or diffusers"),
    ],
)
def test_what_no_lora_can_hold_is_refused_by_name(store, tmp_path, eraser, why):
    with pytest.raises(UserError, match=why):
        exported(store, eraser, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
