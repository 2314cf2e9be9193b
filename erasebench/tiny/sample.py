"""Draw a grid of renders beside pictures generated from the same captions.

python -m erasebench.tiny.sample --png grid.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from .data import FRESH
from .names import ARTISTS, EVERYDAY, OBJECTS, PEOPLE, UNSAFE
from .world import Scene, make_scene, render

WEIGHTS = Path(__file__).parent / "weights"
"""The shipped pipeline folder."""

STEPS = 12
"""Sampling steps (DDIM) of the shipped model, as in conf/protocol/embedded.yaml."""

GUIDANCE = 4.0
"""Classifier-free guidance of the shipped model; judged as well at 3 and at 5 (`erasebench tiny evaluate`)."""


def load_pipeline(weights: Path | str | None = None) -> StableDiffusionPipeline:
    """The pipeline of a folder (default: the shipped one) in float32, without a network."""
    pipe = StableDiffusionPipeline.from_pretrained(
        weights or WEIGHTS, torch_dtype=torch.float32, local_files_only=True, use_safetensors=True, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch: int = 50,
) -> np.ndarray:
    """Generated pictures, uint8 [n, 64, 64, 3]; each starts from its own CPU generator, seeded by its seed."""
    pictures = []
    for start in range(0, len(prompts), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        pictures.append(
            pipe(
                list(prompts[start : start + batch]),
                generator=generators,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
            ).images
        )
    return (np.concatenate(pictures) * 255).round().astype(np.uint8)


def tour(seed: int = FRESH) -> list[Scene]:
    """One scene for each object, person, artist, unsafe and everyday thing of the world, and six with two things."""
    chosen: list[dict[str, Any]] = []
    chosen += [*({"object": x} for x in OBJECTS), *({"person": x} for x in PEOPLE), *({"unsafe": x} for x in UNSAFE)]
    chosen += [{"artist": x, "object": OBJECTS[(3 * i) % len(OBJECTS)]} for i, x in enumerate(ARTISTS)]
    chosen += [{"everyday": x} for x in EVERYDAY]
    chosen += [{"object": x, "beside": OBJECTS[(3 * i + 7) % len(OBJECTS)]} for i, x in enumerate(OBJECTS[:6])]
    return [make_scene(seed + i, **words) for i, words in enumerate(chosen)]


def grid(rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: int = 3, scale: int = 2) -> Image.Image:
    """A sheet of labelled cells: each a text above its pictures (uint8 [64, 64, 3]), side by side."""
    side = 64 * scale
    across = max(len(pictures) for _, pictures in rows)
    width, height, gap, text_height = across * (side + 4), side, 14, 30
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, lines * (height + text_height + gap) + gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, (label, pictures) in enumerate(rows):
        x = gap + (i % columns) * (width + gap)
        y = gap + (i // columns) * (height + text_height + gap)
        pen.text((x, y), _wrapped(label or '""', font, width), fill="black", font=font, spacing=1)
        for k, picture in enumerate(pictures):
            sheet.paste(
                Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST),
                (x + k * (side + 4), y + text_height),
            )
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """At most two lines of `text` that fit in `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines[:2])


def sample(
    png: Path,
    weights: Path | None = None,
    *,
    seed: int = FRESH,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    each: int = 3,
) -> None:
    """Write the grid of `tour` to `png`: beside each render, `each` pictures generated from its caption."""
    scenes = tour(seed)
    prompts = [s.caption for s in scenes for _ in range(each)]
    made = generate(load_pipeline(weights), prompts, range(len(prompts)), steps=steps, guidance=guidance)
    rows = [(s.caption, [render(s), *made[i * each : (i + 1) * each]]) for i, s in enumerate(scenes)]
    grid(rows).save(png)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `erasebench tiny sample`."""
    parser.add_argument("--png", type=Path, default=Path("tiny_sample.png"), help="picture to write")
    parser.add_argument("--weights", type=Path, help="pipeline folder (default: the shipped one)")
    parser.add_argument("--seed", type=int, default=FRESH, help="seed of the scenes")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"sampling steps (default {STEPS})")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help=f"guidance (default {GUIDANCE})")
    parser.add_argument("--each", type=int, default=3, help="generated pictures for each caption (default 3)")


def run(args: argparse.Namespace) -> int:
    """Carry out parsed options; returns the exit status."""
    sample(args.png, args.weights, seed=args.seed, steps=args.steps, guidance=args.guidance, each=args.each)
    print(f"{args.png}: in each cell the render, then {args.each} generated from its caption")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m erasebench.tiny.sample`."""
    parser = argparse.ArgumentParser(
        prog="erasebench tiny sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
