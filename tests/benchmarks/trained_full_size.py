"""What the trained erasers and the guards take at full size: one step of each on a model with random weights.

    python tests/benchmarks/trained_full_size.py

Every row is a process of its own, so that its peak of memory is its own. A trained eraser makes the least data that it
can (one image of one sampling step), takes one gradient step with its checkpoint, and its edit is written; a guard acts
on one image of one step. The weights are random: nothing here says anything about erasing.

``trained_full_size.md``, ``.csv`` and ``.json`` are written after every row, and rows that are there are kept: the same
command goes on where it was stopped, ``--only`` makes named rows anew. About an hour on two cores, and up to 20 GB.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
TABLES = TESTS.parent / "results" / "tables" / "benchmarks"

LEAST = {"iterations": 1, "steps": 2, "images": 1, "image_steps": 1, "batch": 1, "attack_steps": 1, "early": 1, "retain_batch": 1}  # fmt: skip
"""Settings of a training, of those that it has; all others are the paper's."""

SMALL_PIXELS = 16
"""Width and height of the small pipeline's images."""

COLUMNS = {
    "row": "what", "shape": "shape", "pixels": "pixels", "seconds": "seconds", "peak_gib": "peak, GiB", "whole_gib": "with the model, GiB",
    "estimate_gib": "estimate, GiB", "trained": "parameters trained", "tensors": "tensors touched",
    "steps": "gradient steps", "images": "images made", "edit_mib": "edit, MiB", "load": "load", "note": "",
}  # fmt: skip
"""Of the table: names in the CSV, and headings."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        method: config of the eraser; empty for the unedited model.
        options: of it, besides :data:`LEAST`.
        shape: of the model: ``sd14``, or ``sdxl``.
    """

    method: str
    options: tuple[str, ...] = ()
    shape: str = "sd14"


TRAINED = (
    "esd", "esd2025", "sdd", "ablation", "ablation_noise", "few_shot", "mace", "spm", "receler", "advunlearn",
    "trce_full", "esd_u", "fmn", "salun",
)  # fmt: skip
GUARDS = ("negative_prompt", "sld", "safree", "safree_released", "adavd", "safety_checker")
GUARDS_OF_SDXL = ("negative_prompt", "sld", "adavd", "safety_checker")
"""Those that take SDXL; SAFREE and all trained erasers refuse it by name."""
GUARD_OPTIONS = {"sld": ("warmup=0",)}
"""Else it would do nothing in the first step."""
ADAFACTOR = ("esd_u", "fmn", "salun")
"""What trains all of the network, or nearly: also with the optimizer that keeps less."""

ROWS = {
    "unedited": Row(""),
    **{name: Row(name, GUARD_OPTIONS.get(name, ())) for name in GUARDS},
    **{name: Row(name) for name in TRAINED},
    **{f"{name}, adafactor": Row(name, ("optimizer=adafactor",)) for name in ADAFACTOR},
    "unedited, sdxl": Row("", shape="sdxl"),
    **{f"{name}, sdxl": Row(name, GUARD_OPTIONS.get(name, ()), "sdxl") for name in GUARDS_OF_SDXL},
}


def measured(row: Row, small: bool, pixels: int) -> dict[str, Any]:
    """One row, in this process: its numbers, or the sentence by which the eraser refuses."""
    import psutil

    from benchmarks.measure import peak_above, reset_peak
    from erasebench.errors import UserError
    from erasebench.store import Store

    made: dict[str, Any] = {"load": round(psutil.getloadavg()[0], 1), "pixels": SMALL_PIXELS if small else pixels}
    with tempfile.TemporaryDirectory() as folder:
        model = _model("small" if small else row.shape, made["pixels"])
        try:
            eraser = eraser_of(row, Path(folder)) if row.method else None
            before = reset_peak()
            made |= _run(eraser, model, Store(folder), Path(folder))
        except UserError as error:
            return made | {"note": f"refused: {error}"}
        peak = peak_above(before)
        if peak is not None:
            made |= {"peak_gib": peak / 1024, "whole_gib": before / 2**20 + peak / 1024}
        made["images"] = len(list(Path(folder).glob("**/*.png")))
    return made


def _model(shape: str, pixels: int) -> Any:
    """The model, with random weights, for images of so many pixels a side."""
    from benchmarks.full_size import pipeline, small_pipeline, xl_pipeline
    from erasebench.models.load import Model

    pipe = {"sd14": pipeline, "sdxl": xl_pipeline, "small": small_pipeline}[shape]()
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.register_to_config(sample_size=pixels // pipe.vae_scale_factor)
    family, dtype = "sdxl" if shape == "sdxl" else "sd1", str(pipe.unet.dtype).removeprefix("torch.")
    return Model("random", "", "random", pipe, family, pixels, dtype, "cpu")


def eraser_of(row: Row, folder: Path) -> Any:
    """The eraser of a row, with the least settings."""
    from erasebench.config.build import build, places
    from erasebench.config.compose import compose
    from erasebench.edits.eraser import Eraser

    options = [f"method.{option}" for option in row.options]
    if row.method == "safety_checker":
        options += [f"method.checker={_random_checker(folder)}", "method.revision=null"]
    nodes = places(compose([f"method={row.method}", *options]).method, "method", "_target_")
    (eraser,) = [build(node, place, Eraser) for place, node in nodes.items()]
    if not eraser.trains:
        return eraser
    has = {entry.name for entry in fields(eraser)}
    return replace(eraser, **{name: value for name, value in LEAST.items() if name in has})


def _run(eraser: Any, model: Any, store: Any, folder: Path) -> dict[str, Any]:
    """The training, written; or the image under a guard (or none). Seconds are those of the one or the other."""
    from erasebench.concepts import Concept, ErasureTask
    from erasebench.errors import UserError
    from erasebench.images.generate import generate
    from erasebench.images.scheduler import scheduler_identity
    from erasebench.recipe import Recipe
    from erasebench.runs.training import means_of

    kind = "unsafe" if eraser and eraser.name == "safety_checker" else "object"
    name = "nudity" if kind == "unsafe" else "church"
    task = ErasureTask((Concept(name, kind, (name,)),), ("gas pump", "tench"))
    edit = None
    start = time.perf_counter()
    if eraser:
        if reason := eraser.refuses(model):
            raise UserError(reason)
        with means_of(eraser, "0" * 32, task, model, store, 1) as work:
            edit = replace(eraser.edit(model.pipe, task, work=work), key="0" * 32)
            path = edit.save(folder / "edit.safetensors")
        if eraser.trains:
            return {
                "seconds": time.perf_counter() - start,
                "estimate_gib": eraser.memory(model.pipe) / 2**30,
                "trained": edit.info["trained_parameters"],
                "tensors": len(edit.changes) + sum(len(hook.tensors) for hook in edit.hooks),
                "steps": edit.info["gradient_steps"],
                "edit_mib": path.stat().st_size / 2**20,
            }
    scheduler, config = scheduler_identity(model.pipe, "DDIM", {})
    recipe = Recipe(
        model=model.name, revision=model.revision, edit=edit.key if edit else "", prompt="a photo of a church",
        negative_prompt="", seed=1, steps=1, guidance=7.5, width=model.size, height=model.size, scheduler=scheduler,
        scheduler_config=config, dtype=model.dtype,
    )  # fmt: skip
    with edit.applied(model.pipe) if edit else nullcontext():
        start = time.perf_counter()
        generate(model, [recipe], store, 1)
        return {"seconds": time.perf_counter() - start}


def _random_checker(folder: Path) -> Path:
    """The safety checker's own shape (CLIP ViT-L/14), random weights."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14, "image_size": 224, "projection_dim": 768,
    }  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=768))
    checker.save_pretrained(folder / "checker" / "safety_checker", safe_serialization=True)
    CLIPImageProcessor().save_pretrained(folder / "checker" / "feature_extractor")
    return folder / "checker"


def _one_row(row: Row, chosen: argparse.Namespace) -> int:
    """What the process of a row does: its numbers go to standard output."""
    import torch

    with suppress(OSError):  # where memory runs out, this process is to be killed and not another one
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(chosen.threads)
    print(json.dumps(measured(row, chosen.small, chosen.pixels)))
    return 0


def write(out: Path, rows: dict[str, dict[str, Any]], small: bool) -> None:
    """The tables, from the rows that there are."""
    from benchmarks.report import about_machine

    out.mkdir(parents=True, exist_ok=True)
    (out / "trained_full_size.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    table = [
        {
            "row": name,
            "shape": "small" if small else row.shape,
            **dict.fromkeys(list(COLUMNS)[2:]),
            **rows.get(name, {}),
        }
        for name, row in ROWS.items()
    ]
    with (out / "trained_full_size.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(table)
    about = about_machine()
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        "# Trained erasers and guards at full size, one step of each", "",
        *(["**A trial on a small pipeline: these are no measurements.**", ""] if small else []),
        "Random weights, on a CPU: **this says nothing about erasing**, nor about seconds elsewhere. It says that what was run works "
        "at this size, and what it holds in memory.", "",
        f"Made by `python tests/benchmarks/trained_full_size.py` until {datetime.datetime.now(datetime.UTC).date()}: "
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB; Python {about['python']}, {versions}. "
        "Other programs ran meanwhile; `load` is the system's mean load when the row began, and the seconds are to be read "
        "with it.", "",
        f"A row is a process. A trained eraser: {', '.join(f'{name}={value}' for name, value in LEAST.items())} where it has "
        "them, and the paper's settings otherwise, in float32; its images are made, one gradient step is taken, the checkpoint "
        "and the edit are written. A guard, and the unedited model: one image of one step at guidance 7.5 and its seconds, with "
        "SLD's warm-up left out. The shape of SD 1.4 is in float32, that of SDXL in bfloat16 (in float32 the model alone takes "
        "14 GB); trained erasers and SAFREE refuse SDXL by name.", "",
        "`pixels` is a side of the images. The weights are of full size whatever it is, and so is all that is held for them; "
        "activations grow with its square, and with its fourth power where attention is kept. Peak: of resident memory, above "
        "what the process held with the model loaded. Estimate: what is asked of the free memory before a training starts "
        "(copies of networks, gradients, what the optimizer keeps), without activations.", "",
        "| " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 3) + "---|",
        *("| " + " | ".join(_shown(row, name) for name in COLUMNS) + " |" for row in table), "",
    ]  # fmt: skip
    (out / "trained_full_size.md").write_text("\n".join(lines), encoding="utf-8")


def _shown(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return "not run" if name == "seconds" and not row["note"] else ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Make the rows that lack; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the tables; default: results/tables/benchmarks")
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, metavar="ROW", help=f"make these anew, of: {'; '.join(ROWS)}"
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    parser.add_argument("--pixels", type=int, default=512, help="a side of the images (default 512, as of SD 1.4)")
    parser.add_argument("--small", action="store_true", help="a small pipeline, to try the script out")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.row:
        return _one_row(ROWS[chosen.row], chosen)
    if chosen.small and chosen.out is None:
        parser.error("a trial does not overwrite the published tables: give --out FOLDER")
    out = chosen.out or TABLES
    there = out / "trained_full_size.json"
    rows = json.loads(there.read_text(encoding="utf-8")) if there.exists() else {}
    failed = []
    for name in chosen.only or [name for name in ROWS if name not in rows]:
        command = [sys.executable, __file__, "--row", name]
        command += ["--threads", str(chosen.threads), "--pixels", str(chosen.pixels)]
        environment = os.environ | {f"{library}_NUM_THREADS": str(chosen.threads) for library in ("OMP", "MKL")}
        start = time.perf_counter()
        done = subprocess.run(
            command + ["--small"] * chosen.small, capture_output=True, text=True, check=False, env=environment
        )
        print(f"{time.perf_counter() - start:7.0f} s  {name}", file=sys.stderr, flush=True)
        if done.returncode:
            print(done.stderr[-2000:], f"{name}: exit {done.returncode}", file=sys.stderr)
            failed.append(name)
            continue
        rows[name] = json.loads(done.stdout.strip().splitlines()[-1])
        write(out, rows, chosen.small)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
