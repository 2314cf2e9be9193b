"""The config of a run: its schema, composing it with Hydra, and turning its nodes into values.

Sections of the harness are dataclasses, so a misspelt key is refused when the config is composed. Plugins (methods,
metrics) are built from ``_target_`` nodes whose constructor signature is their schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.resources import files
from pydoc import locate
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erasebench.concepts import KINDS, Concept, ErasureTask
from erasebench.errors import UserError, suggest

CONFIG_MODULE = "erasebench.conf"
ALLOWED_TARGETS = ("erasebench.",)
PROMPTS = "prompts"
"""As ``concepts`` and ``erase`` of a task: those that the prompt file names."""

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


@dataclass
class ModelSettings:
    """Which model: a name for tables, ``embedded``, a folder or a Hub id, and a pinned revision of the latter.

    ``compose`` allows editing a model that was exported with an edit in it.
    """

    name: str = MISSING
    path: str = MISSING
    revision: str | None = None
    compose: bool = False


@dataclass
class ProtocolSettings:
    """How images are sampled, and what the numbers of a protocol mean; see :mod:`erasebench.protocol`.

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
    metric: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 16
    dry_run: bool = False
    scale: str = "full"
    experiment: dict[str, Any] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)


ConfigStore.instance().store(name="schema", node=Settings)


@dataclass
class TaskSettings:
    """One node of the task group; see conf/task/object.yaml for what each key means."""

    kind: str
    concepts: list[str]
    erase: list[str]
    joint: bool = False
    anchor: str = ""
    retain: str | list[str] = "others"
    phrases: dict[str, list[str]] = field(default_factory=dict)
    indirect: dict[str, list[str]] = field(default_factory=dict)
    keep: dict[str, list[str]] = field(default_factory=dict)


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


def groups() -> dict[str, list[str]]:
    """The groups of the config tree and the options of each, from the files that are shipped."""
    root = files(CONFIG_MODULE)
    return {
        folder.name: sorted(
            entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
        )
        for folder in sorted(root.iterdir(), key=lambda entry: entry.name)
        if folder.is_dir() and not folder.name.startswith("_")
    }


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


def build(node: Mapping[str, Any] | DictConfig, place: str, plugins: Sequence[str] = ()) -> Any:
    """Construct the plugin that a ``_target_`` node names.

    Only targets below :data:`ALLOWED_TARGETS` or in a module listed under ``plugins`` are constructed, because a
    config may come from somebody else.

    Raises:
        UserError: no target, a target that cannot be imported, or an argument its constructor does not take.
    """
    values = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    targets = list(_targets(values))
    if "_target_" not in values:
        raise UserError(f"{place}: has no _target_; name the class it builds")
    for target in targets:
        if not target.startswith((*ALLOWED_TARGETS, *(f"{module}." for module in plugins))):
            module = target.split(".")[0]
            raise UserError(
                f"{place}: {target} is not one of ours; if you trust it, allow its module: plugins=[{module}]"
            )
    try:
        return instantiate(values, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise UserError(f"{place}: {cause}") from error
        raise UserError(f"{place}: {cause or error}{_argument_hint(values)}") from error


def _targets(values: Any) -> Iterator[str]:
    """Every ``_target_`` in a node and below it."""
    if isinstance(values, dict):
        if "_target_" in values:
            yield values["_target_"]
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _targets(value)


def _argument_hint(values: Mapping[str, Any]) -> str:
    """The nearest argument, if one was given that the class does not take."""
    made = locate(values["_target_"])
    known = [entry.name for entry in fields(made)] if is_dataclass(made) else []
    wrong = [name for name in values if known and name not in (*known, "_target_", "_convert_")]
    return f".{suggest(wrong[0], known)}" if wrong else ""


@dataclass(frozen=True)
class TaskGroup:
    """The tasks of one kind: what is evaluated, and the edits to make.

    Attributes:
        kind: the kind of concept.
        concepts: every concept of the prompt set, the erased ones and those to be kept, with all texts that ask for it.
        tasks: one task an edit.
    """

    kind: str
    concepts: tuple[Concept, ...]
    tasks: tuple[ErasureTask, ...]


def task_group(node: Mapping[str, Any] | DictConfig, place: str) -> TaskGroup:
    """Build and check the tasks of one kind.

    Raises:
        UserError: an unknown key, kind or concept (with the nearest one), or what :class:`ErasureTask` refuses.
    """
    values = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    known = [entry.name for entry in fields(TaskSettings)]
    for key in values:
        if key not in known:
            raise UserError(f"{place}.{key}: no such key.{suggest(key, known)}")
    settings = TaskSettings(**values)
    if settings.kind not in KINDS:
        raise UserError(
            f"{place}.kind: {settings.kind!r} is not one of {', '.join(KINDS)}.{suggest(settings.kind, KINDS)}"
        )
    catalogue = {name.casefold(): name for name in settings.concepts}

    def concept(name: str, *more: Mapping[str, list[str]]) -> Concept:
        """A concept with the texts that these keys have for it."""
        texts = [
            text
            for key in more
            for entry, found in key.items()
            if entry.casefold() == name.casefold()
            for text in found
        ]
        return Concept(name, settings.kind, tuple(texts), settings.anchor)

    for key in ("erase", "phrases", "indirect"):
        for name in getattr(settings, key):
            if str(name).casefold() not in catalogue:
                raise UserError(
                    f"{place}.{key}: {name!r} is not in {place}.concepts.{suggest(str(name), settings.concepts)}"
                    f" Add it there to give it prompts of its own."
                )
    erase = [catalogue[str(name).casefold()] for name in settings.erase]
    if not erase:
        raise UserError(
            f"{place}.erase: the list is empty; name at least one concept, e.g. {place}.erase=[{settings.concepts[0]}]"
        )
    kept = tuple(Concept(name, kind) for kind, names in settings.keep.items() for name in names)
    asked = tuple(concept(name, settings.phrases, settings.indirect) for name in settings.concepts) + kept
    tasks = []
    for targets in [erase] if settings.joint else [[name] for name in erase]:
        if settings.retain == "others":
            retain = tuple(entry.name for entry in asked if entry.name not in targets)
        elif settings.retain == "none":
            retain = ()
        elif isinstance(settings.retain, str):
            raise UserError(f"{place}.retain: {settings.retain!r} is neither others, none nor a list of texts")
        else:
            retain = tuple(settings.retain)
        tasks.append(ErasureTask(tuple(concept(name, settings.phrases) for name in targets), retain))
    names = [name.casefold() for task in tasks for name in task.names]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{place}.erase: {name!r} is named twice; remove one")
    return TaskGroup(settings.kind, asked, tuple(tasks))


def task_groups(config: DictConfig) -> dict[str, TaskGroup]:
    """The tasks of a config by kind, checked. See :func:`task_group`."""
    made: dict[str, TaskGroup] = {}
    for place, node in places(config.task, "task", "kind").items():
        group = task_group(_named_by_file(node, place, config.prompts), place)
        if group.kind in made:
            raise UserError(f"{place}: a second task of kind {group.kind}; put its concepts into one task")
        made[group.kind] = group
    return made


def _named_by_file(node: DictConfig, place: str, prompts: DictConfig) -> Mapping[str, Any] | DictConfig:
    """A task whose concepts are ``prompts`` with those that the prompt file has: its labels, and which it erases.

    Raises:
        UserError: the prompts come from no file, or the file marks nothing as erased.
    """
    if PROMPTS not in (node.get("concepts"), node.get("erase")):
        return node
    from erasebench.prompts import from_config  # that module needs concepts only; here it is needed for this alone

    if prompts.get("source") == "builtin":
        raise UserError(f"{place}.erase=prompts: needs a prompt file; choose one, e.g. prompts=uce_artists")
    rows = from_config(prompts, node.kind, ()).rows
    names = list(dict.fromkeys(rows.label[rows.label != ""]))
    erased = list(dict.fromkeys(rows.label[rows.role == "erase"]))
    if not erased or "" in erased:
        raise UserError(f"{place}.erase=prompts: the prompt file marks no named concept as erased; list them instead")
    return OmegaConf.merge(node, {"concepts": names, "erase": erased})


def places(group: DictConfig, place: str, marker: str) -> dict[str, Any]:
    """The nodes of a group by their place in the config: one node, or the members of a composite."""
    if marker in group:
        return {place: group}
    if not group:
        raise UserError(f"{place}: nothing chosen; choose one, e.g. {place}=main")
    return {f"{place}.{name}": node for name, node in group.items()}
