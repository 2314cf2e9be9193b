"""Every metric of the config: composes with the others, is named as its file, and says what it lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.resources import files

import pytest

from erasebench.concepts import ROLES
from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.scores.metric import PAIRS_WITH, Metric

FOLDER = files("erasebench.conf") / "metric"
OPTIONS = sorted(entry.name.removesuffix(".yaml") for entry in FOLDER.iterdir())
NAMES = [name for name in OPTIONS if "# @package metric\n" not in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")]
"""Options that are one metric each; the others are several at once."""


@pytest.fixture(scope="module")
def metrics():
    config = compose([f"metric=[{','.join(OPTIONS)}]"])
    return {name: build(node, f"metric.{name}", Metric) for name, node in config.metric.items()}


def test_all_compose_together_and_are_named_as_their_files(metrics):
    assert {name: metric.name for name, metric in metrics.items()} == {name: name for name in metrics}
    assert set(NAMES) < set(metrics) and len({metric.id for metric in metrics.values()}) == len(metrics)


def test_all_declare_what_a_table_needs(metrics):
    for metric in metrics.values():
        assert metric.directions and set(metric.directions) <= set(ROLES)
        assert set(metric.directions.values()) <= {"up", "down"}
        assert metric.describe and "\n" not in metric.describe
        assert metric.needs
        for text in (metric.id, metric.records_id):
            assert re.fullmatch(r"[\w.@-]+", text), f"{text} is not safe as a folder name"
        assert metric.paired_with in PAIRS_WITH
        assert {name for name in metric.inputs if name.endswith("_key")} == {metric.paired_with} - {""}


def test_an_unknown_setting_is_refused_by_name():
    config = compose([f"metric=[{','.join(NAMES)}]", *(f"+metric.{name}.batch_sizes=3" for name in NAMES)])
    for name in NAMES:
        with pytest.raises(UserError, match="batch_sizes"):
            build(config.metric[name], f"metric.{name}", Metric)


WITHOUT = """
from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.scores.metric import Metric
names = {names!r}
for name, node in compose([f"metric=[{{','.join(names)}}]"]).metric.items():
    print(name, "|", build(node, name, Metric).unavailable())
"""


def test_absent_weights_are_a_sentence_with_the_cure_and_no_download(tmp_path):
    """With empty caches: asked before any image is made, so it must be quick and must not raise."""
    environment = {**os.environ, "HOME": str(tmp_path), "TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    for variable in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        environment.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=NAMES)], env=environment, capture_output=True, text=True, check=True
    )
    said = dict(line.split(" | ", 1) for line in done.stdout.splitlines())
    assert set(said) == set(NAMES)
    for name, sentence in said.items():
        if name.startswith(("nudenet", "judge")) or "embedded" in name:
            continue  # their weights are in packages
        cure = "reference=FOLDER" if name.endswith("_real") else "`erasebench prefetch`"
        cure = "=FILE" if name.startswith(("unlearncanvas", "q16", "aesthetic")) else cure  # no safetensors
        assert cure in sentence, f"{name}: {sentence}"
    assert not list(tmp_path.rglob("*.pth")) and not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("model", sorted(entry.name[:-5] for entry in (files("erasebench.conf") / "model").iterdir()))
def test_no_model_measures_a_frechet_distance_unasked(model):
    """Its default prompts are far fewer than 2000, of which the distance says little more than their number."""
    more = ["model.path=x"] if model in ("folder", "unlearncanvas") else []
    assert not [name for name in compose([f"model={model}", *more]).metric if name.startswith("fid")]
