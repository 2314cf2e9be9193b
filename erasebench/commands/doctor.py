"""``erasebench doctor``: what is here, and what a config lacks."""

from __future__ import annotations

import copy
import importlib.util
import os
import platform
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import torch
from omegaconf import DictConfig
from rich.console import Console

from erasebench.commands import verb_parser
from erasebench.config.build import build, places
from erasebench.config.compose import compose
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError
from erasebench.images.batch_size import ON_CPU
from erasebench.models.load import load_model, model_here, quiet_libraries
from erasebench.models.targets import denoiser
from erasebench.progress import say
from erasebench.prompts.choose import from_config as prompts_of
from erasebench.prompts.choose import prompts_here
from erasebench.prompts.sources import from_the_cache_alone
from erasebench.runs.environment import versions
from erasebench.runs.tasks import TaskGroup, task_groups
from erasebench.scores.metric import Metric
from erasebench.tiny.models import cpu_has_bf16

OPTIONAL = {"torch_fidelity": "torch-fidelity", "lpips": "lpips", "timm": "timm"}
"""Optional packages, by the name they are imported by, and what installs each."""


DOCTOR_HELP = """\
examples:
  erasebench doctor                            this machine, and the main job
  erasebench doctor model=sd14 prompts=i2p     what another config lacks, and the command that gets it
Nothing is downloaded by looking. The exit status is 1 if something is missing.
"""


def main(arguments: list[str]) -> int:
    """Parse, and look."""
    parser = verb_parser("doctor", DOCTOR_HELP)
    parser.add_argument("overrides", nargs="*", help="the config to look at, as for run, e.g. model=sd14")
    return doctor(parser.parse_args(arguments).overrides)


def doctor(overrides: Sequence[str], console: Console | None = None) -> int:
    """Print what this machine has, and what a config needs and lacks with the command that cures it.

    Returns:
        0 if the config can run in full, 1 if something is missing.
    """
    console = console or Console()
    config = compose(overrides)
    say(console, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    memory = psutil.virtual_memory()
    say(
        console,
        f"{psutil.cpu_count(logical=False) or os.cpu_count()} cores, {memory.total / 2**30:.0f} GiB memory "
        f"({memory.available / 2**30:.0f} free), {shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB disk free here",
    )
    say(console, f"devices: {', '.join(devices())}")
    if not torch.cuda.is_available():
        say(
            console,
            f"dtype=bfloat16: {bfloat16_speed():.2g} times as fast as float32 on this CPU (UNet of the embedded model); other "
            "pixels, so never by itself",
        )
    say(console, "packages: " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    for package, name in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            say(console, f"optional: {name} is not installed; some metrics need it: pip install {name}")
    with from_the_cache_alone():
        lacking = list(_lacking(config))
    say(console, f"\nconfig: model={config.model.name}, metrics: {', '.join(config.metric) or 'none'}")
    for text in lacking:
        say(console, text, "missing", "yellow")
    if lacking:
        say(console, f"get what can be downloaded with: {shlex.join(['erasebench', 'prefetch', *overrides])}")
    else:
        say(console, "", "everything this config needs is here", "green")
    return 1 if lacking else 0


def devices() -> list[str]:
    """The devices PyTorch can use here, best first."""
    found = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, f"cpu ({torch.get_num_threads()} threads)"]


def bfloat16_speed() -> float:
    """How many times as fast the embedded model's UNet is in bfloat16 as in float32, on the CPU: the best of a few calls."""
    quiet_libraries()
    unet = denoiser(load_model("embedded", name="embedded", device="cpu").pipe)
    networks = {torch.float32: unet, torch.bfloat16: copy.deepcopy(unet).to(torch.bfloat16)}
    times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in networks}
    rows = 2 * ON_CPU if cpu_has_bf16() else 2  # without instructions for it a batch takes many seconds
    with torch.no_grad():
        for _ in range(5):  # in turn, so that other work slows both; the first calls prepare
            for dtype, network in networks.items():
                latents = torch.zeros((rows, network.config.in_channels, 8, 8), dtype=dtype)
                text = torch.zeros((rows, 77, network.config.cross_attention_dim), dtype=dtype)
                started = time.perf_counter()
                network(latents, 500, text)
                times[dtype].append(time.perf_counter() - started)
    return min(times[torch.float32]) / min(times[torch.bfloat16])


def metrics_asked(config: DictConfig) -> list[Metric]:
    """The metrics of a config."""
    return [build(node, f"metric.{name}", Metric, tuple(config.plugins)) for name, node in config.metric.items()]


def erasers_asked(config: DictConfig, groups: Mapping[str, TaskGroup]) -> Iterator[UserError]:
    """Make the erasers of a config, which reads the files that they name; gives what is wrong with each."""
    for place, node in places(config.method, "method", "_target_").items():
        try:
            eraser = build(node, place, Eraser, tuple(config.plugins))
            for group in groups.values():
                eraser.key("", group.tasks[0])  # reads the files that decide an edit
        except UserError as error:
            yield error


def _lacking(config: DictConfig) -> Iterator[str]:
    """One sentence for each thing a config lacks here."""
    if not model_here(config.model.path, config.model.revision, config.model.variant):
        yield f"model {config.model.path}: no folder of that name here, and not in the Hub's cache"
    try:
        groups = task_groups(config)
        yield from map(str, erasers_asked(config, groups))
        if prompts_here(config.prompts):
            for kind, group in groups.items():
                prompts_of(config.prompts, kind, group.concepts)
        else:
            yield f"prompts {config.prompts.source}: not in the Hub's cache"
    except UserError as error:  # a file that is not part of erasebench
        yield str(error)
    for metric in metrics_asked(config):
        if reason := metric.unavailable():
            yield f"metric {metric.id}: {reason}"
