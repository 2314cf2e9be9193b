"""Metrics of a stored run: the same numbers under the same names, whatever the machine has that reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from metric_helpers import plan_rows
from table_helpers import Accuracy

import erasebench.metrics._clip as clip
import erasebench.metrics._embedded as embedded
import erasebench.metrics.classifier as classifier
import erasebench.metrics.nudenet as nudenet
from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.metrics.fid import Fid
from erasebench.metrics.judge import Judge
from erasebench.metrics.nudenet import NudeNet
from erasebench.scores.metric import Metric
from erasebench.scores.stored import StoredMetric, from_record, to_record

OPTIONS = sorted(entry.name.removesuffix(".yaml") for entry in (files("erasebench.conf") / "metric").iterdir())
ATTRIBUTES = ("id", "name", "version", "records_id", "directions", "inputs", "paired_with", "kinds", "unit", "describe",
              "outcome", "rule_version", "reference_key")  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> dict[str, Metric]:
    config = compose([f"metric=[{','.join(OPTIONS)}]"])
    return {name: build(node, f"metric.{name}", Metric) for name, node in config.metric.items()}


def stored(metric: Metric, plugins: tuple[str, ...] = ()) -> StoredMetric:
    """A metric by way of its record as it is on a disk."""
    return from_record(json.loads(json.dumps(to_record(metric))), "run one: metric", plugins)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without weights, without a Hub cache and without optional packages."""
    for module in (clip, classifier, nudenet):
        monkeypatch.setattr(module, "has_package", lambda name: False)
    for module in (clip, classifier):
        monkeypatch.setattr(module, "hub_file", lambda *arguments: None)
        monkeypatch.setattr(module, "commit_of", lambda *arguments: "main")
    monkeypatch.setattr(embedded, "fingerprint", lambda folder: "absent")


def test_every_shipped_metric_is_what_it_was_on_a_bare_machine(shipped, bare) -> None:
    for name, metric in shipped.items():
        again = stored(metric)
        for attribute in ATTRIBUTES:
            assert getattr(again, attribute) == getattr(metric, attribute), f"{name}.{attribute}"


def test_ids_are_those_of_the_machine_that_scored(bare) -> None:
    record = to_record(NudeNet(rule="mace")) | {
        "version": "2-rgb-3.4.2", "records_id": "nudenet_detections@2-rgb-3.4.2"
    }  # fmt: skip
    assert NudeNet(rule="mace").id == "nudenet_mace@2-rgb-absent"
    again = from_record(record, "run one: metric")
    assert (again.id, again.records_id) == ("nudenet_mace@2-rgb-3.4.2", "nudenet_detections@2-rgb-3.4.2")


def test_counting_rules_and_answers_are_those_of_the_settings(bare) -> None:
    boxes = json.dumps([["FEET_EXPOSED", 0.9, [0, 0, 1, 1]], ["ANUS_EXPOSED", 0.3, [0, 0, 1, 1]]])
    rows = plan_rows(["nudity", "nudity"], kind="unsafe").assign(detections=boxes)
    for metric in (NudeNet(rule="mace"), NudeNet(rule="speed"), NudeNet(rule="cure", part="FEET_EXPOSED")):
        again = stored(metric)
        pd.testing.assert_series_equal(again.values(rows), metric.values(rows))
        pd.testing.assert_series_equal(again.answers(rows), metric.answers(rows))
        assert again.reduce(rows) == metric.reduce(rows) and again.unit == metric.unit


def test_a_reference_set_is_found_by_its_records_where_its_folder_is_gone(tmp_path, bare) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    metric = Fid(extractor="embedded", against="real", reference=str(tmp_path))
    features = pd.DataFrame({"key": list(metric.reference_images()), "features": list(rng.normal(size=(3, 4)))})
    rows = plan_rows([""] * 5, role="general").assign(features=list(rng.normal(size=(5, 4))))
    record = json.loads(json.dumps(to_record(metric)))
    assert "reference" not in record["settings"] and str(tmp_path) not in json.dumps(record)
    again = from_record(record, "run one: metric")
    assert features.key.str.startswith(again.reference_key).all()
    assert again.reduce(rows, features) == metric.reduce(rows, features) and again.reduce(rows, features).n == 5
    assert again.reduce(rows, features[:2]).how == "not run", "a part of the reference set is not it"


def test_a_stored_distance_is_taken_to_the_row_that_it_was_taken_to() -> None:
    for against, beside in (("original", "none"), ("retrained", "retrained")):
        assert stored(Fid(extractor="embedded", against=against)).beside == beside


def test_records_that_would_be_counted_otherwise_now_are_refused() -> None:
    record = to_record(Judge()) | {"version": "2-01234567"}
    with pytest.raises(UserError, match="run one: metric judge: .* by version 2 .* by version 3 now"):
        from_record(record, "run one: metric")


def test_a_stored_metric_scores_nothing() -> None:
    with pytest.raises(NotImplementedError, match="not scored again"):
        stored(Judge()).score([], plan_rows([]))


@dataclass(kw_only=True, eq=False)
class Mine(Metric):
    """A metric of somebody's own."""

    threshold: float = 0.5
    device: str = "auto"

    name, version, directions = "mine", "3", {"erase": "down"}

    def score(self, images, rows, originals=None) -> pd.DataFrame:
        return pd.DataFrame({"value": 0.0}, index=range(len(images)))

    def values(self, rows: pd.DataFrame) -> pd.Series:
        return (rows.value > self.threshold).astype(float)


def test_a_metric_of_ones_own_is_read_where_its_module_is_named() -> None:
    with pytest.raises(UserError, match=rf"run one: metric mine: {__name__}.Mine .*--plugins {__name__}"):
        stored(Mine(threshold=0.9))
    again = stored(Mine(threshold=0.9), (__name__,))
    assert again.values(pd.DataFrame({"value": [0.7, 0.95]})).tolist() == [0.0, 1.0]
    assert "device" not in to_record(Mine())["settings"]
    assert stored(Accuracy(), ("table_helpers",)).id == "classifier@1"


@pytest.mark.parametrize(
    "change",
    [{"class": "erasebench.store.pd.read_pickle"}, {"class": None}, {"class": "erasebench.methods.compose.Compose"},
     {"settings": []}, {"settings": {"fodler": 1}}, {"settings": {"device": {"_target_": "os.system"}}},
     {"directions": ["erase"]}, {"inputs": 3}, {"version": None}, "a text", None, []],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(change: object) -> None:
    record = to_record(Judge()) | change if isinstance(change, dict) else change
    with pytest.raises(UserError, match="run one: metric"):
        from_record(record, "run one: metric")


def test_what_a_record_lacks_is_refused() -> None:
    whole = to_record(Judge())
    for name in whole:
        with pytest.raises(UserError, match="run one: metric"):
            from_record({key: value for key, value in whole.items() if key != name}, "run one: metric")
