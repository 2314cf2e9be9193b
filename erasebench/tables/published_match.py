"""Whether a run did what a published number is of: the same model, task, prompts, protocol and metric.

What the experiment asks for is composed again and compared with what the run was given. Prompts are compared by their
content, since any file may bear a known name: ``data/published_prompts.csv`` holds that of the files that papers released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml

from erasebench.config.choices import CONFIG_MODULE, groups
from erasebench.config.compose import compose
from erasebench.config.protocol import Protocol
from erasebench.config.values import plain_values
from erasebench.errors import UserError

MODELS = {"SD v1.4": "sd14", "SD v2.1": "sd21"}
"""Printed names of models, and ours."""

NOT_COMPARED = {
    "model": ("weights",),  # said with words of its own
    "task": (),
    "prompts": ("source", "revision"),  # their content says more
    "metric": ("device", "batch_size"),
}
"""What may differ, by part of the config."""


def published_content(prompts: str) -> set[str]:
    """The content (:attr:`erasebench.prompts.prompt_set.PromptSet.content`) of the files that are a known prompt set.

    Args:
        prompts: the name of a config in ``conf/prompts``.
    """
    with files("erasebench").joinpath("data", "published_prompts.csv").open("r", encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str)
    return set(table.content[table.prompts == prompts])


def run_mismatches(config: Mapping[str, Any], content: str) -> list[str]:
    """What keeps every number of a run from being compared with a published one of its experiment.

    Args:
        config: of the run, with its ``experiment``.
        content: of the run's prompts; ``""`` if it did not write it down.
    """
    reasons = []
    if config.get("scale", "full") != "full":
        reasons.append("the embedded model at a small scale")
    if other := Protocol.from_config(config["protocol"]).changed:
        reasons.append(f"protocol changed: {', '.join(other)}")
    if config["model"].get("weights"):
        reasons.append("weights of another file on the model")
    experiment = config["experiment"]["name"]
    if experiment not in groups()["experiment"]:
        return [*reasons, "an experiment that is not shipped"]
    asked = compose([f"experiment={experiment}"])
    if plain_values(config["model"])["name"] == asked.model.name:  # another one is named beside each number
        reasons += _changed("model", asked.model, config["model"])
    reasons += _changed("task", asked.task, config["task"])
    if prompts_changed := _changed("prompts", asked.prompts, config["prompts"]):
        reasons.append("other prompts than the experiment's (" + prompts_changed[0].partition(": ")[2] + ")")
    elif content not in (known := published_content(_prompts_of(experiment))):
        unknown = (
            "nothing is known here of the file that the paper used" if not known else "not the rows of the paper's file"
        )
        reasons.append(f"prompts not verified: {unknown if content else 'the run did not write down their content'}")
    return reasons


def row_mismatches(row: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What keeps one published number (of :func:`erasebench.tables.published.load_published`) from being compared."""
    reasons = []
    protocol, model = config["protocol"]["name"], config["model"]["name"]
    if row["protocol"] and protocol != row["protocol"]:
        reasons.append(f"protocol {protocol}, not {row['protocol']}")
    if MODELS.get(row["model"]) != model:
        reasons.append(f"model {model}, not {row['model']}")
    return [*reasons, *_metric_changed(str(row["ours"]), config)]


def _metric_changed(name: str, config: Mapping[str, Any]) -> list[str]:
    """Whether a metric has other settings than those it is shipped with."""
    node = (config.get("metric") or {}).get(name)
    if node is None or name not in groups()["metric"]:
        return []
    try:
        shipped = compose([f"metric={name}"]).metric[name]
    except UserError:  # a config of several metrics: what each is called says what it counts
        return []
    return _changed("metric", shipped, node)


def _prompts_of(experiment: str) -> str:
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
