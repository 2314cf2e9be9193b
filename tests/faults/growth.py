"""What a large store costs: a run of many made-up images and scores that are all there, by the public command.

    python tests/faults/growth.py FOLDER 100000

makes the store in FOLDER (a few minutes; a store that is there is used again), then gives the command and prints the CPU
seconds of a process that only imports, of a dry run, of a run with nothing to do, and of its tables made again.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from erasebench.config.compose import compose
from erasebench.models.load import load_model
from erasebench.runs.plan import make_plan, prepare
from erasebench.store import Store, records, shards
from erasebench.store.png import png_bytes

TASK = (
    "task=object",
    "task.erase=[church]",
    "method=uce",
    "protocol=embedded",
    "protocol.steps=2",
    "metric=[judge,clip_score_embedded]",
)
A_SHARD = 128


def overrides(folder: Path, prompts: Path) -> list[str]:
    """The run: none and uce, a judge and a CLIP score, prompts of a file."""
    return [*TASK, "prompts=file", f"prompts.source={prompts}", f"store.dir={folder}", "device=cpu"]


def write_prompts(path: Path, count: int) -> Path:
    """Prompts of four concepts, each with a seed of its own; the first few are the same in every file."""
    concepts = ("church", "gas pump", "tench", "golf ball")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "seed", "label"])
        rows.writerows((f"a photo of a {concepts[i % 4]}, number {i}", i, concepts[i % 4]) for i in range(count))
    return path


def fill(folder: Path, images: int) -> list[str]:
    """Make the store of a run of so many images, half of the unedited model; returns the run's overrides.

    A first, real run of eight prompts makes the edit and shows what scores look like. Images are 64 pixels of noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    few = overrides(folder, write_prompts(folder / "few.csv", 8))
    subprocess.run([sys.executable, "-m", "erasebench", "run", *few], check=True, stdout=subprocess.DEVNULL)
    many = overrides(folder, write_prompts(folder / "many.csv", images // 2))
    config = compose(many)
    prepared = prepare(config)
    model = load_model("embedded", None, device="cpu", dtype=prepared.dtype, name=config.model.name)
    plan = make_plan(prepared, model)
    store = Store(folder)
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)) for i in range(8)]
    rows = []
    for number, key in enumerate(store.missing(plan.recipes)):
        data, record = png_bytes(pictures[number % 8], plan.recipes[key], {"seconds": 0.1, "device": "cpu"})
        path = store.image_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        rows.append(records.row(plan.recipes[key], record))
    for start in range(0, len(rows), 200):
        shards.write(folder / "records" / "images", shards.encode(pd.DataFrame(rows[start : start + 200])))
    for metric in prepared.metrics:
        made = store.scores(metric.records_id, metric.inputs)
        columns = [name for name in made if name not in ("key", *metric.inputs)]
        asked = store.missing_scores(metric.records_id, metric.inputs, metric.applies_to(plan.rows))
        drawn = made[columns].sample(len(asked), replace=True, random_state=0).reset_index(drop=True)
        scores = pd.concat([asked[["key", *metric.inputs]].reset_index(drop=True), drawn], axis=1)
        for start in range(0, len(scores), A_SHARD):
            store.put_scores(metric.records_id, scores.iloc[start : start + A_SHARD])
    return many


def cpu_seconds(arguments: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak memory in MiB of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    """Make the store and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("images", type=int)
    options = parser.parse_args()
    began = time.process_time()
    run = fill(options.folder, options.images)
    print(f"store made in {time.process_time() - began:.0f} CPU seconds")
    erasebench = [sys.executable, "-m", "erasebench"]
    for name, arguments in {
        "imports and model": ["run", *overrides(options.folder, options.folder / "few.csv"), "dry_run=true"],
        "dry run": ["run", *run, "dry_run=true"],
        "run": ["run", *run],
        "run again": ["run", *run],
        "table": ["table", "--store", str(options.folder)],
    }.items():
        cpu, wall, memory = cpu_seconds([*erasebench, *arguments])
        print(f"{name:<18} {cpu:7.1f} CPU s {wall:7.1f} s {memory:7.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
