"""Ten steps of four trained erasers on a GPU, beside a plain training loop: seconds a step and the peak of memory.

    python tests/gpu/trained_steps.py

The model has the shape of SD 1.4 and random weights, in bfloat16; the settings are the papers', with precision=bfloat16,
and each training is stopped after ten steps. The plain loop is ESD's step written down in PyTorch alone. How long
it takes on a GPU has not been measured. Where there is none it says so and ends; ``--device cpu --small`` tries it out.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.full_size import pipeline, small_pipeline
from diffusers import DDIMScheduler

from erasebench.concepts import Concept, ErasureTask
from erasebench.methods.trained.esd import Esd
from erasebench.methods.trained.mace import Mace
from erasebench.methods.trained.receler import Receler
from erasebench.methods.trained.spm import Spm
from erasebench.models.load import Model
from erasebench.runs.training import means_of
from erasebench.store import Store

TASK = ErasureTask((Concept("church", "object", ("church",)),), ("gas pump", "tench"))
SMALL = {"steps": 2, "images": 2, "image_steps": 2, "attack_steps": 2}
"""Settings with which a small model is tried on a CPU."""


class EnoughSteps(BaseException):
    """Ends a training from its bar; no ``Exception``, which an eraser would turn into a failure of its own."""


def clocked(device: str, steps: int, training: Callable[[Callable[[], None]], None]) -> dict[str, float]:
    """Run a training that calls back after each step, until there are enough.

    Returns:
        ``seconds``, the median of all steps but the first (the kernels are chosen in it; of one step, that one);
        ``first``, seconds until the first step is done, with all that comes before it; ``peak``, GiB of the GPU from
        before the training on (0 on a CPU).
    """
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = [time.perf_counter()]

    def stepped() -> None:
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        if len(times) > steps:
            raise EnoughSteps

    with suppress(EnoughSteps):
        training(stepped)
    seconds = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    return {"seconds": statistics.median(seconds[1:] or seconds), "first": seconds[0], "peak": peak}


def erasers(small: bool) -> list[Any]:
    """The four, at the papers' settings."""
    made = []
    for eraser in (Esd(), Spm(), Mace(), Receler()):
        has = {entry.name for entry in fields(eraser)} if small else set()
        made.append(
            replace(eraser, precision="bfloat16", **{name: value for name, value in SMALL.items() if name in has})
        )
    return made


def plain_esd(pipe: Any, eraser: Esd, stepped: Callable[[], None]) -> None:
    """ESD's training in PyTorch and diffusers alone: the same evaluations, parameters and precision, and nothing else."""
    device, frozen = pipe.unet.device, pipe.unet
    student = copy.deepcopy(frozen).float().requires_grad_(False)
    trained = [parameter for name, parameter in student.named_parameters() if "attn2" in name]
    for parameter in trained:
        parameter.requires_grad_(True)
    adam = torch.optim.Adam(trained, lr=eraser.lr)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(eraser.steps)
    ids = pipe.tokenizer(["", "church"], padding="max_length", return_tensors="pt").input_ids.to(device)
    with torch.no_grad():
        texts = pipe.text_encoder(ids)[0].float()
    for step in range(eraser.iterations):
        numbers = torch.Generator().manual_seed(step)
        taken = eraser.steps - int(torch.randint(0, eraser.steps, (1,), generator=numbers))
        size = student.config.sample_size
        z = torch.randn(1, 4, size, size, generator=numbers).to(device)
        adam.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                for timestep in scheduler.timesteps[:taken]:
                    without, concept = student(torch.cat([z, z]), timestep, texts).sample.chunk(2)
                    noise = without + eraser.start_guidance * (concept - without)
                    z = scheduler.step(noise, timestep, z).prev_sample
                timestep = scheduler.timesteps[taken - 1].to(device)
                half = z.to(frozen.dtype)
                without = frozen(half, timestep, texts[:1].to(frozen.dtype)).sample.float()
                concept = frozen(half, timestep, texts[1:].to(frozen.dtype)).sample.float()
                target = without - eraser.eta * (concept - without)
            loss = torch.nn.functional.mse_loss(student(z, timestep, texts[1:]).sample, target)
        loss.backward()
        adam.step()
        stepped()


def measure(device: str, small: bool, steps: int, folder: Path) -> dict[str, dict[str, float]]:
    """All rows of the table: the four erasers, and the plain loop."""
    pipe = (small_pipeline() if small else pipeline()).to(device, torch.bfloat16)
    model = Model("random", "", "random", pipe, "sd1", 16 if small else 512, "bfloat16", device)
    rows = {}
    for eraser in erasers(small):

        def ours(stepped: Callable[[], None], eraser: Any = eraser) -> None:
            with means_of(eraser, "0" * 32, TASK, model, Store(folder / eraser.name), 4) as work:
                eraser.edit(pipe, TASK, work=replace(work, advance=lambda done, of: stepped()))

        rows[eraser.name] = clocked(device, steps, ours)
    rows["plain loop (ESD)"] = clocked(device, steps, lambda stepped: plain_esd(pipe, erasers(small)[0], stepped))
    return rows


def table(rows: dict[str, dict[str, float]], device: str, small: bool) -> str:
    """The rows for people, as Markdown."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    lines = [
        f"{name}, torch {torch.__version__}, bfloat16, random weights, {'a small model' if small else 'shape of SD 1.4'}",
        "",
        "| training | seconds a step | until the first step, s | peak, GiB |",
        "|---|---:|---:|---:|",
    ]
    lines += [f"| {row} | {one['seconds']:.3f} | {one['first']:.1f} | {one['peak']:.2f} |" for row, one in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print; returns 0 also where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, cpu")
    parser.add_argument("--small", action="store_true", help="a small model and few steps of sampling, to try it out")
    parser.add_argument("--steps", type=int, default=10, help="of each training (default 10)")
    parser.add_argument("--out", type=Path, help="also write the table into this file")
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: this machine has no CUDA device; to try the script out: --device cpu --small")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(chosen.device, chosen.small, chosen.steps, Path(folder))
    text = table(rows, chosen.device, chosen.small)
    print(text)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
