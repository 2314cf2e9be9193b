"""Build the embedded model from nothing: draw the world, train every part, write the pipeline folder.

    python -m erasebench.tiny.train --out DIR --stage all

Two processes of one thread train the UNet faster than one of two threads (about 190 against 150 samples/s, measured on
2 cores with other work on them):

    torchrun --nproc-per-node 2 -m erasebench.tiny.train --out DIR --stage unet --threads 1

Each stage reads what the ones before it left in DIR, is seeded, saves a checkpoint about once a minute, and goes on
from it when the same command is given again; a finished stage is passed over. `export` may be run at any time: it
writes the averaged weights that the checkpoints hold then.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

from . import data, train_clip, train_judge, train_unet, train_vae
from .export import export
from .judge import Judge
from .loop import Fit
from .models import build_clip, build_unet, build_vae
from .names import HEADS
from .tokenizer import train_tokenizer

STAGES = ("data", "tokenizer", "clip", "vae", "judge", "latents", "unet", "export")
"""The stages in order; `latents` encodes the pictures and captions that `unet` trains on."""


@dataclass(frozen=True)
class Plan:
    """All that decides the embedded model, besides the seed. The defaults are those of the shipped weights.

    The shipped UNet was first planned for 2200 steps and lengthened to 4900 after their fall, so that its learning rate
    fell twice; a training by these numbers is as long and falls once.
    """

    renders: int = 96_000
    clip: Fit = Fit(steps=400, batch=512, lr=1e-3, warmup=100, weight_decay=0.05, ema=0.99, decay=0.9)
    vae: Fit = Fit(steps=1200, batch=64, lr=2e-3, warmup=100, weight_decay=1e-4, ema=0.998, decay=0.7)
    judge: Fit = Fit(steps=5200, batch=256, lr=2e-3, warmup=100, weight_decay=0.02, ema=0.99, decay=0.9)
    unet: Fit = Fit(steps=4900, batch=256, lr=1.2e-3, warmup=200, weight_decay=0.01, ema=0.999, decay=0.6)
    vae_channels: tuple[int, ...] = (32, 32, 64, 128)
    clip_layers: int = 4
    unet_channels: tuple[int, ...] = (96, 192)
    judge_channels: tuple[int, ...] = (48, 96, 128, 192, 256)


def run_stage(
    stage: str,
    out: Path,
    weights: Path,
    plan: Plan,
    *,
    seed: int = 0,
    workers: int = 2,
    stop_at: int | None = None,
    save_seconds: float = 60.0,
    device: str = "cpu",
) -> None:
    """Run one stage of `STAGES` in the folder `out`; `export` writes to the folder `weights`.

    What is trained lies on `device`.

    `stop_at` ends a training stage early at that step (for tests and rehearsals); giving the command again goes on.
    """
    options: dict[str, Any] = dict(seed=seed, stop_at=stop_at, save_seconds=save_seconds)
    if stage == "data":
        data.draw_world(out, plan.renders, workers)
        return
    if stage == "export":
        export(out, weights, plan)
        return
    world = data.load_world(out).to(device if stage in ("clip", "vae", "judge") else "cpu")
    torch.manual_seed(seed)  # of the first weights, which are drawn on the CPU
    if stage == "tokenizer":
        tokenizer = train_tokenizer(world.captions, out / "tokenizer")
        print(f"tokenizer: {len(tokenizer)} tokens, {len(set(world.captions))} distinct captions", flush=True)
    elif stage == "clip":
        tokenizer = load_tokenizer(out)
        clip = build_clip(tokenizer, layers=plan.clip_layers).to(device)
        train_clip.train_clip(world, tokenizer, clip, out, plan.clip, **options)
    elif stage == "vae":
        vae = train_vae.train_vae(world, out, plan.vae, build_vae(plan.vae_channels).to(device), **options)
        if stop_at is None:
            print(f"vae, fresh renders: mean absolute error {train_vae.reconstruction(vae):.4f}", flush=True)
    elif stage == "judge":
        judge = Judge(HEADS, plan.judge_channels).to(device)
        train_judge.train_judge(world, out, plan.judge, judge, **options)
        if stop_at is None:
            print("judge, fresh renders:", train_judge.accuracy(judge), flush=True)
    elif stage == "latents":
        tokenizer = load_tokenizer(out)
        train_clip.encode_captions(world, tokenizer, build_clip(tokenizer, layers=plan.clip_layers).to(device), out)
        train_vae.encode_world(world, out, build_vae(plan.vae_channels).to(device))
    elif stage == "unet":
        text, which = train_clip.load_text(out)
        train_unet.train_unet(
            train_vae.load_latents(out),
            text,
            which,
            build_unet(plan.unet_channels).to(device),
            out,
            plan.unet,
            **options,
        )


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_tokenizer(out: Path) -> CLIPTokenizer:
    """The tokenizer that the stage `tokenizer` wrote."""
    return CLIPTokenizer.from_pretrained(Path(out) / "tokenizer")


def train_all(
    out: Path,
    weights: Path | None = None,
    *,
    stages: Sequence[str] = STAGES,
    plan: Plan | None = None,
    seed: int = 0,
    threads: int | None = None,
    workers: int | None = None,
    save_seconds: float = 60.0,
    device: str = "cpu",
) -> Path:
    """Run `stages` in order in the folder `out`; returns the pipeline folder (`weights`, by default `out/weights`).

    `threads` for torch (default: as many as there are cores), `workers` processes for drawing (the same), `device` of
    what is trained. Raises ValueError for an unknown stage.
    """
    unknown = [s for s in stages if s not in STAGES]
    if unknown:
        raise ValueError(f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    torch.set_num_threads(threads or cores())
    out, weights = Path(out), Path(weights) if weights is not None else Path(out) / "weights"
    started = time.monotonic()
    for stage in stages:
        begun = time.monotonic()
        run_stage(
            stage, out, weights, plan or Plan(), seed=seed, workers=workers or cores(), save_seconds=save_seconds, device=device
        )  # fmt: skip
        now = time.monotonic()
        print(f"{stage}: {(now - begun) / 60:.1f} min, {(now - started) / 60:.1f} min in all", flush=True)
    return weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `erasebench tiny train`."""
    parser.add_argument("--out", type=Path, required=True, help="working folder: drawings, checkpoints (about 3 GB)")
    parser.add_argument("--weights", type=Path, help="folder for the finished pipeline (default: OUT/weights)")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all", help="one stage, or all in order (default)")
    parser.add_argument("--steps", type=int, help="training steps of the stage, in place of the shipped model's")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    parser.add_argument("--threads", type=int, help="torch threads (default: all cores)")
    parser.add_argument("--device", default="cpu", help="where it is trained, e.g. cuda (default cpu)")
    parser.add_argument("--workers", type=int, help="drawing processes (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Carry out parsed options; returns the exit status."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if args.stage != "unet":
            print("only --stage unet is trained by several processes together")
            return 2
        torch.distributed.init_process_group("gloo")
    plan = Plan()
    if args.steps is not None:
        if args.stage not in ("clip", "vae", "judge", "unet") or args.steps < 1:
            print("--steps needs a positive number and one of --stage clip, vae, judge, unet")
            return 2
        plan = replace(plan, **{args.stage: replace(getattr(plan, args.stage), steps=args.steps)})
    stages = STAGES if args.stage == "all" else (args.stage,)
    train_all(
        args.out, args.weights, stages=stages, plan=plan, seed=args.seed, threads=args.threads, workers=args.workers,
        device=args.device,
    )  # fmt: skip
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m erasebench.tiny.train`."""
    parser = argparse.ArgumentParser(
        prog="erasebench tiny train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
