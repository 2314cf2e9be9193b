"""Load a text-to-image pipeline: the embedded model, a local folder, or one from the Hugging Face Hub.

Only safetensors files and only classes of diffusers and transformers are loaded; no code that comes with a model is
run. The safety checker is left out: it would hide what a model still draws.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from erasebench.errors import UserError, suggest
from erasebench.models.marks import mark_edited, read_marks
from erasebench.models.targets import text_inputs

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

_CLASSES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline")
_LIBRARIES = (
    "diffusers",
    "transformers",
    "stable_diffusion",
)  # the last: SD 1.x's name for its safety checker
_COMPONENTS = (
    *("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    *("text_encoder_3", "tokenizer_3", "transformer"),
)
_MAY_BE_NULL = ("text_encoder_3", "tokenizer_3")
"""Parts that a model may be without: SD 3 then reads zeros in place of T5's rows, as its pipeline does."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
        edits: notes of the edits that the folder says it carries, as ``erasebench export`` and ``apply`` leave them.
    """

    name: str
    source: str
    revision: str
    pipe: Any
    family: str
    size: int
    dtype: str
    device: str
    edits: tuple[dict[str, Any], ...] = ()

    @property
    def identity(self) -> str:
        """What an edit depends on: the weights, and the type they were read in."""
        return f"{self.revision} {self.dtype}"


def load_model(
    path: str,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    *,
    variant: str | None = None,
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
        name: what to call it in tables; made from the path if absent.

    Raises:
        UserError: not a pipeline folder, not a pipeline of these families, no safetensors, weights that are not
            finite (tensor named), a Hub id that is neither cached nor reachable, unknown device or type.
    """
    where, kind = find_device(device), find_dtype(dtype, find_device(device))
    folder, hub = _locate(path, revision, variant)
    class_name, absent = _check_folder(folder, path)
    pipe = _from_folder(folder, path, class_name, absent, TORCH_DTYPES[kind], variant)
    _check_finite(pipe, path)
    text_inputs(pipe)  # refuses a network that text does not enter in a way that is known
    commit = folder.name + (f"+{variant}" if variant else "")
    edits = read_marks(folder)
    mark_edited(pipe, edits)
    return Model(
        name=name or Path(path).name or path,
        source=str(path),
        revision=commit if hub else _content_hash(folder, variant),
        pipe=pipe.to(where),
        family=_family(pipe),
        size=_native_size(pipe),
        dtype=kind,
        device=where,
        edits=edits,
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
    from diffusers import DiffusionPipeline

    at = f" at revision {revision}" if revision else ""
    try:
        folder = DiffusionPipeline.download(
            path, revision=revision, variant=variant, use_safetensors=True, safety_checker=None
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {path}{at}: not in the local cache, and it could not be fetched from the Hub ({_cause(error)}). "
            f"With a network, run: erasebench prefetch model.path={path}"
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
    if path == "embedded":
        folder = embedded_folder()
        if not (folder / "model_index.json").is_file():
            raise UserError(
                f"the embedded model is missing ({folder} has no model_index.json); "
                "reinstall erasebench, or rebuild it with: erasebench tiny train"
            )
        return folder, False
    local = Path(path).expanduser()
    if local.is_dir():
        if revision:
            raise UserError(f"model {path}: a folder has no revisions; leave model.revision empty")
        return local, False
    if local.is_file():
        raise UserError(
            f"model {path}: a single file, not a pipeline folder; convert it with diffusers "
            "(StableDiffusionPipeline.from_single_file(...).save_pretrained(folder)) and name that folder"
        )
    if not _HUB_ID.fullmatch(path):
        raise UserError(f"model {path}: no such folder, and not a Hub id (owner/name)")
    return fetch(path, revision, variant), True


def _check_folder(folder: Path, path: str) -> tuple[str, list[str]]:
    """The pipeline's class, and the parts that it was saved without."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"model {path}: not a pipeline folder, model_index.json is missing; "
            "name a folder written by save_pretrained of a diffusers pipeline"
        )
    try:
        config = json.loads(index.read_text(encoding="utf-8"))
        components = {key: value for key, value in config.items() if isinstance(value, list)}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(
            f"model {path}: model_index.json is not a JSON object ({error}); save the model again"
        ) from error
    class_name = config.get("_class_name")
    if class_name not in _CLASSES:
        raise UserError(
            f"model {path}: a {class_name}; erasebench edits {', '.join(_CLASSES)} ({', '.join(FAMILIES.values())})"
        )
    for key, (library, *_) in components.items():
        if library is not None and library not in _LIBRARIES:
            raise UserError(
                f"model {path}: component {key} wants code from {library!r}; only diffusers and transformers are loaded"
            )
        if key in _COMPONENTS and library is None and key not in _MAY_BE_NULL:
            raise UserError(f"model {path}: saved without its {key}; save the whole pipeline again")
        if key in _COMPONENTS and library is not None and not (folder / key).is_dir():
            raise UserError(f"model {path}: component folder {key}/ is missing; download or save the model again")
    return class_name, [key for key in _MAY_BE_NULL if components.get(key, [""])[0] is None]


def _from_folder(
    folder: Path, path: str, class_name: str, absent: list[str], dtype: torch.dtype, variant: str | None
) -> Any:
    import diffusers

    extra: dict[str, Any] = dict.fromkeys(absent)
    if class_name == _CLASSES[0]:
        extra |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        with warnings.catch_warnings():
            # newer releases of diffusers call the option dtype; the older name works in all of them
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            pipe = getattr(diffusers, class_name).from_pretrained(
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


def _cast(pipe: Any, dtype: torch.dtype) -> Any:
    """Give every weight the type, but for those of T5 that overflow in float16: transformers names them."""
    wide = {}
    for part in _COMPONENTS:
        module = getattr(pipe, part, None)
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


def _tensors(pipe: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    for component, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            for name, tensor in module.state_dict().items():
                yield component, name, tensor


def _check_finite(pipe: Any, path: str) -> None:
    for component, name, tensor in _tensors(pipe):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(
                f"model {path}: {component} weight {name} holds NaN or infinite numbers; "
                "the file is broken or too large for this dtype: fetch it again, or use dtype=float32"
            )


def _family(pipe: Any) -> str:
    known = {_CLASSES[1]: "sdxl", _CLASSES[2]: "sd3", _CLASSES[3]: "flux"}
    return known.get(type(pipe).__name__) or ("sd2" if pipe.unet.config.use_linear_projection else "sd1")


def _native_size(pipe: Any) -> int:
    """Width and height in pixels that the pipeline makes unless told otherwise; FLUX says so outside any config."""
    sample = pipe.default_sample_size if hasattr(pipe, "transformer") else pipe.unet.config.sample_size
    return (sample if isinstance(sample, int) else max(sample)) * pipe.vae_scale_factor


def _content_hash(folder: Path, variant: str | None) -> str:
    """SHA-256 over names and bytes of the files that are loaded (weights, configs, tokenizers)."""
    total = hashlib.sha256()
    for component in _COMPONENTS:
        kinds = (".safetensors", ".json", ".txt", ".model")  # the last: T5's vocabulary
        files = sorted(p for p in (folder / component).glob("*") if p.suffix in kinds)
        chosen = [p for p in files if p.suffix == ".safetensors" and variant and f".{variant}" in p.name]
        plain = [p for p in files if p.suffix == ".safetensors" and p.name.count(".") == 1]
        for file in [p for p in files if p.suffix != ".safetensors"] + (chosen or plain):
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{component}/{file.name} {digest}\n".encode())
    return f"sha256-{total.hexdigest()[:32]}"


def quiet_libraries() -> None:
    """Keep the loading bars and notes of diffusers and transformers off the terminal; their errors still come."""
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def model_here(path: str, revision: str | None) -> bool:
    """Whether a model can be loaded without a network: a folder, or all of a Hub snapshot in the cache."""
    if path == "embedded":
        return (embedded_folder() / "model_index.json").exists()
    if Path(path).is_dir():
        return True
    from diffusers import DiffusionPipeline

    try:
        DiffusionPipeline.download(
            path, revision=revision, use_safetensors=True, safety_checker=None, local_files_only=True
        )
    except (OSError, ValueError):
        return False
    return True
