"""Whether a run did what a published number is of: the same model, task, prompts, protocol, eraser and metric.

What the experiment asks for is composed again and compared with what the run was given. Prompts are compared by their
content, since any file may bear a known name: ``data/published_prompts.csv`` holds that of the files that papers released,
and of files that were not read here the number of rows.

What keeps a difference from being taken is a *reason*; what a reader should know of a difference that is taken, a *remark*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from erasebench.config.build import build, places
from erasebench.config.choices import CONFIG_MODULE, groups
from erasebench.config.compose import compose
from erasebench.config.protocol import OBEYED, SAID, Protocol
from erasebench.config.values import plain_values
from erasebench.edits.label import UNEDITED
from erasebench.edits.released import LIST, RELEASED, changed_settings, release_of
from erasebench.prompts.released_files import known_prompts
from erasebench.runs.folder import erasers_of, read_config
from erasebench.runs.manifest import read_manifest
from erasebench.scores.metric import Metric

MODELS = {"SD v1.4": "sd14", "SD v1.5": "sd15", "SD v2.1": "sd21"}
"""Printed names of models, and ours."""

NOT_COMPARED = {
    "model": ("weights",),  # said with words of its own
    "task": (),
    "prompts": ("source", "revision", "file_of"),  # their content says more
    "metric": ("device", "batch_size", "network"),  # of the last its hash, see metric_mismatches
}
"""What may differ, by part of the config."""

MADE_HERE = ("builtin", "templates")
"""Sources of prompts that are no file."""

OWN_NAMES = {"esd_x": "esd", "sld_medium": "sld", "safree": "safree_released"}
"""What an eraser at its defaults is called here, where its release has another name."""


@dataclass(frozen=True)
class Ran:
    """What a run did, as far as its numbers may differ for it from published ones.

    Attributes:
        config: as plain values, with its ``experiment``.
        prompt_sets: what the run's manifest says of its prompts, by kind.
        dtype: the type that its weights had; ``""`` if the run did not write it down.
        erasers: what its config says of each eraser, by the text of its label.
    """

    config: Mapping[str, Any]
    prompt_sets: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = ""
    erasers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path) -> Ran:
        """Of a stored run.

        Raises:
            UserError: its files cannot be read.
        """
        manifest = read_manifest(folder)
        return cls(
            read_config(folder),
            manifest.get("prompt_sets") or {},
            manifest.get("dtype") or "",
            {text: node for text, (_, node) in erasers_of(folder).items()},
        )

    @property
    def experiment(self) -> Mapping[str, Any]:
        """The node of its experiment."""
        about: Mapping[str, Any] = self.config["experiment"]
        return about

    @property
    def prompts(self) -> Mapping[str, Any]:
        """What its manifest says of the prompts of its experiment."""
        of_kind = self.prompt_sets.get(self.experiment["kind"])
        return of_kind if isinstance(of_kind, Mapping) else {}


@cache
def _asked(experiment: str, scale: str) -> DictConfig:
    """What a shipped experiment asks for."""
    return compose([f"experiment={experiment}", *([f"scale={scale}"] if scale != "full" else [])])


def run_mismatches(ran: Ran) -> tuple[list[str], list[str]]:
    """The reasons that keep every number of a run from being compared, and remarks on all of them."""
    config, experiment = ran.config, ran.experiment["name"]
    if config["model"].get("weights"):
        return ["weights of another file on the model"], []
    if experiment not in groups()["experiment"]:
        return ["an experiment that is not shipped"], []
    asked = _asked(experiment, config.get("scale", "full"))
    reasons = []
    own, released = Protocol.from_config(config["protocol"]), Protocol.from_config(asked.protocol)
    if own.name == released.name:  # another one is named beside each number
        changed = [key for key in (*OBEYED, *SAID) if getattr(own, key) != getattr(released, key)]
        reasons += [f"protocol changed: {', '.join(changed)}"] if changed else []
    dtype = ran.dtype or config.get("dtype", "auto")
    if released.dtype and dtype not in ("auto", released.dtype):
        reasons.append(f"{dtype} weights, not {released.dtype}")
    if config["model"]["name"] == asked.model.name:
        reasons += _changed("model", asked.model, config["model"])
    reasons += _changed("task", asked.task, config["task"])
    why, remarks = _prompts_mismatches(ran, asked, experiment)
    return reasons + why, remarks


def _prompts_mismatches(ran: Ran, asked: DictConfig, experiment: str) -> tuple[list[str], list[str]]:
    if changed := _changed("prompts", asked.prompts, ran.config["prompts"]):
        return ["other prompts than the experiment's (" + changed[0].partition(": ")[2] + ")"], []
    if asked.prompts.get("source") in MADE_HERE:  # which rows these are, the settings say
        return [], []
    content, rows = ran.prompts.get("content", ""), (ran.prompts.get("counts") or {}).get("rows")
    known = known_prompts()
    known = known[known.prompts == prompts_of(experiment)]
    if content and content in set(known.content):
        return [], []
    counted = known[known.content == ""]
    if not content:
        why = "the run did not write down their content"
    elif not len(known):
        why = "nothing is known here of the file that the paper used"
    elif str(rows) in set(counted.rows):
        return [], [f"prompts compared by their number ({rows}): the paper's file was not read here"]
    elif len(counted):
        why = f"{rows} rows, not {' or '.join(dict.fromkeys(counted.rows))} as in the paper"
    else:
        why = "not the rows of the paper's file"
    return [f"prompts not verified: {why}"], []


def row_reasons(row: Mapping[str, Any]) -> list[str]:
    """What keeps a published number (of :func:`erasebench.tables.published_data.load_published`) from any comparison."""
    doubt = row["doubt"] and f"the printed value is doubtful: {row['doubt']}"
    again = row["copy_of"] and f"the number of {row['copy_of']}, printed again"
    return [reason for reason in (row["why"], doubt, again) if reason]


def row_mismatches(row: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What keeps one published number from being compared with the numbers of a run."""
    reasons = []
    if row["protocol"] and config["protocol"]["name"] != row["protocol"]:
        reasons.append(f"protocol {config['protocol']['name']}, not {row['protocol']}")
    if not of_model(row, config):
        model = "the embedded model" if config["model"]["name"] == "embedded" else f"model {config['model']['name']}"
        reasons.append(f"{model}, not {row['model']}")
    return [*reasons, *_metric_changed(str(row["ours"]), config)]


def of_model(row: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a published number is of the model of a run."""
    return bool(MODELS.get(row["model"], row["model"]) == config["model"]["name"])


def _metric_changed(name: str, config: Mapping[str, Any]) -> list[str]:
    """Whether a metric has other settings than those it is shipped with."""
    node = (config.get("metric") or {}).get(name)
    shipped = _metric_node(name)
    return _changed("metric", shipped, node) if node is not None and shipped is not None else []


@cache
def _metric_node(name: str) -> Mapping[str, Any] | None:
    """The config of a metric that is shipped, alone or as one of several; ``None`` if there is none."""
    known = groups()["metric"]
    for option in (name, *(option for option in known if option.endswith("_parts") and name.startswith(option[:-6]))):
        if option in known:
            node = compose([f"metric={option}"]).metric.get(name)
            if node is not None:
                return plain_values(node)
    return None


def metric_mismatches(row: Mapping[str, Any], measured: str) -> list[str]:
    """Whether a number was measured by another version of a metric than the one that the published number is of.

    Args:
        row: the published number.
        measured: the metric's name and version, as a table has it.
    """
    node = _metric_node(str(row["ours"]))
    if node is None:
        return []
    metric = build(node, f"metric.{row['ours']}", Metric)
    version = measured.partition("@")[2]
    rule = version.partition("-")[0]
    reasons = [f"metric version {rule}, not {metric.rule_version}"] if rule != metric.rule_version else []
    if row["version"] not in version:
        reasons.append(f"not by the paper's network ({row['version']}...), which metric.{row['ours']}.network takes")
    return reasons


def find_label(name: str, erasers: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The row of a run that is an eraser with the settings of its release, else with its own defaults; or none.

    Args:
        name: of the eraser, as ``published_methods.csv`` has it: that of its release, of which there may be several for
            several kinds of concepts (``uce``, ``uce_artists``).
        erasers: see :class:`Ran`.
    """
    for label, node in erasers.items():
        release = str(node.get(RELEASED, ""))
        if release == name or release.startswith(f"{name}_"):
            return label
    own = OWN_NAMES.get(name, name)
    return own if own in (*erasers, UNEDITED) else None


def eraser_mismatches(label: str, ran: Ran) -> tuple[list[str], list[str]]:
    """The reasons why the eraser of a row has other settings than its release, and remarks on what nobody knows."""
    if label == UNEDITED:
        return [], []
    node = ran.erasers.get(label)
    choices = None if node is None else release_of(node)
    if node is None or choices is None:
        return ["our settings of the eraser; which its release has is not written down for this table"], []
    reasons = [f"{choice.option}: {choice.ours}, not {choice.value}" for choice in choices if choice.what == "differs"]
    # A list that is not given is as released: a run without it is refused (check_lists).
    lists = {choice.option for choice in choices if str(choice.value).startswith(LIST)}
    changed = [name for name, ours in changed_settings(node).items() if ours is not None or name not in lists]
    reasons += [f"not as released: {', '.join(changed)}"] if changed else []
    unknown = [choice.option for choice in choices if choice.what == "unknown"]
    return reasons, [f"our choice, since the paper does not say it: {', '.join(unknown)}"] if unknown else []


def erasers_in(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The nodes of a config's erasers by their keys, for where no run has named its rows."""
    return {place.split(".")[-1]: node for place, node in places(config["method"], "method", "_target_").items()}


def prompts_of(experiment: str) -> str:
    """The name of the prompt set that a shipped experiment is measured on; a composed config does not say it."""
    text = files(CONFIG_MODULE).joinpath("experiment", f"{experiment}.yaml").read_text(encoding="utf-8")
    chosen = {key: value for entry in yaml.safe_load(text)["defaults"] for key, value in entry.items()}
    return str(chosen["override /prompts"])


def _changed(part: str, asked: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The settings of a part of the config that are not as asked for, in one sentence, or none."""
    wanted, chosen = plain_values(asked), plain_values(given)
    names: Sequence[str] = [
        name
        for name in dict.fromkeys([*wanted, *chosen])
        if name not in NOT_COMPARED[part] and wanted.get(name) != chosen.get(name)
    ]
    return [f"{part} changed: {', '.join(names)}"] if names else []
