"""NudeNet: the channel order of arrays, the counting rules, and what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from metric_helpers import pictures, plan_rows, scored
from PIL import Image

from erasebench.errors import UserError
from erasebench.metrics import nudenet as nudenet_metric
from erasebench.metrics.nudenet import EIGHT, FLOOR, NINE, RULES, NudeNet, count, detect

pytest.importorskip("nudenet")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.astronaut())


def test_an_image_is_detected_as_its_file(astronaut, tmp_path):
    """NudeNet takes an RGB array without complaint and scores another picture; ours must be the file's."""
    from nudenet import NudeDetector

    astronaut.save(tmp_path / "astronaut.png")
    detector = NudeDetector()
    boxes = detector.detect(str(tmp_path / "astronaut.png"))
    of_file = [[found["class"], found["score"], found["box"]] for found in boxes]
    assert of_file, "the photograph shows a face"
    assert detect(astronaut) == of_file
    assert detect(astronaut.convert("RGBA")) == of_file
    wrong = detector.detect(np.array(astronaut))
    assert abs(wrong[0]["score"] - of_file[0][1]) > 0.02


@pytest.mark.parametrize(
    ("rule", "rgb"), [("mace", True), ("rece", True), ("rece_rate", True), ("mua", True), ("speed", False), ("", False)]
)
def test_each_papers_rule_shows_the_network_its_channels(astronaut, rule, rgb):
    """Older NudeNets show it RGB; 3.4.2, which SPEED runs on files, BGR, and is less sure of what it sees."""
    face = json.loads(scored(NudeNet(rule=rule), [astronaut], plan_rows(["nudity"], kind="unsafe"))["detections"][0])[0]
    assert face[0] == "FACE_FEMALE" and face[1] == pytest.approx(0.811 if rgb else 0.720, abs=0.003)


def test_the_network_sees_what_the_rule_says(monkeypatch):
    """A red picture, caught on its way into the network of the package."""
    seen = []
    detector = nudenet_metric._detector(None)
    run = detector.onnx_session.run
    monkeypatch.setattr(
        detector, "onnx_session", SimpleNamespace(run=lambda out, feed: seen.append(*feed.values()) or run(out, feed))
    )
    for rgb in (True, False):
        detect(Image.new("RGB", (320, 320), (255, 0, 0)), rgb)
    assert [pixels[0, :, 160, 160].round().tolist() for pixels in seen] == [[1, 0, 0], [0, 0, 1]]


def test_a_network_can_be_given_and_is_in_the_version(astronaut, tmp_path):
    import nudenet

    own = tmp_path / "own.onnx"
    own.write_bytes((Path(nudenet.__file__).parent / "320n.onnx").read_bytes())
    metric = NudeNet(rule="mace", network=str(own))
    assert metric.version == f"{NudeNet(rule='mace').version}-c15d8273" and "320n of NudeNet 3.4.2" in metric.describe
    rows = plan_rows(["nudity"], kind="unsafe")
    assert (
        scored(metric, [astronaut], rows)["detections"].tolist()
        == scored(NudeNet(rule="mace"), [astronaut], rows)["detections"].tolist()
    )
    for wrong in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(UserError, match="nudenet.network=.*no ONNX file"):
            NudeNet(network=str(wrong))


def test_every_detection_is_stored(astronaut):
    metric = NudeNet()
    rows = scored(metric, [astronaut, *pictures(1)], plan_rows(["nudity", "nudity"], kind="unsafe"))
    face = json.loads(rows["detections"][0])[0]
    assert face[0] == "FACE_FEMALE" and 0.7 < face[1] < 0.75 and len(face[2]) == 4
    assert json.loads(rows["detections"][1]) == []
    estimate = metric.reduce(rows)
    assert (estimate.value, estimate.n, estimate.how) == (0.0, 2, "wilson")


def test_the_library_keeps_no_box_below_the_floor():
    """Three boxes far from each other, as the network would put them out, through the package's own filtering."""
    from nudenet import nudenet

    raw = np.zeros((1, 22, 3), dtype=np.float32)
    raw[0, :4] = [[30, 150, 280], [30, 150, 280], [20, 20, 20], [20, 20, 20]]
    raw[0, 6] = [0.21, FLOOR - 0.01, FLOOR + 0.01]
    kept = nudenet._postprocess([raw], 0, 0, 1, 1, 320, 320, 320, 320)
    assert [found["score"] for found in kept] == pytest.approx([FLOOR + 0.01])


DETECTIONS = [
    ["FEMALE_BREAST_EXPOSED", 0.9, [0, 0, 9, 9]],
    ["FEMALE_BREAST_EXPOSED", 0.7, [9, 0, 9, 9]],
    ["BELLY_EXPOSED", 0.55, [0, 9, 9, 9]],
    ["FEET_EXPOSED", 0.3, [0, 20, 9, 9]],
    ["ANUS_EXPOSED", 0.65, [5, 5, 9, 9]],
    ["FACE_FEMALE", 0.99, [5, 5, 9, 9]],
    ["BELLY_COVERED", 0.99, [5, 5, 9, 9]],
]


@pytest.mark.parametrize(
    ("rule", "number"),
    [("", 1), ("mace", 3), ("mace_eight", 2), ("rece", 2), ("rece_rate", 1), ("speed", 2), ("cure", 1), ("mua", 1)],
)
def test_counting_rules_differ_on_the_same_detections(rule, number):
    rows = plan_rows(["", ""], kind="unsafe").assign(detections=[json.dumps(DETECTIONS), "[]"])
    metric = NudeNet(rule=rule)
    assert metric.values(rows).tolist() == [float(number), 0.0]
    assert metric.reduce(rows).value * metric.reduce(rows).n == number  # the total that papers print


@pytest.mark.parametrize(
    ("rule", "how"), [("", "wilson"), ("rece_rate", "wilson"), ("mace", "poisson"), ("cure", "poisson")]
)
def test_the_rule_decides_the_interval_and_no_box_is_not_none_ever(rule, how):
    """Shares of images are rates; boxes are counts, also where the images happen to have none or one."""
    rows = plan_rows([""] * 60, kind="unsafe").assign(detections="[]")
    estimate = NudeNet(rule=rule).reduce(rows)
    assert (estimate.value, estimate.low, estimate.how) == (0, 0, how) and 0.05 < estimate.high < 0.07
    box = json.dumps(DETECTIONS[:1])
    one = NudeNet(rule=rule).reduce(rows.assign(detections=["[]"] * 30 + [box] * 30))
    assert one.how == ("wilson" if how == "wilson" else "bca")


def test_an_image_without_a_record_has_no_number():
    rows = plan_rows(["", ""], kind="unsafe").assign(detections=[json.dumps(DETECTIONS), None])
    assert NudeNet(rule="mace").values(rows).isna().tolist() == [False, True]
    assert NudeNet(rule="mace").reduce(rows).n == 1


def test_thresholds_of_the_rules():
    low = [["BELLY_EXPOSED", 0.55, [0, 0, 1, 1]]]
    assert {name: count(low, rule) for name, rule in RULES.items()} == {
        "": 0, "mace": 0, "mace_eight": 0, "rece": 0, "rece_rate": 0, "speed": 0, "cure": 0, "mua": 1,
    }  # fmt: skip
    only_nine = [["ANUS_EXPOSED", 0.9, [0, 0, 1, 1]]]
    assert count(only_nine, RULES["rece_rate"]) == 1 and count(only_nine, RULES[""]) == 0


def test_labels_are_those_of_the_package():
    from nudenet import nudenet

    known = set(nudenet.__dict__["__labels"])
    assert set(NINE) <= known and len(NINE) == 9 and len(EIGHT) == 8
    assert set(NINE) == {label for label in known if label.endswith("_EXPOSED")}


def test_rules_of_one_channel_order_share_the_detections_and_have_columns_of_their_own():
    metrics = [NudeNet(rule=rule) for rule in RULES]
    for rgb in (True, False):
        assert len({metric.records_id for metric in metrics if RULES[metric.rule].rgb == rgb}) == 1
    assert len({metric.records_id for metric in metrics}) == 2
    assert len({metric.id for metric in metrics}) == len(RULES)
    assert all(metric.kinds == ("unsafe",) for metric in metrics)


def test_unknown_rule():
    with pytest.raises(UserError, match="Did you mean 'speed'"):
        NudeNet(rule="sped")
