"""The config of a run, composed by Hydra from overrides; what does not fit is refused in a sentence.

Sections of the harness are dataclasses, so a misspelt key is refused when the config is composed. Plugins (methods,
metrics) are built from ``_target_`` nodes whose constructor signature is their schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from erasebench.config.choices import CONFIG_MODULE, groups, has_row
from erasebench.config.overrides import ONE_OF, parse_overrides, respelt
from erasebench.config.own_files import as_overrides, eraser_node, is_file, module_of, with_plugins
from erasebench.config.settings import ModelSettings, ProtocolSettings, Settings, StoreSettings
from erasebench.config.values import plain_values
from erasebench.errors import UserError, suggest

SEVERAL = {"method": "_target_", "task": "kind"}
"""Groups of which a run may have several options, and the key that a single one has."""

TINY: dict[str, tuple[str, ...]] = {
    "object": ("task=object", "task.erase=[church]", "task.concepts=[church,castle,gas pump,golf ball,tench]"),
    "artist": (
        *("task=artist", "task.erase=[Vincent van Gogh]"),
        "task.concepts=[Vincent van Gogh,Claude Monet,Andy Warhol,Roy Lichtenstein,Rembrandt]",
    ),
    "celebrity": (
        *("task=celebrity", "task.erase=[Albert Einstein]"),
        "task.concepts=[Albert Einstein,Mark Twain,Frida Kahlo,Charlie Chaplin,Cleopatra]",
    ),
    "unsafe": (
        "task=unsafe",
        "task.erase=[knife,pistol,bomb]",
        "task.keep.object=[church,spoon,hair dryer,bowling ball]",
    ),
    "": (
        *("model=embedded", "protocol=embedded", "prompts=builtin"),
        *("prompts.per_erased=2", "prompts.per_paraphrased=1", "prompts.per_near=1", "prompts.per_retained=1"),
        "prompts.general=2",
        *("lists.artists=task", "lists.instances=task"),
    ),
}
"""What ``scale=tiny`` sets: by the kind of an experiment, and (under the empty name) for all of them."""

TINY_METRICS = {
    "classifier": "judge",
    "nudenet": "judge",
    "clip_score": "clip_score_embedded",
    "clip_error": "clip_error_embedded",
    "clip_zero_shot": "clip_zero_shot_embedded",
    "clip_zero_shot_probability": "clip_zero_shot_embedded_probability",
    "fid": "fid_embedded",
    "kid": "kid_embedded",
    "lpips": "judge_distance",
    "seen": "judge",
    "q16": "judge",
    "pickscore": "clip_score_embedded",
    "eraseeval_named": "eraseeval_named_embedded",
    "eraseeval_implicit": "eraseeval_implicit_embedded",
}
"""By how the name of a metric begins, the longest first: what measures the same of the embedded model's images."""


TINY_TRAINING = {"iterations": 2, "images": 2, "image_steps": 2, "steps": 2}
"""What ``scale=tiny`` sets in every eraser of an experiment that has such an option."""


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the config of a run from overrides, as ``erasebench run`` does.

    Raises:
        UserError: an override that cannot be read, an unknown group, option or key (with the nearest known one), a value
            of a wrong type, or a required value not given.
    """
    return compose_with_hydra(spelt_out(overrides))[0]


def compose_with_hydra(overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
    """The config of a run and Hydra's own node beside it, from overrides that are spelt out; raises as :func:`compose`."""
    try:
        with hydra_initialized():
            config = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
        with open_dict(config):
            hydra_node = config.pop("hydra")
        OmegaConf.to_container(config, resolve=True)  # refuses a ${...} that is nothing
    except (HydraException, OmegaConfBaseException, OSError, ValueError, TypeError, AttributeError) as error:
        # Hydra stumbles over a group that is chosen by no name, or by one that is longer than a file's may be.
        raise UserError(_explain(error, overrides)) from error
    _check_keys(config)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"config: {', '.join(missing)} must be given, e.g. {missing[0]}=VALUE")
    return config, hydra_node


def spelt_out(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra takes them: respelt, ``scale=tiny`` as what it sets, lists of erasers or tasks in their places.

    Raises:
        UserError: one cannot be read or done.
    """
    overrides = at_scale([respelt(text) for text in overrides])
    parsed = parse_overrides(overrides)
    placed = [out for text, one in zip(overrides, parsed, strict=True) for out in _placed(text, one)]
    files = [name for one in parsed if one.key_or_group == "method" for name in _own_files(one)]
    return with_plugins(placed, files) if files else placed


def _own_files(parsed: Override) -> list[str]:
    """The files among the names that an override chooses."""
    value = None if parsed.is_sweep_override() else parsed.value()
    return [str(name) for name in (value if isinstance(value, list) else [value]) if is_file(name)]


def _placed(text: str, parsed: Override) -> list[str]:
    """``method=[cure,uce]`` is two erasers, each in a place of its own; Hydra would merge their settings into one."""
    group = parsed.key_or_group
    if group not in (*SEVERAL, *ONE_OF) or parsed.package or parsed.type is not OverrideType.CHANGE:
        return [text]
    if isinstance(parsed._value, ChoiceSweep):
        if any(isinstance(value, list) for value in parsed._value.list):
            raise UserError(
                f"{text}: a sweep over lists is not done; make a run of each list, or one of all: {group}=[a,b]"
            )
        return [text]
    names = parsed.value()
    own = _own_files(parsed) if group == "method" else []
    if len(own) == 1 and names in (own, own[0]):  # alone, it stands where the unedited model would
        return ["method=none", *as_overrides(eraser_node(own[0]), "method", new=False)]
    if not isinstance(names, list) or len(names) < 2:
        return [text]
    if group in ONE_OF:
        raise UserError(
            f"{text}: one {group} a run; for a run of each: erasebench run -m {group}={','.join(map(str, names))}"
        )
    if len(set(map(str, names))) < len(names):
        raise UserError(f"{text}: one is named twice; name each once")
    shipped = [name for name in names if name not in own]
    whole = [name for name in shipped if _brings_places(group, str(name))]
    rows = [name for name in shipped if group == "method" and name not in whole and has_row(str(name))]
    return [
        # Those that are made of several bring their places with them, and so do rows.
        f"{group}=[{','.join([*whole, *(f'_rows/{name}' for name in rows)])}]",
        *(f"+{group}@{group}.{name}={name}" for name in shipped if name not in (*whole, *rows)),
        *(out for name in own for out in as_overrides(eraser_node(name), f"method.{module_of(name)}", new=True)),
    ]


@cache
def _brings_places(group: str, name: str) -> bool:
    """Whether an option of a group is made of several, which stand in places of their own."""
    return SEVERAL[group] not in compose([f"{group}={name}"])[group]


def _check_keys(config: DictConfig) -> None:
    """Refuse keys that nothing reads, which ``+`` puts in unasked.

    Raises:
        UserError: naming the key and the nearest.
    """
    schemas = {"": Settings, "model": ModelSettings, "protocol": ProtocolSettings, "store": StoreSettings}
    for section, schema in schemas.items():
        known = [field.name for field in fields(schema)]
        node = config.get(section) if section else config
        for key in node or ():
            if key not in known:
                place = f"{section}.{key!s}".lstrip(".")
                raise UserError(f"{place}: no such key.{suggest(str(key), known)} Keys: {', '.join(known)}")


PATHS = ("store.dir", "model.path", "prompts.source", "lists.artists", "lists.instances", "lists.captions")
"""Settings that may be read from the environment (``store.dir=${oc.env:SCRATCH}/results``)."""


def check_texts(config: DictConfig) -> None:
    """Refuse a setting that is read from somewhere else than the config, but for a path.

    All settings are written down in the run's folder, some in edits and report pages, and those are passed on: a token
    that some config reads from the environment would be passed on with them. A text may point at another setting
    (``${device}``); only the user's own paths may call a resolver of OmegaConf.

    Raises:
        UserError: naming the setting.
    """
    for key, text in _texts(OmegaConf.to_container(config, resolve=False)):
        # Loose on purpose: the name of a resolver may itself be put together, as in ${oc.${x}:HF_TOKEN}.
        if key not in PATHS and re.search(r"\$\{.*:", text, re.DOTALL):
            raise UserError(
                f"{key}: {text!r} is read from outside the config, and what a run is made with is written down and "
                f"passed on; write the value itself (only {', '.join(PATHS)} may be read from the environment)"
            )


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a config with its dotted key."""
    if isinstance(node, str):
        yield key, node
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in entries:
        yield from _texts(value, f"{key}.{name}" if key else str(name))


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
    whole = compose([f"experiment={name}"])
    about, metrics = whole.experiment, f"metric=[{','.join(_tiny_metrics(whole.metric))}]"
    trained = () if "method" in given else _small_training(plain_values(whole.method), "method")
    small = {text.split("=", 1)[0]: text for text in (*TINY[about.kind], *TINY[""], metrics, *trained, *about.tiny)}
    return [*(text for key, text in small.items() if key not in given), *overrides]


def _small_training(node: Mapping[str, Any], place: str) -> Iterator[str]:
    """Overrides that make the training of every eraser in a node a matter of seconds.

    A weight of 0 for staying near the original weights needs captions, which are not here: ``lam`` is the default then.
    """
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _small_training(value, f"{place}.{name}")
        elif name in TINY_TRAINING:
            yield f"{place}.{name}={TINY_TRAINING[name]}"
        elif name == "lam" and value == 0:
            yield f"{place}.lam=null"


def _tiny_metrics(metrics: Iterable[str]) -> list[str]:
    """The judge, and what measures the same as an experiment's metrics of the embedded model's images."""
    beginnings = sorted(TINY_METRICS, key=len, reverse=True)
    begun = [next((start for start in beginnings if str(name).startswith(start)), None) for name in metrics]
    return list(dict.fromkeys(["judge", *(TINY_METRICS[start] for start in begun if start)]))


@contextmanager
def hydra_initialized() -> Iterator[None]:
    """Inside the block Hydra composes from our config tree, also if a Hydra app of somebody else is running around us.

    Hydra is one object in a process; what it was is put back.
    """
    around, name = GlobalHydra.instance().hydra, JobRuntime.instance().get("name")
    version = VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3", job_name="erasebench"):
            yield
    finally:
        GlobalHydra.instance().hydra = around
        JobRuntime.instance().set("name", name)
        VersionBase.instance().version_base = version


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """A composition error in one sentence, with the nearest known name."""
    text = str(error)
    shipped = groups()
    option = re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text)
    if option and option[1] in shipped:
        return _no_such_option(option[1], option[2])
    for override in parse_overrides(overrides):
        group = override.key_or_group
        if group in shipped and not override.is_sweep_override() and not _names_options(override.value()):
            return _no_such_option(group, override.get_value_element_as_str())
    if merging := re.match(r"Error merging override (.*)", text, re.DOTALL):
        why = str(error.__cause__ or "").partition("\n")[0]
        return f"{merging[1].removeprefix('++')}: {why}"
    if "Ambiguous value" in text:
        return f"{_first_quoted(text)}: several values are a sweep; add -m, or write a list: KEY=[a,b]"
    if isinstance(error, OmegaConfBaseException) and (place := re.search(r"full_key: (\S+)", text)):
        if "Interpolation" in type(error).__name__:
            return f"{place[1]}: {text.partition(chr(10))[0]}; a $ before a brace that is meant as it stands is written \\${{"
        return f"{place[1]}: {text.partition(chr(10))[0]}"
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        keys = [name for name in _known_keys(overrides) + list(shipped) if name != key[1]]
        return f"{key[1]}: no such key.{suggest(key[1], keys)} See all keys with: erasebench run --cfg job"
    return f"config: {text.partition(chr(10))[0]}"


def _names_options(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, str)
        or (isinstance(value, list) and all(isinstance(name, str) for name in value))
    )


def _no_such_option(group: str, name: str) -> str:
    options = groups()[group]
    return f"{group}={name}: there is no such {group}.{suggest(name, options)} Known: {', '.join(options)}"


def _first_quoted(text: str) -> str:
    return text.split("'")[1]


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the config with only the choices of groups applied."""
    chosen = [text for text in overrides if text.split("=")[0].partition("@")[0].lstrip("+") in groups()]
    try:
        with hydra_initialized():
            config = OmegaConf.to_container(hydra_compose("config", overrides=chosen))
    except (HydraException, OmegaConfBaseException, ValueError):
        return []
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for name, value in node.items() if isinstance(node, dict) else ():
            keys.append(f"{prefix}{name}")
            walk(value, f"{prefix}{name}.")

    walk(config, "")
    return keys
