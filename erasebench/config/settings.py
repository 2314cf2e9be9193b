"""The schema of a run's config: what its keys are called, and of which type they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class ModelSettings:
    """Which model: a name for tables, ``embedded``, a folder or a Hub id, and a pinned revision of the latter.

    ``variant`` takes other weight files of it (``fp16``: ``*.fp16.safetensors``). ``weights`` is a file of somebody
    else's weights or LoRA that is put on it (:mod:`erasebench.models.weights`). ``compose`` allows editing a model that
    was exported with an edit in it, or had such weights put on.
    """

    name: str = MISSING
    path: str = MISSING
    revision: str | None = None
    variant: str | None = None
    weights: str | None = None
    compose: bool = False


@dataclass
class ProtocolSettings:
    """How images are sampled, and what the numbers of a protocol mean; see :mod:`erasebench.config.protocol`.

    The first part is obeyed, and all of it is in the key of an image. The second part is said: it goes into the
    protocol's hash, its page (``erasebench show protocol NAME``) and captions.
    """

    name: str = MISSING
    version: int = MISSING
    scheduler: str = MISSING
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    steps: int = MISSING
    guidance: float = MISSING
    prompt_guidance: bool = True
    prompt_size: bool = True
    negative_prompt: str = ""
    size: int | None = None
    seeding: str = "cpu"
    seeds: list[int] | None = None
    images_per_prompt: int = 1
    dtype: str | None = None
    editing: dict[str, Any] = field(default_factory=dict)

    prompts: dict[str, str] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    lacks: dict[str, str] = field(default_factory=dict)
    counting: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    cites: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)
    defects: dict[str, Any] = field(default_factory=dict)


@dataclass
class StoreSettings:
    """Where everything that is made is kept."""

    dir: str = "results"


@dataclass
class Settings:
    """The root of the config."""

    model: ModelSettings = field(default_factory=ModelSettings)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    task: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    metric: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: Any = "auto"
    dry_run: bool = False
    part: str | None = None
    tracking: str = "none"
    scale: str = "full"
    experiment: dict[str, Any] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)


ConfigStore.instance().store(name="schema", node=Settings)
