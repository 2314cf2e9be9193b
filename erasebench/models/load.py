"""Load a text-to-image pipeline: the embedded model, a local folder, or one from the Hugging Face Hub.

Only safetensors files and only classes of diffusers and transformers are loaded; no code that comes with a model is
run. The safety checker is left out: it would hide what a model still draws.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from erasebench.errors import UserError, suggest
from erasebench.models.folder import PARTS, ModelIndex, check_folder, content_hash, weight_files
from erasebench.models.marks import mark_edited, read_marks
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.targets import denoiser, text_inputs
from erasebench.models.weights import put_on, read_weights

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types the weights may be loaded in, by name. ``auto`` is float16 on CUDA and float32 elsewhere."""

FAMILIES = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3 and 3.5",
    "flux": "FLUX.1",
}
"""Families of models that are loaded."""

LARGEST_SIZE = 8192
"""Pixels of a side beyond which a model's own size is a slip of its config: an image would not fit in any memory."""

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass
class Model:
    """A loaded pipeline and what it is.

    Attributes:
        name: for tables, e.g. ``embedded`` or the folder's or repository's name.
        source: what was asked for: ``embedded``, a folder, or a Hub id.
        revision: ``sha256-...`` of the weight, tokenizer and config files for a folder; the commit for a Hub id
            (with ``+variant`` behind it if a weight variant was asked for).
        pipe: the diffusers pipeline on its device.
        family: a key of :data:`FAMILIES`.
        size: native width and height in pixels.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        device: ``cuda``, ``mps``, ``cpu`` or ``cuda:1`` and the like.
        edits: notes of the edits that the folder says it carries, as ``erasebench export`` and ``apply`` leave them,
            and of the weights that were put on it.
        weights: what somebody else's weights were put on: the file, its hash, and what it held; empty for none.
    """

    name: str
    source: str
    revision: str
    pipe: Pipeline = field(repr=False)
    family: str
    size: int
    dtype: str
    device: str
    edits: tuple[dict[str, Any], ...] = ()
    weights: str = ""

    @property
    def identity(self) -> str:
        """What an edit depends on: the weights, and the type they were read in."""
        return f"{self.revision} {self.dtype}"

    @property
    def short_revision(self) -> str:
        """The revision for captions: twelve digits, and the variant."""
        commit, plus, variant = self.revision.removeprefix("sha256-").partition("+")
        return f"{commit[:12]}{plus}{variant}"


def load_model(
    path: str,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    *,
    variant: str | None = None,
    weights: str | None = None,
    name: str | None = None,
) -> Model:
    """Load a model for generation.

    Args:
        path: ``embedded``, a folder written by ``save_pretrained``, or a Hub id such as
            ``CompVis/stable-diffusion-v1-4``, of a family of :data:`FAMILIES`.
        revision: branch, tag or commit of a Hub id.
        device: ``auto`` (CUDA, else MPS, else CPU), ``cuda``, ``mps``, ``cpu``, ``cuda:1``, ...
        dtype: ``auto`` (float16 on CUDA, float32 elsewhere) or a key of :data:`TORCH_DTYPES`.
        variant: weight files to take, e.g. ``fp16`` for ``*.fp16.safetensors``.
        weights: a file of somebody else's weights or LoRA to put on it (:mod:`erasebench.models.weights`). The model is
            then another one, with a revision of its own.
        name: what to call it in tables; made from the path (and the file of weights) if absent.

    Raises:
        UserError: not a pipeline folder, not a pipeline of these families, no safetensors, weights that are not
            finite (tensor named) or do not fit, a Hub id that is neither cached nor reachable, unknown device or type.
    """
    where, kind = find_device(device), find_dtype(dtype, find_device(device))
    foreign = None if weights is None else read_weights(weights)
    folder, hub = _locate(path, revision, variant)
    index = check_folder(folder, path, variant)
    pipe = _from_folder(folder, path, index, TORCH_DTYPES[kind], variant)
    _check_complete(pipe, folder, path, variant)
    edits, about = read_marks(folder), ""
    commit = folder.name + (f"+{variant}" if variant else "") if hub else content_hash(folder, index, variant)
    if foreign is not None:
        about = f"{foreign.file.name} (sha256 {foreign.digest[:16]}), {put_on(pipe, foreign)}, on {commit}"
        commit = f"sha256-{hashlib.sha256(f'{commit} {foreign.digest}'.encode()).hexdigest()[:32]}"
        edits = (*edits, {"method": foreign.name, "weights": about})
    _check_finite(pipe, path)
    text_inputs(pipe)  # refuses a network that text does not enter in a way that is known
    mark_edited(pipe, edits)
    return Model(
        name=name or "+".join([Path(path).name or path, *([foreign.name] if foreign else [])]),
        source=str(path),
        revision=commit,
        pipe=pipe.to(where),
        family=_family(pipe),
        size=_native_size(pipe, path),
        dtype=kind,
        device=where,
        edits=edits,
        weights=about,
    )


def embedded_folder() -> Path:
    """The folder of the embedded model (a pipeline, with ``clip/`` and ``judge/`` beside it)."""
    return Path(str(importlib.resources.files("erasebench.tiny"))) / "weights"


def fetch(path: str, revision: str | None = None, variant: str | None = None) -> Path:
    """Make sure that a Hub id's files are in the local cache, downloading what is missing.

    Returns:
        The snapshot folder; its name is the commit.

    Raises:
        UserError: no such repository or revision, or it is not cached and the Hub cannot be reached.
    """
    at = f" at revision {revision}" if revision else ""
    try:
        folder = diffusers.DiffusionPipeline.download(
            path, revision=revision, variant=variant, use_safetensors=True, safety_checker=None
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {path}{at}: no folder of that name here, so it is taken for a Hub id; not in the local cache, and it "
            f"could not be fetched from the Hub ({_cause(error)}). With a network, run: "
            f"erasebench prefetch model.path={path}"
        ) from error
    return Path(folder)


def find_device(device: str) -> str:
    """Resolve ``auto`` and check that a named device exists here."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    kind = device.split(":")[0]
    if kind not in ("cuda", "mps", "cpu"):
        raise UserError(f"unknown device {device!r}; use auto, cuda, mps, cpu or cuda:1")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} is not available here; use device=auto or device=cpu") from error
    return device


def find_dtype(dtype: str, device: str) -> str:
    """Resolve ``auto`` for a device; otherwise a key of :data:`TORCH_DTYPES`."""
    if dtype == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    if dtype not in TORCH_DTYPES:
        raise UserError(
            f"unknown dtype {dtype!r}.{suggest(dtype, TORCH_DTYPES)} Known: auto, {', '.join(TORCH_DTYPES)}"
        )
    return dtype


def _locate(path: str, revision: str | None, variant: str | None) -> tuple[Path, bool]:
    """The folder of a model, and whether it is the snapshot of a Hub id."""
    if path == "embedded":
        folder = embedded_folder()
        if not (folder / "model_index.json").is_file():
            raise UserError(
                f"the embedded model is missing ({folder} has no model_index.json); "
                "reinstall erasebench, or rebuild it with: erasebench tiny train"
            )
        return folder, False
    if (local := local_folder(path)) is None:
        return fetch(path, revision, variant), True
    if revision:
        raise UserError(f"model {path}: a folder has no revisions; leave model.revision empty")
    return local, False


def local_folder(path: str) -> Path | None:
    """The folder of this machine that a path names; ``None`` if it is to be taken for a Hub id (``owner/name``).

    Raises:
        UserError: a single file, or what can be neither: a folder that is not there, also one whose parent is.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        return local
    if local.is_file():
        raise UserError(
            f"model {path}: a single file, not a pipeline folder; convert it with diffusers "
            "(StableDiffusionPipeline.from_single_file(...).save_pretrained(folder)) and name that folder"
        )
    if not _HUB_ID.fullmatch(path):
        raise UserError(f"model {path}: no such folder, and not a Hub id (owner/name)")
    if local.parent.is_dir() and not _cached(path, None, None):
        there = sorted(entry.name for entry in local.parent.iterdir() if entry.is_dir())
        raise UserError(
            f"model {path}: no such folder.{suggest(local.name, there)} {local.parent}/ has {', '.join(there[:10]) or 'none'};"
            " where a Hub id is meant, start in a folder that has no such folder in it"
        )
    return None


def _cached(path: str, revision: str | None, variant: str | None) -> bool:
    """Whether all of a Hub id is in this machine's cache."""
    try:
        diffusers.DiffusionPipeline.download(
            path,
            revision=revision,
            variant=variant,
            use_safetensors=True,
            safety_checker=None,
            local_files_only=True,
        )
    except (OSError, ValueError):
        return False
    return True


def _from_folder(folder: Path, path: str, index: ModelIndex, dtype: torch.dtype, variant: str | None) -> Pipeline:
    extra: dict[str, Any] = dict.fromkeys(index.absent)
    if index.class_name == "StableDiffusionPipeline":
        extra |= {"safety_checker": None, "requires_safety_checker": False}
    if index.class_name == "StableDiffusionXLPipeline":
        # Unsaid, it depends on whether a package is installed here, and so would the pixels.
        extra |= {"add_watermarker": False}
    try:
        with warnings.catch_warnings():
            # newer releases of diffusers call the option dtype; the older name works in all of them
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            pipe = getattr(diffusers, index.class_name).from_pretrained(
                folder,
                torch_dtype=dtype,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                **extra,
            )
    except Exception as error:  # diffusers raises many types for a broken folder; the cause stays attached
        raise UserError(
            f"model {path}: could not be loaded ({_cause(error)}). It must be complete and in safetensors format; "
            "for a Hub id run: erasebench prefetch model.path=" + path
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return _cast(pipe, dtype)


def _cast(pipe: Pipeline, dtype: torch.dtype) -> Pipeline:
    """Give every weight the type, but for those of T5 that overflow in float16: transformers names them."""
    wide = {}
    for part in PARTS:
        module = part_of(pipe, part)
        names = getattr(module, "_keep_in_fp32_modules", None)
        if dtype == torch.float16 and names and isinstance(module, torch.nn.Module):
            for name, weight in module.named_parameters():
                if not set(names).isdisjoint(name.split(".")):
                    wide[weight] = weight.data.float()
    pipe.to(dtype)
    for weight, data in wide.items():
        weight.data = data
    return pipe


def _cause(error: BaseException) -> str:
    """First line of the error at the bottom of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


def _tensors(pipe: Pipeline) -> Iterator[tuple[str, str, torch.Tensor]]:
    for component, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            for name, tensor in module.state_dict().items():
                yield component, name, tensor


def _check_complete(pipe: Pipeline, folder: Path, path: str, variant: str | None) -> None:
    """Refuse a model one of whose weights is in no file.

    transformers fills such a weight with random numbers and goes on, so that every run would measure another model.
    diffusers leaves it without a place in memory.
    """
    for component, module in pipe.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        names: set[str] = set()
        for file in weight_files(folder / component, variant):
            with safe_open(file, framework="pt") as opened:
                names |= {name.removeprefix("text_model.") for name in opened.keys()}  # noqa: SIM118
        weights = module.state_dict()
        filled = {weight.data_ptr() for name, weight in weights.items() if name.removeprefix("text_model.") in names}
        for name, weight in weights.items():
            # A weight under two names (T5's embeddings) is saved once; of diffusers' parts older files have other names.
            if weight.is_meta or ("text_encoder" in component and weight.data_ptr() not in filled):
                raise UserError(
                    f"model {path}: {component} weight {name} is in no file of {component}/; download or save the model "
                    "again"
                )


def _check_finite(pipe: Pipeline, path: str) -> None:
    for component, name, tensor in _tensors(pipe):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(
                f"model {path}: {component} weight {name} holds NaN or infinite numbers; "
                "the file is broken or too large for this dtype: fetch it again, or use dtype=float32"
            )


def _family(pipe: Pipeline) -> str:
    known = {"StableDiffusionXLPipeline": "sdxl", "StableDiffusion3Pipeline": "sd3", "FluxPipeline": "flux"}
    return known.get(type(pipe).__name__) or ("sd2" if denoiser(pipe).config.use_linear_projection else "sd1")


def _native_size(pipe: Pipeline, path: str) -> int:
    """Width and height in pixels that the pipeline makes unless told otherwise; FLUX says so outside any config."""
    sample = pipe.default_sample_size if hasattr(pipe, "default_sample_size") else denoiser(pipe).config.sample_size
    sides = sample if isinstance(sample, list | tuple) and sample else [sample]
    if not all(isinstance(side, int) and 0 < side * pipe.vae_scale_factor <= LARGEST_SIZE for side in sides):
        raise UserError(
            f"model {path}: sample_size {sample!r:.60} in the config of its network; give whole numbers, which times "
            f"{pipe.vae_scale_factor} are the width and height in pixels, {LARGEST_SIZE} at most"
        )
    return max(sides) * pipe.vae_scale_factor


def quiet_libraries() -> None:
    """Keep the loading bars and notes of diffusers and transformers off the terminal; their errors still come."""
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def model_here(path: str, revision: str | None, variant: str | None = None) -> bool:
    """Whether a model can be loaded without a network: a folder, or all of a Hub snapshot in the cache.

    Raises:
        UserError: as :func:`local_folder`.
    """
    if path == "embedded":
        return (embedded_folder() / "model_index.json").exists()
    return local_folder(path) is not None or _cached(path, revision, variant)
