"""Train the embedded model's UNet from nothing without the pictures of a concept: what erasing would be at its best.

    erasebench tiny retrain --without church
    erasebench tiny retrain --without knife pistol bomb

No picture that shows a concept named is in the training; all else is as in the training of the shipped model, with its
text encoder, its autoencoder and other pictures of the same world. What is written is the UNet, in OUT/church.safetensors,
which ``method=retrained`` reads. A training that is cut off goes on when the same command is given again. Models of one
concept each may share the most of it: train one without all of them, then go on from it with ``--start``:

    erasebench tiny retrain --without church "Albert Einstein" --steps 1300
    erasebench tiny retrain --without church --start results/retrained/church-albert_einstein.safetensors --steps 200
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from erasebench.errors import UserError, suggest
from erasebench.files import write_atomic
from erasebench.models.load import Model, load_model, quiet_libraries
from erasebench.models.pipeline import part_of
from erasebench.models.targets import denoiser
from erasebench.tiny import data, train_clip, train_vae
from erasebench.tiny.loop import Fit, checkpoint_path, load_tensors
from erasebench.tiny.names import NAMES
from erasebench.tiny.train import Plan, cores
from erasebench.tiny.train_unet import train_unet

RENDERS, STEPS = 40_000, 1600
"""Pictures, and training steps, unless others are asked for: a sixth of the shipped model's images, two fifths of its pictures."""

FIT = replace(Plan().unet, steps=STEPS, batch=128, ema=0.995)
"""The shipped model's settings, but for the steps and the batch; the weights' average forgets faster, as there are fewer steps."""


def labels_of(concepts: Sequence[str]) -> list[int]:
    """Of each concept its column among the labels.

    Raises:
        UserError: a concept that no head knows, with the nearest.
    """
    folded = {name.casefold(): place for place, name in enumerate(NAMES)}
    for concept in concepts:
        if concept.casefold() not in folded:
            hint = suggest(concept, NAMES) or f" Known: {', '.join(NAMES)}"
            raise UserError(f"--without: the embedded world labels no {concept!r}.{hint}")
    return [folded[concept.casefold()] for concept in concepts]


def shows(world: data.World, concepts: Sequence[str]) -> np.ndarray:
    """Which pictures of a world show any of some concepts, as booleans [n]. Raises as :func:`labels_of`."""
    return world.labels[:, labels_of(concepts)].any(1).cpu().numpy()


def retrain(
    concepts: Sequence[str],
    out: Path,
    *,
    renders: int = RENDERS,
    fit: Fit = FIT,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
    start: Path | None = None,
    stop_at: int | None = None,
    save_seconds: float = 60.0,
) -> Path:
    """Train a UNet without the pictures of some concepts.

    Args:
        concepts: names of the embedded world.
        out: the folder of what is made. Drawings, latents and texts are shared by all retrained models in it.
        renders: pictures drawn, those of the concepts among them.
        fit: how the UNet is trained.
        seed: of weights, order and noise.
        workers: processes that draw.
        device: where it is trained.
        start: a retrained UNet to go on from, which never saw these concepts either: several models of one concept each
            share the training of one that saw none of them.
        stop_at: ends the training at this step, as a kill would; nothing but the checkpoint is written then.
        save_seconds: between two checkpoints.

    Returns:
        The file of the UNet.

    Raises:
        UserError: before any work: a concept that the world does not label, a model of other settings under the same
            name, drawings of another number in the folder, or a start that saw one of the concepts.
    """
    labels_of(concepts)
    model = load_model("embedded", name="embedded")
    name = "-".join(concept.casefold().replace(" ", "_") for concept in concepts)
    file = out / f"{name}.safetensors"
    about: dict[str, Any] = {
        "without": list(concepts), "model": model.revision, "renders": renders, "seed": seed,
        "fit": json.loads(json.dumps(asdict(fit))), "start": None if start is None else _seen_by(start, concepts),
    }  # fmt: skip
    if _is_there(file, about):
        print(f"{file} is there already", flush=True)
        return file
    world = _world(out / "world", renders, workers)
    shown = shows(world, concepts)
    latents, text, which = _encoded(model, world, out / "world", device)
    kept = torch.from_numpy(~shown)
    # Another training never goes on from this one's checkpoint.
    own = out / "training" / f"{name}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}"
    print(f"{int(shown.sum())} of {len(world)} pictures show {' or '.join(concepts)} and are left out", flush=True)
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_config(denoiser(model.pipe).config)
    if start is not None:
        unet.load_state_dict({key.removeprefix("unet."): value for key, value in load_file(start).items()})
    unet = unet.to(device)
    train_unet(latents[kept], text, which[kept], unet, own, fit, seed=seed, stop_at=stop_at, save_seconds=save_seconds)
    if stop_at is None or stop_at >= fit.steps:
        seconds = load_tensors(checkpoint_path(own, "unet"), "none.")[1]["seconds"]
        about |= {"steps": fit.steps, "left_out": int(shown.sum()), "seconds": seconds}
        tensors = {f"unet.{key}": value.cpu().contiguous() for key, value in unet.state_dict().items()}
        write_atomic(file, save(tensors, {"retrained": json.dumps(about)}))
    return file


def _is_there(file: Path, about: Mapping[str, Any]) -> bool:
    """Whether a file is what this training would make.

    Raises:
        UserError: it is that of another training, or cannot be read.
    """
    if not file.exists():
        return False
    try:
        with safe_open(file, framework="pt") as opened:
            there = json.loads((opened.metadata() or {}).get("retrained", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error!s:.120}); move it away") from error
    for name, value in about.items():
        if there.get(name) != value:
            raise UserError(
                f"{file}: made with {name} {there.get(name)}, not {value}; move it away, or give another --out"
            )
    return True


def _seen_by(start: Path, concepts: Sequence[str]) -> dict[str, Any]:
    """What is known of a retrained UNet that another training goes on from.

    Raises:
        UserError: it cannot be read, is none, or has seen one of the concepts.
    """
    try:
        with safe_open(start, framework="pt") as opened:
            about = json.loads((opened.metadata() or {}).get("retrained", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"--start {start}: cannot be read ({error!s:.120})") from error
    without = {name.casefold() for name in about.get("without", ())}
    if seen := [concept for concept in concepts if concept.casefold() not in without]:
        raise UserError(
            f"--start {start}: this model has seen {' and '.join(seen)}; give one that was trained without, or none"
        )
    return about


def _world(folder: Path, renders: int, workers: int) -> data.World:
    """The drawings of a folder, made if they are not there.

    Raises:
        UserError: there are drawings of another number.
    """
    data.draw_world(folder, renders, workers)
    world = data.load_world(folder)
    if len(world) != renders:
        raise UserError(f"{folder} holds {len(world)} drawings; give --renders {len(world)}, or another --out")
    return world


def _encoded(
    model: Model, world: data.World, folder: Path, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents [n, 16, 8, 8], texts [texts + 1, 77, 128] and the text of each picture [n], by the shipped encoders.

    They are kept in the folder under the model's revision.
    """
    texts, which = train_clip.distinct(world.captions)
    place = folder / f"encoded-{model.short_revision}"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "texts.npy").exists():
        started = time.monotonic()
        tokenizer = part_of(model.pipe, "tokenizer")
        vae, encoder = (part_of(model.pipe, name).to(device) for name in ("vae", "text_encoder"))
        arrays = {"latents": train_vae.encode_pictures(world, vae) * vae.config.scaling_factor}
        with torch.no_grad():
            arrays["texts"] = train_clip.encode_texts(texts, tokenizer, encoder)
        for name, array in arrays.items():  # the texts say that both are there
            np.save(place / "part.npy", array)
            (place / "part.npy").replace(place / f"{name}.npy")
        print(f"pictures and captions encoded in {(time.monotonic() - started) / 60:.1f} min", flush=True)
    latents, encoded = (torch.from_numpy(np.load(place / f"{name}.npy")) for name in ("latents", "texts"))
    return latents.float(), encoded.bfloat16(), which


def main(argv: Sequence[str] | None = None) -> int:
    """``erasebench tiny retrain``."""
    parser = argparse.ArgumentParser(
        "erasebench tiny retrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--without", nargs="+", required=True, metavar="CONCEPT", help="what is not to be learnt")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/retrained"),
        help="folder of what is made (default: results/retrained)",
    )
    parser.add_argument("--renders", type=int, default=RENDERS, help=f"pictures of the world (default {RENDERS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps (default {STEPS})")
    parser.add_argument("--batch", type=int, default=FIT.batch, help=f"pictures a step (default {FIT.batch})")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="a retrained UNet that saw none of the concepts either, to go on from",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    parser.add_argument("--threads", type=int, help="torch threads (default: all cores)")
    parser.add_argument("--device", default="cpu", help="where it is trained, e.g. cuda (default cpu)")
    chosen = parser.parse_args(argv)
    for name in ("renders", "steps", "batch"):
        if getattr(chosen, name) < 1:
            raise UserError(f"--{name} is {getattr(chosen, name)}; it must be at least 1")
    quiet_libraries()
    torch.set_num_threads(chosen.threads or cores())
    fit = replace(FIT, steps=chosen.steps, batch=chosen.batch, warmup=min(FIT.warmup, max(1, chosen.steps // 4)))
    file = retrain(
        chosen.without, chosen.out, renders=chosen.renders, fit=fit, seed=chosen.seed, workers=cores(),
        device=chosen.device, start=chosen.start,
    )  # fmt: skip
    erase = ",".join(chosen.without)
    print(
        f"{file}\nin a table, beside erasers: erasebench run method=[cure,uce,retrained] 'task.erase=[{erase}]' task=..."
    )
    return 0
