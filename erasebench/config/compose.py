"""The config of a run: its schema, composing it with Hydra, and turning its nodes into values.

Sections of the harness are dataclasses, so a misspelt key is refused when the config is composed. Plugins (methods,
metrics) are built from ``_target_`` nodes whose constructor signature is their schema.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erasebench.config.choices import CONFIG_MODULE, groups
from erasebench.errors import UserError, suggest

TINY: dict[str, tuple[str, ...]] = {
    "object": ("task=object", "task.erase=[church]"),
    "artist": ("task=artist", "task.erase=[Vincent van Gogh]"),
    "celebrity": ("task=celebrity", "task.erase=[Albert Einstein]"),
    "unsafe": ("task=unsafe",),
    "": (
        *("model=embedded", "protocol=embedded", "metric=[judge,clip_score_embedded,kid_embedded]", "prompts=builtin"),
        *("prompts.per_erased=2", "prompts.per_retained=1", "prompts.general=2"),
    ),
}
"""What ``scale=tiny`` sets: by the kind of an experiment, and (under the empty name) for all of them."""


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the config of a run from overrides, as ``erasebench run`` does.

    Raises:
        UserError: an unknown group, option or key (with the nearest known one), or a required value not given.
    """
    overrides = at_scale(overrides)
    try:
        with _initialized():
            config = hydra_compose("config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"config: {', '.join(missing)} must be given, e.g. {missing[0]}=VALUE")
    return config


def at_scale(overrides: Sequence[str]) -> list[str]:
    """Overrides with ``scale=tiny`` spelt out: the same experiment on the embedded model, with few images.

    What is given beside it wins, but for the model.

    Raises:
        UserError: no such scale, no single experiment beside it, or another model.
    """
    given = {text.split("=", 1)[0].lstrip("+~"): text.split("=", 1)[-1] for text in overrides if "=" in text}
    scale = given.get("scale", "full")
    if scale == "full":
        return list(overrides)
    if scale != "tiny":
        raise UserError(f"scale={scale}: no such scale.{suggest(scale, ('full', 'tiny'))} Known: full, tiny")
    name = given.get("experiment", "")
    if not re.fullmatch(r"\w+", name):
        raise UserError("scale=tiny: needs one experiment beside it, e.g. experiment=cure_objects scale=tiny")
    if given.get("model", "embedded") != "embedded":
        raise UserError(f"scale=tiny: is on the embedded model; leave model={given['model']} or scale=tiny out")
    about = compose([f"experiment={name}"]).experiment
    small = {text.split("=", 1)[0]: text for text in (*TINY[about.kind], *TINY[""], *about.tiny)}
    return [*(text for key, text in small.items() if key not in given), *overrides]


class _initialized:
    """Hydra, initialised on our config tree, whether or not a Hydra app is running around us."""

    def __enter__(self) -> None:
        self.ours = not GlobalHydra.instance().is_initialized()
        if self.ours:
            self.context = initialize_config_module(CONFIG_MODULE, version_base="1.3", job_name="erasebench")
            self.context.__enter__()

    def __exit__(self, *exception: object) -> None:
        if self.ours:
            self.context.__exit__(*exception)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """A composition error in one sentence, with the nearest known name."""
    text = str(error)
    known = groups()
    option = re.search(r"Could not (?:find|load) '(\w+)/([^']+)'", text)
    if option and option[1] in known:
        group, name = option.groups()
        options = known[group]
        return f"{group}={name}: there is no such {group}.{suggest(name, options)} Known: {', '.join(options)}"
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if key:
        keys = _known_keys(overrides) + list(known)
        return f"{key[1]}: no such key.{suggest(key[1], keys)} See all keys with: erasebench run --cfg job"
    return f"config: {text}"


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the config with only the choices of groups applied."""
    chosen = [text for text in overrides if text.split("=")[0] in groups()]
    try:
        with _initialized():
            config = OmegaConf.to_container(hydra_compose("config", overrides=chosen))
    except (HydraException, OmegaConfBaseException):
        return []
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for name, value in node.items() if isinstance(node, dict) else ():
            keys.append(f"{prefix}{name}")
            walk(value, f"{prefix}{name}.")

    walk(config, "")
    return keys
