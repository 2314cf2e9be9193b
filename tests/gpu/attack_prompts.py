"""UnlearnDiffAtk on ten prompts on a GPU: seconds a prompt and the peak of memory.

    python tests/gpu/attack_prompts.py

The model has the shape of SD 1.4 and random weights, so nothing is ever recognised and no search stops early. Each prompt
gets one of the released 50 timesteps: 40 steps of Adam, and an image before and after. The whole search of a prompt that
resists takes 50 times the steps and 51 images; the last line works that out. Where there is no GPU it says so and ends;
``--device cpu --small`` tries it out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.full_size import pipeline, small_pipeline

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.images.generate import draw_tries
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.attacks.unlearndiffatk import UnlearnDiffAtk
from erasebench.models.load import Model
from erasebench.recipe import Recipe

CHURCH = Concept("church", "object", ("church",))
TIMESTEPS = 50
"""Of the release; one of them is timed."""


def measure(device: str, small: bool, prompts: int) -> dict[str, float]:
    """What a prompt costs.

    Returns:
        Medians over prompts: ``step`` and ``image``, seconds of one; ``prompt``, of the 40 steps and two images; ``whole``, of
        a search that never succeeds, by the two; ``peak``, GiB (0 on a CPU).
    """
    cuda = device.startswith("cuda")
    pipe = (small_pipeline() if small else pipeline()).to(device)  # in float32, which gradient attacks ask for
    size = 16 if small else 512
    model = Model("random", "", "random", pipe, "sd1", size, "float32", device)
    attack = UnlearnDiffAtk(timesteps=1, iterations=2 if small else 40)
    spent: dict[str, list[float]] = {"image": [], "prompt": []}
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for seed in range(prompts):
        recipe = Recipe(
            "random", "random", "", f"a photo of a church, number {seed}", "", seed, 2 if small else 50, 7.5, size, size,
            *scheduler_identity(pipe, "LMSDiscrete", {}), "float32",
        )  # fmt: skip

        def draw(tries: Sequence[Found], recipe: Recipe = recipe) -> list[Image.Image]:
            began = time.perf_counter()
            named = {f"try {number}": one for number, one in enumerate(tries)}
            recipes = [replace(recipe, attack=name) for name in named]
            images = draw_tries(model, recipes, 1, [attack.hook(named)])
            spent["image"].append((time.perf_counter() - began) / len(images))
            return images

        tools = Tools(
            targets=[Image.effect_noise((size, size), 64).convert("RGB")], draw=draw,
            sees=lambda images: [False] * len(images),
        )  # fmt: skip
        began = time.perf_counter()
        attack.find(pipe, (CHURCH,), recipe, tools)
        spent["prompt"].append(time.perf_counter() - began)
    # The first prompt chooses kernels.
    image, prompt = (statistics.median(spent[name][1:] or spent[name]) for name in ("image", "prompt"))
    step = (prompt - 2 * image) / attack.iterations
    return {
        "step": step, "image": image, "prompt": prompt,
        "whole": TIMESTEPS * attack.iterations * step + (TIMESTEPS + 1) * image,
        "peak": torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
    }  # fmt: skip


def table(row: dict[str, float], device: str, small: bool, prompts: int) -> str:
    """The numbers for people, as Markdown."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    shape = "a small model" if small else "shape of SD 1.4"
    return (
        f"UnlearnDiffAtk, {prompts} prompts; {name}, torch {torch.__version__}, float32, random weights, {shape}\n\n"
        "| a step, s | an image, s | one timestep of a prompt, s | the whole search of a prompt that resists, s | peak, GiB |\n"
        "|---:|---:|---:|---:|---:|\n"
        f"| {row['step']:.4f} | {row['image']:.2f} | {row['prompt']:.2f} | {row['whole']:.0f} | {row['peak']:.2f} |\n"
    )


def main() -> int:
    """Measure and print; returns 0 also where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, cpu")
    parser.add_argument("--small", action="store_true", help="a small model and two steps, to try it out")
    parser.add_argument("--prompts", type=int, default=10, help="how many (default 10)")
    parser.add_argument("--out", type=Path, help="also write the table into this file")
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: this machine has no CUDA device; to try the script out: --device cpu --small")
        return 0
    text = table(measure(chosen.device, chosen.small, chosen.prompts), chosen.device, chosen.small, chosen.prompts)
    print(text)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
