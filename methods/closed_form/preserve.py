"""Preserve caches: the gram matrix of the token rows of many prompts, computed once and kept on disk.

MACE and TRCE keep what a model does for ordinary captions by adding ``s B`` to the equations of their edit, with
``B = sum p p^T`` over all token rows p of some hundred thousand prompts. ``B`` is ``[d, d]`` however many prompts there
are, so it is summed batch by batch, saved on the way (a killed run goes on where it was), and kept in a folder under
a name made of all that decides it: the prompts, the token rule, and the text encoder with its tokenizer. A cache
can therefore not be taken for another one's; a broken file is set aside and made again.

Example:
    >>> part = text_inputs(pipe)[0]                                     # doctest: +SKIP
    >>> kept = preserve_gram(part, read_captions("captions.csv"))        # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from erasebench.errors import UserError
from erasebench.files import set_aside, write_atomic
from erasebench.methods.closed_form.linear import gram
from erasebench.models.targets import TextInput
from erasebench.models.text import Texts, check_rule
from erasebench.progress import progress

log = logging.getLogger(__name__)

FORMAT = "erasebench preserve 1"
"""Header of a cache file; raised when the same input would give another matrix."""

PROMPTS_AT_ONCE = 256
"""Prompts of one step: 256 prompts of 77 rows of width 768 are 120 MB in float64."""

SAVE_SECONDS = 10.0
"""How often partial sums are saved; a killed run loses no more than this (and one step)."""


def preserve_gram(
    part: TextInput, prompts: Sequence[str], rule: str = "all", cache_dir: str | os.PathLike[str] | None = None
) -> Tensor:
    """``sum p p^T`` over the token rows p of prompts, read from the cache or computed into it.

    Rows are never held for more than :data:`PROMPTS_AT_ONCE` prompts. Progress is shown on standard error.

    Args:
        part: the text input whose rows are meant.
        prompts: the prompts; each counts as often as it comes.
        rule: which rows of a prompt, a token rule; MACE takes ``all``.
        cache_dir: folder of the cache; default :func:`preserve_cache_folder`.

    Returns:
        ``[d, d]`` float64.

    Raises:
        UserError: no prompts, an unknown rule, or the folder cannot be written.
    """
    check_rule(rule)
    if not prompts:
        raise UserError("a preserve cache needs at least one prompt")
    folder = preserve_cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
    key = _key(part, prompts, rule)
    whole, partial = folder / f"{key}.safetensors", folder / f"{key}.partial.safetensors"
    if (there := _load(whole, part.width)) is not None and there[1] == len(prompts):
        return there[0]
    there = _load(partial, part.width)
    total, done = there or (torch.zeros(part.width, part.width, dtype=torch.float64), 0)
    if done:
        log.info("preserve cache: going on after %d of %d prompts", done, len(prompts))
    saved = time.monotonic()
    with progress("preserve cache", len(prompts) if len(prompts) > PROMPTS_AT_ONCE else 0, "prompts") as advance:
        advance(done)
        for start in range(done, len(prompts), PROMPTS_AT_ONCE):
            chunk = list(prompts[start : start + PROMPTS_AT_ONCE])
            total += gram(forgetful(part).texts.rows(chunk, rule), part.width)
            advance(len(chunk))
            done = start + len(chunk)
            if done < len(prompts) and time.monotonic() - saved >= SAVE_SECONDS:
                _save(partial, total, done)
                saved = time.monotonic()
    _save(whole, total, len(prompts))
    partial.unlink(missing_ok=True)
    return total


def preserve_cache_folder() -> Path:
    """Where preserve caches are kept: below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "erasebench" / "preserve"


def prompts_hash(prompts: Sequence[str]) -> str:
    """Hash of prompts in their order, 32 hex digits."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(prompt).encode() + b"\n")
    return digest.hexdigest()[:32]


def forgetful(part: TextInput) -> TextInput:
    """The same text input with no text encoded yet, so that what it encodes goes when it goes."""
    return replace(part, texts=_clip_texts(part).fresh())


def encoders(part: TextInput) -> list[tuple[Any, Any]]:
    """The tokenizers and text encoders of a text input, in pairs.

    Raises:
        UserError: one of them is T5.
    """
    return _clip_texts(part).encoders


def _clip_texts(part: TextInput) -> Texts:
    if not isinstance(part.texts, Texts) or part.texts.t5 is not None:
        raise UserError(
            "preserve caches and sentences around a concept are for models whose text encoders are all CLIP"
        )
    return part.texts


def _key(part: TextInput, prompts: Sequence[str], rule: str) -> str:
    """Hash of all that decides the matrix, 32 hex digits."""
    digest = hashlib.sha256(json.dumps([FORMAT, part.name, part.width, rule, prompts_hash(prompts)]).encode())
    for tokenizer, encoder in encoders(part):
        digest.update(_tokenizer_text(tokenizer).encode())
        for name, tensor in encoder.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _tokenizer_text(tokenizer: Any) -> str:
    """All that decides how a tokenizer splits texts. The last call's padding and truncation are not part of it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state: Any = sorted(tokenizer.get_vocab().items())
    else:
        state = json.loads(backend.to_str())
        state.pop("truncation", None)
        state.pop("padding", None)
    return json.dumps([type(tokenizer).__name__, tokenizer.model_max_length, tokenizer.pad_token, state])


def _save(path: Path, total: Tensor, done: int) -> None:
    header = {"format": FORMAT, "done": str(done), "sha256": _checksum(total)}
    write_atomic(path, save({"gram": total}, metadata=header))


def _load(path: Path, width: int) -> tuple[Tensor, int] | None:
    """The matrix and the number of prompts in it; ``None`` if there is no such file or it is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            header, total = file.metadata() or {}, file.get_tensor("gram")
            done = int(header["done"])
            if header["format"] == FORMAT and total.shape == (width, width) and header["sha256"] == _checksum(total):
                return total, done
        why = "its content is not what was written"
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        why = str(error)
    set_aside(path, why)
    return None


def _checksum(total: Tensor) -> str:
    return hashlib.sha256(total.contiguous().numpy().tobytes()).hexdigest()
