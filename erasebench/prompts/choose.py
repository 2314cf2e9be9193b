"""The prompt set that a node of ``conf/prompts`` asks for: built in, made of templates, or read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erasebench.concepts import Concept
from erasebench.errors import UserError, suggest
from erasebench.prompts.builtin import builtin
from erasebench.prompts.product import product
from erasebench.prompts.prompt_set import Budget, PromptSet
from erasebench.prompts.reader import load_prompts
from erasebench.prompts.sources import fetch, is_here

BUILTIN = ("per_erased", "per_paraphrased", "per_near", "per_retained", "general", "seed")
FILE = ("kind", "schema", "limit", "role", "label", "revision", "where", "missing_seed", "empty", "columns", "sample")
TEMPLATES = ("templates", "fill", "label", "images", "seed", "limit", "paraphrases", "role", "first", "kind")
"""Keys of a node beside ``source`` (and ``file_of``), by whether the prompts are built in, read, or made."""

NO_FILE = {"builtin": BUILTIN, "templates": TEMPLATES}
"""Sources that are no file, and their keys."""


def from_config(config: Mapping[str, Any], kind: str, concepts: Sequence[Concept]) -> PromptSet:
    """The prompt set that a node of ``conf/prompts`` asks for.

    ``source: builtin`` takes :data:`BUILTIN`, ``source: templates`` what :func:`erasebench.prompts.product.product` does;
    any other source is a path or a Hub dataset and takes the options of
    :func:`erasebench.prompts.reader.load_prompts`. ``file_of`` says which file of which paper ``source`` has to be.

    Args:
        config: the node.
        kind: kind of the concepts of the run; rows of a file are of this kind unless it says otherwise.
        concepts: what the run erases and retains.

    Raises:
        UserError: an unknown key, a value that makes no sense, or a file that cannot be read.
    """
    source, options = _source(config)
    allowed = NO_FILE.get(source, FILE)
    for key in options:
        if key not in allowed:
            raise UserError(
                f"prompts.{key}: no such key for source {source}.{suggest(str(key), allowed)} "
                f"Known: {', '.join(allowed)}"
            )
    if source == "templates":
        for key in ("templates", "fill", "label"):
            if options.get(key) is None:
                raise UserError(f"prompts.{key}: not given; templates need templates, fill and label")
        return product(concepts=concepts, **{"kind": kind, **options})
    if source != "builtin":
        options["kind"] = options.get("kind") or kind
        return load_prompts(source, **options)
    sizes = {"per_erased": 20, "per_paraphrased": 0, "per_near": 0, "per_retained": 5, "general": 16, "seed": 0}
    sizes |= options
    for key, value in sizes.items():
        least = 1 if key == "per_erased" else 0
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"prompts.{key}={value}: give a whole number of {least} or more")
    budget = Budget(
        erased=sizes["per_erased"], paraphrased=sizes["per_paraphrased"], near=sizes["per_near"],
        retained=sizes["per_retained"], general=sizes["general"],
    )  # fmt: skip
    most = max(budget.erased, budget.near, budget.retained)
    prompts = builtin(
        kind, concepts, per_concept=most, paraphrased=budget.paraphrased, general=budget.general, seed=sizes["seed"]
    )
    note = (
        f"each task is measured on {budget.erased} prompts of each erased concept, {budget.paraphrased} in other words, "
        f"{budget.near} of each concept near it, {budget.retained} of each other one, {budget.general} general ones"
    )
    return replace(prompts, budget=budget, notes=(note,))


def prompts_here(config: Mapping[str, Any]) -> bool:
    """Whether the prompts of a node can be read without a network.

    Raises:
        UserError: no source is named, or it is no prompt file.
    """
    source, options = _source(config)
    return source in NO_FILE or is_here(source, options.get("revision"))


def fetch_prompts(config: Mapping[str, Any]) -> None:
    """Download the prompts of a node, if they are on the Hub.

    Raises:
        UserError: no source is named, or it cannot be had.
    """
    source, options = _source(config)
    if source not in NO_FILE:
        fetch(source, options.get("revision"))


def _source(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where the prompts of a node come from, and its other options as plain values."""
    try:
        options: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else dict(config)
    except OmegaConfBaseException as error:
        raise UserError(f"prompts: {str(error).splitlines()[0]}; give the value itself") from error
    source, file_of = options.pop("source", "builtin"), options.pop("file_of", None)
    if source is None or source == "":
        which = " of prompts, or builtin"
        if file_of:
            which = f" that is not part of erasebench: {file_of}; erasebench prefetch gets it, or says where it lies"
        raise UserError(f"prompts.source: give the path of a file{which}")
    return str(source), options
