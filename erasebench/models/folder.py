"""A pipeline on the disk: what its folder holds, whether all of it may be read, and a hash of what decides an image."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers

from erasebench.errors import UserError, suggest

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline")
"""Classes of diffusers that are loaded."""

PARTS = (
    *("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    *("text_encoder_3", "tokenizer_3", "transformer"),
)
"""The parts of a pipeline that decide an image, beside its scheduler, whose settings are in each recipe."""

MAY_BE_NULL = ("text_encoder_3", "tokenizer_3")
"""Parts that a model may be without: SD 3 then reads zeros in place of T5's rows, as its pipeline does."""

NOT_NEEDED = ("feature_extractor", "image_encoder")
"""Parts for safety checkers and image prompts: a folder that lists one may have lost it."""

_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # the last: SD 1.x's name for its safety checker
_WEIGHTS = ".safetensors"
_TEXTS = (".json", ".txt", ".model")  # the last: T5's vocabulary
_LARGEST_TEXT = 2**28
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_NOT_SETTINGS = ("requires_safety_checker", "add_watermarker")  # neither reaches an image: both are off here


@dataclass(frozen=True)
class ModelIndex:
    """What ``model_index.json`` says.

    Attributes:
        class_name: one of :data:`PIPELINES`.
        absent: parts that are to be ``None``: saved without, or not needed and gone.
        settings: the pipeline's own settings that are not as its class has them.
    """

    class_name: str
    absent: tuple[str, ...]
    settings: Mapping[str, Any]


def check_folder(folder: Path, path: str, variant: str | None = None) -> ModelIndex:
    """Read a folder's index, and refuse a folder that cannot or must not be loaded, before anything of it is.

    Args:
        folder: where the pipeline is.
        path: what the user calls it.
        variant: weight files to take, e.g. ``fp16``.

    Raises:
        UserError: no pipeline of :data:`PIPELINES`, a part that is missing or comes with code, weights of another
            variant only, or a file that is no file (a pipe, a device, a link to nothing).
    """
    config = _index(folder, path)
    class_name = config.get("_class_name")
    if class_name not in PIPELINES:
        raise UserError(f"model {path}: a {class_name!s:.60}; erasebench edits {', '.join(PIPELINES)}")
    components = {key: value for key, value in config.items() if isinstance(value, list)}
    for key, value in components.items():
        if len(value) != 2 or not all(entry is None or isinstance(entry, str) for entry in value):
            raise UserError(
                f"model {path}: model_index.json has {json.dumps(value)[:60]} for {key}, not a library and a class; "
                "save the model again"
            )
        library = value[0]
        if library is not None and library not in _LIBRARIES:
            raise UserError(
                f"model {path}: component {key} wants code from {library!r}; only diffusers and transformers are loaded"
            )
        if key in PARTS and library is None and key not in MAY_BE_NULL:
            raise UserError(f"model {path}: saved without its {key}; save the whole pipeline again")
        if key in PARTS and library is not None and not (folder / key).is_dir():
            raise UserError(f"model {path}: component folder {key}/ is missing; download or save the model again")
    for part in (*PARTS, "scheduler"):
        _check_files(folder / part, path)
    _check_variant(folder, path, variant)
    absent = [key for key in MAY_BE_NULL if components.get(key, [""])[0] is None]
    absent += [key for key in NOT_NEEDED if key in components and not (folder / key).is_dir()]
    return ModelIndex(class_name, tuple(absent), _settings(config, class_name))


def content_hash(folder: Path, index: ModelIndex, variant: str | None) -> str:
    """``sha256-`` and 32 hex digits, over all of a folder that decides an image.

    That is the names and bytes of the files that are loaded (weights, configs, tokenizers) and the pipeline's own
    settings where they are not the usual ones: those of the usual models are not in it, so that their revisions are what
    they were before settings counted.
    """
    total = hashlib.sha256()
    for part in PARTS:
        texts = sorted(file for file in _files(folder / part) if file.suffix in _TEXTS)
        for file in texts + weight_files(folder / part, variant):
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{part}/{file.name} {digest}\n".encode())
    for name, value in sorted(index.settings.items()):
        total.update(f"{name}={json.dumps(value, sort_keys=True)}\n".encode())
    return f"sha256-{total.hexdigest()[:32]}"


def weight_files(part: Path, variant: str | None) -> list[Path]:
    """The weight files of a part that are loaded: those of the variant, or the plain ones where it has none."""
    files = sorted(file for file in _files(part) if file.suffix == _WEIGHTS)
    return [file for file in files if variant and variant_of(file) == variant] or [
        file for file in files if not variant_of(file)
    ]


def variant_of(file: Path) -> str:
    """The variant that a weight file is of: ``fp16`` of ``model.fp16-00001-of-00002.safetensors``; empty for none."""
    return _SHARD.sub("", file.name.removesuffix(_WEIGHTS)).partition(".")[2]


def _index(folder: Path, path: str) -> dict[str, Any]:
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"model {path}: not a pipeline folder, model_index.json is missing; "
            "name a folder written by save_pretrained of a diffusers pipeline"
        )
    try:
        config = json.loads(index.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it is a {type(config).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"model {path}: model_index.json is not a JSON object ({error}); save the model again"
        ) from error
    return config


def _files(part: Path) -> Iterator[Path]:
    """The files of a part that are read, by their suffix."""
    return (entry for entry in part.glob("*") if entry.suffix in (_WEIGHTS, *_TEXTS))


def _check_files(part: Path, path: str) -> None:
    """Refuse what would be read for ever (a pipe, ``/dev/zero``) or cannot be (a folder, a link to nothing)."""
    for entry in _files(part):
        if not entry.is_file():
            raise UserError(
                f"model {path}: {part.name}/{entry.name} is no regular file; replace it or take it out of the folder"
            )
        if entry.suffix in _TEXTS and entry.stat().st_size > _LARGEST_TEXT:
            raise UserError(
                f"model {path}: {part.name}/{entry.name} has {entry.stat().st_size / 2**20:,.0f} MiB, which no config or "
                "vocabulary has; take it out of the folder"
            )


def _check_variant(folder: Path, path: str, variant: str | None) -> None:
    """Refuse weights of variants that were not asked for, and a variant that is nowhere."""
    there = {part: {variant_of(file) for file in _files(folder / part) if file.suffix == _WEIGHTS} for part in PARTS}
    known = sorted({name for names in there.values() for name in names if name})
    if variant and variant not in known:
        raise UserError(
            f"model {path}: model.variant={variant}: no file of that variant.{suggest(variant, known)} "
            f"It has {', '.join(known) or 'none'}; leave model.variant out for the plain files"
        )
    for part, names in there.items():
        if names and not names & {"", variant}:
            cure = next(name for name in known if name in names)
            raise UserError(
                f"model {path}: {part}/ has weights of the variant {', '.join(sorted(names))} only; "
                f"say model.variant={cure}"
            )


def _settings(config: Mapping[str, Any], class_name: str) -> dict[str, Any]:
    """The settings of a pipeline that are not its class's own: SDXL's ``force_zeros_for_empty_prompt``, say."""
    usual = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    return {
        name: value
        for name, value in config.items()
        if name in usual and not isinstance(value, list) and name not in _NOT_SETTINGS and usual[name].default != value
    }
