"""Training the embedded model: every stage runs, and a training that was cut off is the one that never was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from erasebench.tiny import judge
from erasebench.tiny.loop import Fit, checkpoint_path
from erasebench.tiny.models import bf16
from erasebench.tiny.names import HEADS
from erasebench.tiny.train import STAGES, Plan, main, run_stage, train_all

STEPS = 3
SMALL = Plan(
    renders=64,
    clip=Fit(steps=STEPS, batch=4, lr=1e-3, warmup=2),
    vae=Fit(steps=STEPS, batch=2, lr=1e-3, warmup=2),
    judge=Fit(steps=STEPS, batch=4, lr=1e-3, warmup=2),
    unet=Fit(steps=STEPS, batch=4, lr=1e-3, warmup=2),
    vae_channels=(8, 8, 8, 16),
    clip_layers=1,
    unet_channels=(32, 32),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training")
    train_all(out, plan=SMALL, threads=1, workers=1)
    return out


def test_all_stages_make_a_pipeline_that_loads_and_draws(trained: Path) -> None:
    folder = trained / "weights"
    assert not list(folder.rglob("*.bin")) and list(folder.rglob("*.safetensors"))
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    (image,) = pipe("a photo of a church", num_inference_steps=1, output_type="np").images
    assert image.shape == (64, 64, 3)
    network = judge.read_judge(folder / "judge")
    chances = network.chances(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert {head: tuple(part.shape) for head, part in chances.items()} == {
        **{head: (2, len(names)) for head, names in HEADS.items()},
        judge.BROKEN: (2, 1),
    }
    assert network.features(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape[0] == 2


@pytest.mark.parametrize("stage", ["clip", "vae", "judge", "unet"])
def test_a_training_that_was_cut_off_ends_with_the_same_weights(trained: Path, stage: str, tmp_path: Path) -> None:
    for name in ("data", "tokenizer", "text", "latents", "clip", "vae"):
        if name != stage and (trained / name).exists():
            (tmp_path / name).symlink_to(trained / name)
    run_stage(stage, tmp_path, tmp_path / "weights", SMALL, stop_at=1)
    run_stage(stage, tmp_path, tmp_path / "weights", SMALL)
    whole, resumed = (load_file(checkpoint_path(out, stage)) for out in (trained, tmp_path))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0, msg=f"{stage}: {name}")


def test_a_finished_stage_is_passed_over(trained: Path) -> None:
    before = checkpoint_path(trained, "vae").stat().st_mtime_ns
    run_stage("vae", trained, trained / "weights", SMALL)
    assert checkpoint_path(trained, "vae").stat().st_mtime_ns == before


def test_the_defaults_are_those_of_the_shipped_weights() -> None:
    """``steps.json`` beside the weights says which steps they are of."""
    import json

    from erasebench.models.load import embedded_folder

    steps = json.loads((embedded_folder() / "steps.json").read_text())
    assert steps == {stage: getattr(Plan(), stage).steps for stage in ("clip", "vae", "unet", "judge")}


def test_unknown_stages_and_steps_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="unknown stage 'vea'"):
        train_all(tmp_path, stages=["vea"])
    assert main(["--out", str(tmp_path), "--stage", "data", "--steps", "3"]) == 2
    assert main(["--out", str(tmp_path), "--stage", "vae", "--steps", "0"]) == 2
    assert "--steps needs a positive number" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "mixed"), [((), False), (("avx512_bf16",), True), (("amx_bf16",), True), (("sve_bf16",), True)]
)
def test_bfloat16_is_for_cpus_that_multiply_it(flags, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"avx2": True, "avx512_bf16": False, "architecture": "any"} | dict.fromkeys(flags, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    with bf16():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if mixed else torch.float32)


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    fit = Fit(steps=1000, batch=1, lr=1e-3, warmup=100, decay=0.5)
    rates = [fit.lr_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5) and rates[100:499] == pytest.approx([1e-3] * 399)
    assert all(a >= b for a, b in zip(rates[500:], rates[501:], strict=False)) and rates[-1] < 3e-5
    longer = replace(fit, steps=1200)
    assert [longer.lr_at(step) for step in range(500)] == rates[:500], "it may be lengthened before the fall"
    assert STAGES[-1] == "export"
